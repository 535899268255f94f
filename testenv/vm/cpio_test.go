package vm

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readCPIO lists an archive as "mode name content" and checks its alignment.
func readCPIO(t *testing.T, archive []byte) []string {
	t.Helper()
	var entries []string
	for rest := archive; ; {
		if len(rest) < 110 || string(rest[:6]) != "070701" {
			t.Fatalf("no header at %d", len(archive)-len(rest))
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(rest[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		mode, size, nameLen := field(1), field(6), field(11)
		name := string(rest[110 : 110+nameLen-1])
		rest = rest[(110+nameLen+3)&^3:]
		if name == "TRAILER!!!" {
			if len(archive)%4 != 0 {
				t.Errorf("%d bytes: not aligned", len(archive))
			}
			return entries
		}
		entries = append(entries, fmt.Sprintf("%o %s %s", mode, name, rest[:size]))
		rest = rest[(size+3)&^3:]
	}
}

func TestCPIO(t *testing.T) {
	var buf bytes.Buffer
	w := newCPIOWriter(&buf)
	steps := []error{
		w.file("/usr/bin/x", 0o755, 3, strings.NewReader("abcdef")),
		w.file("usr/y", 0o640, 0, nil),
		w.symlink("bin", "usr/bin"),
		w.dir("/usr"), // is there already
		w.close(),
	}
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	want := []string{
		"40755 usr ", "40755 usr/bin ", "100755 usr/bin/x abc",
		"100640 usr/y ", "120777 bin usr/bin",
	}
	if got := readCPIO(t, buf.Bytes()); !slices.Equal(got, want) {
		t.Errorf("archive\n%q\nwant\n%q", got, want)
	}
}

func TestCPIOShortFile(t *testing.T) {
	w := newCPIOWriter(io.Discard)
	if err := w.file("x", 0o644, 5, strings.NewReader("abc")); err == nil {
		t.Error("a file that shrank: no error")
	}
	if err := w.file("x", 0o644, 1<<31, nil); err == nil {
		t.Error("a file of 2 GiB: no error")
	}
}

func TestCPIOTree(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"b": 0o600, "a/c": 0o755, "a/skip": 0o644} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("text"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("c", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := newCPIOWriter(&buf)
	if err := w.tree(os.DirFS(dir), "/t", func(name string) bool { return name != "a/skip" }); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"40755 t ", "40755 t/a ", "100755 t/a/c text", "120777 t/a/link c", "100600 t/b text"}
	if got := readCPIO(t, buf.Bytes()); !slices.Equal(got, want) {
		t.Errorf("archive\n%q\nwant\n%q", got, want)
	}
}
