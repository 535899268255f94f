package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"flowd/testenv/vm"
)

// warpTag marks files whose tests wait for minutes. With -warp they alone are run, in guests
// whose time jumps where they wait; without it they are not even built.
const warpTag = "warp"

// warpFactor is how much more of its own time a guest that warps gets than of the host's. One that
// has nothing to do was seen to go 35 to 90 times as fast as the host: so it comes to the end of
// its own time before the watchdog does to that of the host's, and a test that hangs prints its
// goroutines.
const warpFactor = 24

// testFiles are what "go list" says of a package.
type testFiles struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

// files are the package's files with tests.
func (p testFiles) files() []string { return slices.Concat(p.TestGoFiles, p.XTestGoFiles) }

// warpTests returns the names of the tests that with has and without has not. They are of the
// same package, listed with the tag warp and without.
func warpTests(with, without testFiles) ([]string, error) {
	var names []string
	for _, file := range with.files() {
		if slices.Contains(without.files(), file) {
			continue
		}
		found, err := declaredTests(filepath.Join(with.Dir, file))
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	return names, nil
}

// declaredTests returns the names of the test functions of a file.
func declaredTests(file string) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && isTest(fn) {
			names = append(names, fn.Name.Name)
		}
	}
	return names, nil
}

// isTest reports whether go test runs a function: "go help testfunc".
func isTest(fn *ast.FuncDecl) bool {
	rest, ok := strings.CutPrefix(fn.Name.Name, "Test")
	return ok && fn.Recv == nil && fn.Name.Name != "TestMain" && !(rest != "" && 'a' <= rest[0] && rest[0] <= 'z')
}

// chooseTests returns the pattern for -test.run that stands for those of the names that the
// -run of the command line, if any, matches. It is empty where there are none.
func chooseTests(names []string, run string) (string, error) {
	top, sub, _ := strings.Cut(run, "/")
	pattern, err := regexp.Compile(top)
	if err != nil {
		return "", fmt.Errorf("-run: %w", err)
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !pattern.MatchString(name) })
	if len(names) == 0 {
		return "", nil
	}
	chosen := "^(" + strings.Join(names, "|") + ")$"
	if sub != "" {
		chosen += "/" + sub
	}
	return chosen, nil
}

// flags are those of the suite's test binary.
func (b *build) flags(s suite) string {
	timeout := b.cfg.timeout // the binary's clock is the guest's
	if b.cfg.warp {
		timeout *= warpFactor
	}
	flags := fmt.Sprintf("-test.v=test2json -test.paniconexit0 -test.timeout=%v", timeout)
	if s.run != "" {
		flags += " -test.run=" + vm.Quote(s.run)
	}
	for _, f := range b.cfg.testFlags {
		flags += " " + vm.Quote(f)
	}
	return flags
}
