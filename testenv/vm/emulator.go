package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// emulatorFiles are what is used of QEMU's package and those it depends on.
//
// QEMU comes from the guests' release rather than from the machine. Where processors are
// emulated, older ones are not good enough with several of them: before 8.1 a processor may run
// code that another has just changed (kernels then die of int3 in patched code, or hang, in
// one boot of some twenty on a busy machine), and 7.2 emulates cmpxchg16b wrongly.
var emulatorFiles = strings.Fields(`
	usr/bin/qemu-system-x86_64 usr/share/seabios/bios-256k.bin
	usr/share/qemu/kvmvapic.bin usr/share/qemu/linuxboot_dma.bin`)

// emulator returns the beginning of QEMU's command line.
func (c *Cache) emulator(ctx context.Context) ([]string, error) {
	if runtime.GOARCH != "amd64" {
		program, err := exec.LookPath("qemu-system-x86_64")
		return []string{program}, err
	}
	set := packageSet{name: "qemu", suite: userlandSuite, packages: []string{"qemu-system-x86"}}
	debs, err := c.packages(ctx, set)
	if err != nil {
		return nil, err
	}
	dir, err := c.image("qemu", debs, fmt.Sprint("1", emulatorFiles), func(tmp string) error {
		root, err := set.unpack(ctx, debs, tmp)
		defer os.RemoveAll(root)
		if err != nil {
			return err
		}
		files := newFileSet(os.DirFS(root))
		if err := files.add(emulatorFiles...); err != nil {
			return err
		}
		return files.copyTo(tmp)
	})
	if err != nil {
		return nil, err
	}
	return []string{
		filepath.Join(dir, libLoader), "--library-path", filepath.Join(dir, libDir),
		filepath.Join(dir, "usr/bin/qemu-system-x86_64"),
		"-L", filepath.Join(dir, "usr/share/qemu"), "-L", filepath.Join(dir, "usr/share/seabios"),
	}, nil
}

// accelerator returns QEMU's arguments for the processor.
//
// KVM is taken only where the processor has VMX or SVM: /dev/kvm also exists on kernels
// that virtualise by other means (PVM), which run no stock kernel.
//
// A guest that warps is always emulated: QEMU counts its instructions, each of which takes it
// 1 ns (shift=0), and does not sleep when the guest does (sleep=off). Larger shifts have the guest
// boot slightly sooner, but work then takes more of its time, and deadlines of tests with it.
func accelerator(warp bool) []string {
	if warp {
		return []string{"-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-icount", "shift=0,sleep=off"}
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err == nil && regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`).Match(cpuinfo) {
		if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			f.Close()
			return []string{"-accel", "kvm", "-cpu", "host"}
		}
	}
	// Without cx16: see emulatorFiles; QEMU may be the machine's after all.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,-cx16"}
}
