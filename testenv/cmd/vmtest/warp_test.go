package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWarpTests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a_test.go": "package a\nfunc TestPlain(t *testing.T) {}\n",
		"b_test.go": "//go:build kernel && warp\n\npackage a\n\nfunc Test(t *testing.T) {}\nfunc TestB(t *testing.T) {}\n" +
			"func TestMain(m *testing.M) {}\nfunc Testing() {}\nfunc (x) TestMethod(t *testing.T) {}\nfunc helper() {}\nvar TestVar int\n",
		"x_test.go": "//go:build warp\n\npackage a_test\n\nfunc TestX(t *testing.T) {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	without := testFiles{Dir: dir, TestGoFiles: []string{"a_test.go"}}
	with := testFiles{Dir: dir, TestGoFiles: []string{"a_test.go", "b_test.go"}, XTestGoFiles: []string{"x_test.go"}}
	names, err := warpTests(with, without)
	if want := []string{"Test", "TestB", "TestX"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("tests %q, %v; want %q", names, err, want)
	}
	if names, err := warpTests(without, without); err != nil || len(names) != 0 {
		t.Errorf("without a file of its own: %q, %v", names, err)
	}
	with.Dir += "/none"
	if _, err := warpTests(with, without); err == nil {
		t.Error("files that are not there: no error")
	}
}

func TestChooseTests(t *testing.T) {
	names := []string{"TestA", "TestB", "TestAB"}
	for _, test := range []struct{ run, want string }{
		{"", "^(TestA|TestB|TestAB)$"},
		{"A", "^(TestA|TestAB)$"},
		{"B$/v4", "^(TestB|TestAB)$/v4"},
		{"C", ""},
	} {
		if got, err := chooseTests(names, test.run); err != nil || got != test.want {
			t.Errorf("-run %q: %q, %v; want %q", test.run, got, err, test.want)
		}
	}
	if _, err := chooseTests(names, "("); err == nil {
		t.Error("a pattern that is none: no error")
	}
}

func TestWarpFlags(t *testing.T) {
	cfg, err := parse([]string{"-warp", "-timeout", "1m", "./nft"})
	if err != nil {
		t.Fatal(err)
	}
	b := &build{cfg: cfg}
	if got := b.tags(); got != "kernel,warp" {
		t.Errorf("tags %q", got)
	}
	if got := b.flags(suite{run: "^(TestA)$"}); !strings.Contains(got, " -test.timeout=24m0s -test.run='^(TestA)$'") {
		t.Errorf("flags %q", got)
	}
	b.cfg = config{tags: "x", timeout: time.Second}
	if got := b.tags(); got != "x" {
		t.Errorf("tags %q without -warp", got)
	}
}
