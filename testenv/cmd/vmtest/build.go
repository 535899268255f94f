package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// defaultBins are built for the guests where they exist.
var defaultBins = []string{"./cmd/flowd", "./cmd/flowctl", "./testenv/cmd/traffic"}

// suite is the test binary of one package.
type suite struct {
	path   string // import path
	dir    string // the package's folder
	binary string
	run    string // pattern of the tests to run; empty: all
}

// build makes what the guests get.
type build struct {
	cfg    config
	dir    string // temporary folder
	module struct{ Path, Dir string }
	suites []suite
	files  map[string]string // guest path to host path
}

func newBuild(ctx context.Context, cfg config, dir string) (*build, error) {
	b := &build{cfg: cfg, dir: dir, files: map[string]string{}}
	out, err := goOutput(ctx, "list", "-m", "-json")
	if err != nil {
		return nil, err
	}
	return b, json.Unmarshal(out, &b.module)
}

// all builds everything and prints what cannot be built.
func (b *build) all(ctx context.Context) (failed bool) {
	steps := []func(context.Context) error{b.tests, b.programs, b.lab}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			fmt.Println(err)
			failed = true
		}
	}
	return failed
}

// tests builds the test binaries of the packages that have tests to run.
func (b *build) tests(ctx context.Context) error {
	packages, err := b.list(ctx, b.tags())
	if err != nil {
		return err
	}
	plain := make(map[string]testFiles)
	if b.cfg.warp {
		list, err := b.list(ctx, b.cfg.tags)
		if err != nil {
			return err
		}
		for _, p := range list {
			plain[p.ImportPath] = p
		}
	}
	var errs []error
	for _, p := range packages {
		s := suite{path: p.ImportPath, dir: p.Dir, binary: filepath.Join(b.dir, strconv.Itoa(len(b.suites))+".test"), run: b.cfg.run}
		if b.cfg.warp {
			names, err := warpTests(p, plain[p.ImportPath])
			if err == nil {
				s.run, err = chooseTests(names, b.cfg.run)
			}
			if err != nil {
				return err
			}
		}
		if len(p.files()) == 0 || b.cfg.warp && s.run == "" {
			continue
		}
		if err := b.test(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%w\nFAIL\t%s [build failed]", err, s.path))
			continue
		}
		b.add(s)
	}
	return errors.Join(errs...)
}

// tags are those of the command line, and warp where that is asked for.
func (b *build) tags() string {
	if !b.cfg.warp {
		return b.cfg.tags
	}
	return strings.TrimPrefix(b.cfg.tags+","+warpTag, ",")
}

// list asks for the packages of the command line, as they are with these build tags.
func (b *build) list(ctx context.Context, tags string) ([]testFiles, error) {
	args := append([]string{"list", "-tags", tags, "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, b.cfg.packages...)
	out, err := goOutput(ctx, args...)
	if err != nil {
		return nil, err
	}
	var packages []testFiles
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p testFiles
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

func (b *build) test(ctx context.Context, s suite) error {
	args := []string{"test", "-c", "-tags", b.tags(), "-cover", "-covermode=atomic", "-ldflags=-s -w", "-o", s.binary}
	if b.cfg.coverpkg != "" {
		args = append(args, "-coverpkg="+b.cfg.coverpkg)
	}
	return goRun(ctx, append(args, s.path)...)
}

// add has the guests get the suite: its binary and, where that is run, its testdata.
func (b *build) add(s suite) {
	b.suites = append(b.suites, s)
	b.files[b.guestDir(s)+"/package.test"] = s.binary
	testdata := filepath.Join(s.dir, "testdata")
	if info, err := os.Stat(testdata); err == nil && info.IsDir() {
		b.files[b.guestDir(s)+"/testdata"] = testdata
	}
}

// guestDir is where the guest runs the suite: it has the package's path, for messages.
func (b *build) guestDir(s suite) string {
	return path.Join("/src", s.path)
}

// programs builds the commands for the guests' /usr/local/bin.
func (b *build) programs(ctx context.Context) error {
	var errs []error
	packages := b.cfg.bins
	if len(packages) == 0 {
		for _, p := range defaultBins {
			found, err := filepath.Glob(filepath.Join(b.module.Dir, p, "*.go"))
			if err != nil || len(found) == 0 {
				fmt.Printf("vmtest: no %s yet: the guests go without\n", p)
				continue
			}
			packages = append(packages, path.Join(b.module.Path, p))
		}
	}
	for _, p := range packages {
		name := path.Base(p)
		out := filepath.Join(b.dir, "bin", name)
		args := []string{"build", "-tags", b.tags(), "-ldflags=-s -w", "-o", out}
		if b.cfg.coverprofile != "" {
			args = append(args, "-cover", "-covermode=atomic", "-coverpkg="+b.module.Path+"/...")
		}
		if err := goRun(ctx, append(args, p)...); err != nil {
			errs = append(errs, fmt.Errorf("%w\nFAIL\t%s [build failed]", err, p))
			continue
		}
		b.files["/usr/local/bin/"+name] = out
	}
	return errors.Join(errs...)
}

// lab adds the script that makes laboratories.
func (b *build) lab(context.Context) error {
	script := filepath.Join(b.module.Dir, "testenv", "lab")
	if info, err := os.Stat(script); err != nil || !info.Mode().IsRegular() {
		fmt.Println("vmtest: no testenv/lab yet: the guests go without")
		return nil
	}
	b.files["/usr/local/bin/lab"] = script
	return nil
}

// goCommand is the go command, building static programs for the guests.
func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	return cmd
}

func goOutput(ctx context.Context, args ...string) ([]byte, error) {
	cmd := goCommand(ctx, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// goRun returns what the command printed as its error.
func goRun(ctx context.Context, args ...string) error {
	out, err := goCommand(ctx, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
}
