// Package flowd_test holds the house in order: which folder may import which.
package flowd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the table of the house: what each folder may import of ours. What
// is not in it must not exist. Everything flows one way, from flow upwards.
var mayImport = map[string][]string{
	"flow":        {},
	"policy":      {"flow"},
	"ct":          {"flow"},
	"nft":         {"flow", "policy"},
	"queue":       {"flow", "policy"},
	"engine":      {"flow", "policy"},
	"api":         {"flow"},
	"cmd/flowctl": {"api", "flow", "policy"},
	"cmd/flowd":   {"api", "ct", "engine", "flow", "nft", "policy", "queue"},
	"testenv":     {},
	"systemd":     {},
	".":           {},
}

// testsMayImport is what tests alone may import beside testenv: the real thing
// rather than a stand-in for it.
var testsMayImport = map[string][]string{
	"api":     {"engine"},
	"systemd": {"policy"},
}

// flowImports is all that flow itself may import: no clock, no I/O.
var flowImports = []string{
	"cmp", "errors", "fmt", "hash/maphash", "iter", "net/netip", "slices", "strconv", "strings", "sync",
}

func TestImports(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != "." {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, file, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("read %d files only: the test is not run where it should be", files)
	}
}

func checkImport(t *testing.T, file, name string) {
	t.Helper()
	from := room(path.Dir(filepath.ToSlash(file)))
	allowed, ok := mayImport[from]
	if !ok {
		t.Errorf("%s: no folder %s in the table", file, from)
		return
	}
	test := strings.HasSuffix(file, "_test.go")
	of, ours := strings.CutPrefix(name, "flowd/")
	switch {
	case !ours:
		if from == "flow" && !test && !slices.Contains(flowImports, name) {
			t.Errorf("%s imports %s: flow does no I/O and reads no clock", file, name)
		}
	case room(of) == from:
	case test && (room(of) == "testenv" || slices.Contains(testsMayImport[from], room(of))):
	case !slices.Contains(allowed, room(of)):
		t.Errorf("%s imports %s: %s may import %q of ours alone", file, name, from, allowed)
	}
}

// room is the folder of the table that a package is in.
func room(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	if parts[0] == "cmd" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}
