package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// userlandSuite is the release of the guests' programs: the same for all kernels, so that
// a difference seen between two guests is a difference between two kernels.
const userlandSuite = "trixie"

// userlandPackages are unpacked with all they depend on; of the result a guest gets the
// programs named in userlandPrograms, the libraries these need and userlandFiles.
//
// Of the two busyboxes, the static one starts three times as fast (8 ms instead of 26 where
// the processor is emulated), but is built to prefer its own applets to the programs in
// PATH, behind timeout or xargs too, and its ip is not iproute2's. So it serves for all
// applets but those that run others, and sh is dash.
var userlandPackages = strings.Fields(`
	busybox dash nftables iproute2 conntrack iperf3 ethtool tcpdump netbase iptables`)

const busyboxStatic = "busybox-static"

var userlandPrograms = strings.Fields(`
	usr/bin/busybox usr/bin/dash usr/sbin/nft
	usr/bin/ip usr/bin/ss usr/bin/nstat usr/sbin/tc usr/sbin/bridge usr/sbin/devlink
	usr/sbin/conntrack usr/bin/iperf3 usr/sbin/ethtool usr/bin/tcpdump usr/sbin/xtables-nft-multi`)

// userlandFiles are data, programs that are links, and libraries that are opened by name.
var userlandFiles = strings.Fields(`
	etc/protocols etc/services etc/ethertypes etc/rpc
	usr/share/iproute2/*
	usr/lib/x86_64-linux-gnu/xtables/*
	usr/lib/x86_64-linux-gnu/libgcc_s.so.1
	usr/sbin/iptables-nft usr/sbin/ip6tables-nft usr/sbin/iptables-nft-save usr/sbin/ip6tables-nft-save`)

// runnerApplets are the applets that run other programs.
var runnerApplets = strings.Fields(`
	chroot cttyhack env find flock getty ionice linux32 linux64 nice nohup nsenter run-parts script
	setpriv setsid start-stop-daemon stdbuf su svc taskset time timeout unshare watch watchdog xargs`)

// userlandLinks are links that Debian makes at installation, and the interpreters' usual names.
var userlandLinks = map[string]string{
	"lib64":              "usr/lib64",
	"lib":                "usr/lib",
	"bin/sh":             "/usr/bin/dash",
	"usr/bin/env":        "/bin/env",
	"var/run":            "/run",
	"var/lock":           "/run/lock",
	"usr/sbin/iptables":  "iptables-nft",
	"usr/sbin/ip6tables": "ip6tables-nft",
	"etc/mtab":           "/proc/mounts",
	"bin/ip":             "/usr/bin/ip", // in place of the applets
	"bin/tc":             "/usr/sbin/tc",
	"sbin/modprobe":      "/bin/modprobe", // where the kernel calls it
}

// userlandTexts are the few configuration files that programs look for.
var userlandTexts = map[string]string{
	"etc/passwd":                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
	"etc/group":                 "root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n",
	"etc/hosts":                 "127.0.0.1 localhost guest\n::1 localhost\n",
	"etc/nsswitch.conf":         "hosts: files\n",
	"etc/modprobe.d/guest.conf": moduleOptions,
}

// userland returns a folder with base.cpio.
func (c *Cache) userland(ctx context.Context) (string, error) {
	set := packageSet{
		name:     "userland",
		suite:    userlandSuite,
		packages: userlandPackages,
		apart:    []string{busyboxStatic},
	}
	debs, err := c.packages(ctx, set)
	if err != nil {
		return "", err
	}
	recipe := fmt.Sprint("3", userlandPrograms, userlandFiles, userlandLinks, userlandTexts, runnerApplets)
	return c.image("userland", debs, recipe, func(tmp string) error {
		root, err := set.unpack(ctx, debs, tmp)
		defer os.RemoveAll(root)
		if err != nil {
			return err
		}
		return writeArchive(filepath.Join(tmp, "base.cpio"), func(w *cpioWriter) error {
			return packUserland(w, root)
		})
	})
}

// packUserland writes the guests' root file system out of the packages unpacked in root.
func packUserland(w *cpioWriter, root string) error {
	for _, dir := range strings.Fields("bin sbin dev proc sys run tmp root out var/lib var/log usr/local/bin usr/local/sbin") {
		if err := w.dir(dir); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(userlandLinks) {
		if err := w.symlink(name, userlandLinks[name]); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(userlandTexts) {
		text := userlandTexts[name]
		if err := w.file(name, 0o644, int64(len(text)), strings.NewReader(text)); err != nil {
			return err
		}
	}
	for _, name := range runnerApplets {
		if err := w.symlink("bin/"+name, "/usr/bin/busybox"); err != nil {
			return err
		}
	}
	fsys := os.DirFS(root)
	// Its name must be busybox, or begin so: it goes by what it is called.
	if err := w.copyFrom(fsys, "apart/"+busyboxStatic+"/usr/bin/busybox", "sbin/busybox"); err != nil {
		return err
	}
	files := newFileSet(fsys)
	if err := files.add(slices.Concat(userlandPrograms, userlandFiles)...); err != nil {
		return err
	}
	for _, name := range files.names() {
		if err := w.copyFrom(fsys, name, name); err != nil {
			return err
		}
	}
	return nil
}
