package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"flowd/testenv/vm"
)

const (
	// bootTimeout is generous: an emulated boot takes 4 s on an idle machine, 12 with -warp.
	bootTimeout = 3 * time.Minute
	// grace is what a test binary gets beyond its own timeout, to print its goroutines.
	grace = 30 * time.Second
)

// kernelRun is what became of all suites on one kernel.
type kernelRun struct {
	kernel  string // name
	version string
	reports []*report
	failed  bool
	err     error // why there was no guest, or not to the end
	result  vm.Result
	out     string // folder with what the guest left in /out
}

// boot runs the suites on all kernels, at most cfg.jobs at a time, and prints as it goes.
func (b *build) boot(ctx context.Context) []*kernelRun {
	cache := &vm.Cache{Log: os.Stderr, Refresh: b.cfg.refresh}
	runs := make([]*kernelRun, len(b.cfg.kernels))
	slots := make(chan struct{}, b.cfg.jobs)
	var wg sync.WaitGroup
	var printing sync.Mutex
	for i, name := range b.cfg.kernels {
		r := &kernelRun{kernel: name, out: filepath.Join(b.dir, "out", name)}
		runs[i] = r
		k, err := cache.Prepare(ctx, name)
		if err != nil {
			r.err, r.failed = err, true
			printing.Lock()
			fmt.Printf("# kernel %s\n%v\nFAIL\t%s\n", name, err, name)
			printing.Unlock()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var w io.Writer = os.Stdout
			var held bytes.Buffer
			if b.cfg.jobs > 1 {
				w = &held
			}
			b.bootOne(ctx, w, k, r)
			printing.Lock()
			defer printing.Unlock()
			_, _ = held.WriteTo(os.Stdout)
		})
	}
	wg.Wait()
	return runs
}

// bootOne boots k, runs all suites and fills r.
func (b *build) bootOne(ctx context.Context, w io.Writer, k *vm.Kernel, r *kernelRun) {
	r.version = k.Version
	if b.cfg.warp {
		r.version += " warp"
	}
	fmt.Fprintf(w, "# kernel %s: %s\n", k.Name, k.Release)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(bootTimeout, func() { cancel(fmt.Errorf("no test started within %v", bootTimeout)) })
	defer func() { watchdog.Stop() }()

	s := &session{w: w, suites: b.suites, verbose: b.cfg.verbose, version: r.version}
	s.started = func(path string) {
		watchdog.Stop()
		limit := b.cfg.timeout + grace
		watchdog = time.AfterFunc(limit, func() { cancel(fmt.Errorf("%s: no end within %v", path, limit)) })
	}
	r.err = os.MkdirAll(r.out, 0o755)
	if r.err == nil {
		r.result, r.err = k.Run(ctx, vm.Job{
			Script: b.script(), Files: b.files, Out: r.out, Stdout: s,
			Env: map[string]string{"FLOWD_VM": "1", "FLOWD_KERNEL": k.Name, "GOCOVERDIR": "/out/programs"},
			// The watchdog is stricter than this. Both go by the host's clock.
			Warp: b.cfg.warp, Memory: b.memory(), Timeout: bootTimeout + time.Duration(len(b.suites)+1)*(b.cfg.timeout+grace),
		})
	}
	r.reports = s.finish(r.err)
	for _, rep := range r.reports {
		r.failed = r.failed || rep.failed
	}
	if r.err != nil {
		r.failed = true
		fmt.Fprintf(w, "%v\n", r.err)
	}
	printConsole(w, r, b.cfg.verbose)
}

// script is the guest's: it runs the suites and marks where each begins and ends.
func (b *build) script() string {
	var s strings.Builder
	s.WriteString("mkdir -p /out/programs\n")
	for i, suite := range b.suites {
		fmt.Fprintf(&s, "printf '%cbegin %d\\n'\n", mark, i)
		fmt.Fprintf(&s, "cd %s && ./package.test %s -test.coverprofile=/out/%d.cover\n", vm.Quote(b.guestDir(suite)), b.flags(suite), i)
		fmt.Fprintf(&s, "printf '%cend %d %%d\\n' $?\n", mark, i)
	}
	return s.String()
}

// memory has room for the kernel, the tests, and what the guest gets: once as
// archive and once unpacked.
func (b *build) memory() int {
	if b.cfg.memory > 0 {
		return b.cfg.memory
	}
	var size int64
	for _, host := range b.files {
		if info, err := os.Stat(host); err == nil {
			size += info.Size()
		}
	}
	return 1024 + max(0, int(size>>20)-100)*2
}

// splat begins a kernel's report of something that must not happen.
var splat = regexp.MustCompile(`WARNING:|BUG:|Oops|Call Trace|Kernel panic|Out of memory|general protection|UBSAN|hung task|rcu.*stall|^init: `)

// printConsole prints the kernel's messages: all of them if the guest did not come to its
// end or -v is given, otherwise only lines that a kernel developer would want to know of.
func printConsole(w io.Writer, r *kernelRun, verbose bool) {
	var guest *vm.GuestError
	all := verbose || errors.As(r.err, &guest)
	console := r.result.Console
	if guest != nil {
		console = guest.Console
	}
	for line := range strings.Lines(console) {
		if all || splat.MatchString(line) {
			fmt.Fprintf(w, "console [%s]: %s", r.version, line)
		}
	}
}
