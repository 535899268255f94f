package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// consoleLimit bounds what is kept of the kernel's messages: enough for several traces.
const consoleLimit = 256 << 10

// guest is one run of QEMU.
type guest struct {
	kernel       *Kernel
	job          Job
	initrd, disk string

	start   time.Time
	console tail
	script  tail

	mu       sync.Mutex // guards what follows: written by the reader of ttyS2
	stage    string
	booted   time.Duration
	exit     int
	exited   bool
	ended    bool
	troubles []string // what /init could not do
}

// kernelArguments make any oops end the guest, and show warnings on the console.
// no_timer_check: at boot the kernel counts timer interrupts for a moment and panics if there are
// too few, as happens to an emulated processor that the host lets wait.
const kernelArguments = "console=ttyS0 loglevel=5 panic=-1 oops=panic no_timer_check"

// args is QEMU's command line. The serial ports are the pipes 3, 4 and 5: see init.sh.
func (g *guest) args() []string {
	return slices.Concat(g.kernel.qemu[1:], accelerator(g.job.Warp), []string{
		"-smp", strconv.Itoa(g.job.CPUs), "-m", strconv.Itoa(g.job.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "file:/dev/fd/3", "-serial", "file:/dev/fd/4", "-serial", "file:/dev/fd/5",
		"-drive", "file=" + g.disk + ",if=virtio,format=raw,cache=unsafe",
		"-kernel", g.kernel.image, "-initrd", g.initrd,
		"-append", kernelArguments + " " + g.job.Append,
	})
}

// boot runs QEMU until it ends.
func (g *guest) boot(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.job.Timeout,
		fmt.Errorf("no end within %v: %w", g.job.Timeout, context.DeadlineExceeded))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g.stage, g.console.limit, g.script.limit = "power on", consoleLimit, 4<<10

	cmd := exec.CommandContext(ctx, g.kernel.qemu[0], g.args()...)
	complaint := &tail{limit: 4 << 10}
	cmd.Stderr = complaint
	wait, err := g.connect(cmd, stop)
	if err != nil {
		return Result{}, fmt.Errorf("guest %s: %w", g.kernel.Release, err)
	}
	// QEMU shall not outlive us, and "us" is the thread that starts it (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	g.start = time.Now()
	err = cmd.Start()
	wait()
	if err == nil {
		err = cmd.Wait()
	}
	if cause := context.Cause(ctx); cause != nil {
		return g.result("stopped", cause, complaint.String())
	}
	return g.result("ended without its last word", err, complaint.String())
}

// connect gives cmd the pipes for the serial ports and starts their readers. The
// function it returns is to be called once cmd has started or not: it waits for the readers.
// If one fails, such as for want of somebody who takes the job's output, the guest is stopped.
func (g *guest) connect(cmd *exec.Cmd, stop context.CancelCauseFunc) (wait func(), err error) {
	readers := []func(io.Reader) error{
		func(r io.Reader) error { _, err := io.Copy(&g.console, r); return err },
		func(r io.Reader) error { _, err := io.Copy(io.MultiWriter(&g.script, g.job.Stdout), r); return err },
		g.readStages,
	}
	var ours, theirs []*os.File
	for range readers {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours, theirs)
			return nil, err
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	cmd.ExtraFiles = theirs
	return func() {
		closeAll(theirs)
		var wg sync.WaitGroup
		for i, read := range readers {
			wg.Go(func() {
				if err := read(ours[i]); err != nil {
					stop(fmt.Errorf("output: %w", err))
				}
			})
		}
		wg.Wait()
		closeAll(ours)
	}, nil
}

// readStages follows what /init reports on ttyS2.
func (g *guest) readStages(r io.Reader) error {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		word, arg, _ := strings.Cut(strings.TrimSpace(sc.Text()), " ")
		g.mu.Lock()
		switch word {
		case "module", "unpacked": // trouble, not a stage
			g.troubles = append(g.troubles, sc.Text())
			g.mu.Unlock()
			continue
		case "run":
			g.booted = time.Since(g.start)
		case "exit":
			n, err := strconv.Atoi(arg)
			g.exit, g.exited = n, err == nil
		case "end":
			g.ended = true
		}
		g.stage = word
		g.mu.Unlock()
	}
	return sc.Err()
}

// result judges a run from what was seen of it. Only a guest that has said its last word
// has succeeded. Otherwise reason is why not, unless the kernel itself tells.
func (g *guest) result(reason string, err error, complaint string) (Result, error) {
	res := Result{ExitCode: g.exit, Boot: g.booted, Total: time.Since(g.start), Console: g.console.String()}
	for _, t := range g.troubles {
		res.Console += "init: " + t + "\n"
	}
	if err == nil && g.ended && g.exited {
		return res, nil
	}
	failure := &GuestError{
		Kernel: g.kernel.Release, Stage: g.stage, Console: res.Console, Err: err,
		Reason: reason, Last: lastLine(g.script.String()),
	}
	if panicked := regexp.MustCompile(`Kernel panic - [^\r\n]*`).FindString(res.Console); panicked != "" {
		failure.Reason = panicked
	}
	if complaint = strings.TrimSpace(complaint); complaint != "" {
		failure.Err = errors.Join(err, errors.New(complaint))
	}
	return res, failure
}

func closeAll(lists ...[]*os.File) {
	for _, files := range lists {
		for _, f := range files {
			f.Close()
		}
	}
}

// tail keeps the last limit bytes written to it. One goroutine writes; it is read when that has ended.
type tail struct {
	limit int
	buf   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.limit {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.limit:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	b := t.buf[max(0, len(t.buf)-t.limit):]
	return string(bytes.ReplaceAll(b, []byte("\r"), nil))
}

// lastLine is the last line that is not empty, without control characters around it.
func lastLine(s string) string {
	blank := func(r rune) bool { return r <= ' ' }
	s = strings.TrimFunc(s, blank)
	return strings.TrimFunc(s[strings.LastIndexByte(s, '\n')+1:], blank)
}
