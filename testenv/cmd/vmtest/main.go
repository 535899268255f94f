// Command vmtest runs the tests of packages on several kernels, each in a guest of its own.
//
//	go run ./testenv/cmd/vmtest [-kernels 6.1,6.12,sid] [-warp] [-run REGEXP] [-v] [-coverprofile FILE] PACKAGE...
//
// Every package that has tests with the build tags of -tags is built into a static test
// binary; every kernel is booted once and runs all of them, one after another, each in a
// folder that has a copy of the package's testdata. The programs of -bin and the script
// testenv/lab are in the guest's /usr/local/bin. A test sees FLOWD_VM=1 and the name of the
// kernel in FLOWD_KERNEL.
//
// With -warp the guests' time jumps where they would wait (vm.Job.Warp), and just those tests are
// run that are in files with the build tag warp, which is set beside -tags. They may wait for
// minutes, and are not built without -warp. The other flags mean the same; -timeout is the host's time.
//
// It prints what go test would, with the kernel's version at the end of a package's line,
// and exits with 1 if anything failed. A guest that does not start, hangs or panics is a
// failure of the packages that it had still to run. Tests that were skipped are listed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"flowd/testenv/vm"
)

// config is the command line.
type config struct {
	kernels      []string
	packages     []string
	bins         []string // nil: defaultBins, as far as they exist
	tags         string
	run          string
	warp         bool // run the tests with the tag warp, and only those
	verbose      bool
	coverprofile string
	coverpkg     string
	jobs         int
	timeout      time.Duration // of a package
	memory       int           // MiB; 0: by the size of what the guest gets
	testFlags    []string
	refresh      bool
}

// errFailed stands for failures that have been printed already.
var errFailed = errors.New("FAIL")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cfg, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, cfg)
	}
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.Is(err, errFailed):
		fmt.Println("FAIL")
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	kernels := fs.String("kernels", strings.Join(vm.Names, ","), "`names` of the kernels")
	bins := fs.String("bin", "", "main `packages` for the guest's /usr/local/bin (default "+strings.Join(defaultBins, ",")+")")
	flags := fs.String("testflags", "", "more `flags` of the test binaries, such as \"-test.short -test.count=3\"")
	fs.StringVar(&cfg.tags, "tags", "kernel", "build tags")
	fs.StringVar(&cfg.run, "run", "", "run only the tests that match `regexp`")
	fs.BoolVar(&cfg.warp, "warp", false, "run the tests of files with the tag warp, and no others, where time jumps")
	fs.BoolVar(&cfg.verbose, "v", false, "print all tests, as they run")
	fs.StringVar(&cfg.coverprofile, "coverprofile", "", "write the coverage of all kernels together to `file`")
	fs.StringVar(&cfg.coverpkg, "coverpkg", "", "measure the coverage of these packages, as go test does")
	fs.IntVar(&cfg.jobs, "j", 1, "guests at the same time; with more than one a kernel's output comes at its end")
	fs.DurationVar(&cfg.timeout, "timeout", 5*time.Minute, "for the tests of one package, by the host's clock")
	fs.IntVar(&cfg.memory, "mem", 0, "memory of a guest in MiB (default 1024, or more for large programs)")
	fs.BoolVar(&cfg.refresh, "refresh", false, "look for newer kernels")
	if err := fs.Parse(args); err != nil {
		return cfg, err
	}
	cfg.packages = fs.Args()
	cfg.testFlags = strings.Fields(*flags)
	cfg.kernels = strings.FieldsFunc(*kernels, func(r rune) bool { return r == ',' })
	cfg.bins = strings.FieldsFunc(*bins, func(r rune) bool { return r == ',' })
	for _, name := range cfg.kernels {
		if !slices.Contains(vm.Names, name) {
			return cfg, fmt.Errorf("kernel %q: not one of %s", name, strings.Join(vm.Names, ", "))
		}
	}
	if len(cfg.kernels) == 0 || cfg.jobs < 1 {
		return cfg, errors.New("want at least one kernel and one guest")
	}
	if len(cfg.packages) == 0 {
		cfg.packages = []string{"."}
	}
	return cfg, nil
}

func run(ctx context.Context, cfg config) error {
	dir, err := os.MkdirTemp("", "flowd-vmtest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := newBuild(ctx, cfg, dir)
	if err != nil {
		return err
	}
	failed := b.all(ctx)
	if len(b.suites) == 0 {
		if failed {
			return errFailed
		}
		return fmt.Errorf("no tests in %s", strings.Join(cfg.packages, " "))
	}
	runs := b.boot(ctx)
	for _, r := range runs {
		failed = failed || r.failed
	}
	printSummary(os.Stdout, runs)
	if cfg.coverprofile != "" {
		if err := writeCoverage(ctx, cfg.coverprofile, runs); err != nil {
			return err
		}
	}
	if failed {
		return errFailed
	}
	return nil
}
