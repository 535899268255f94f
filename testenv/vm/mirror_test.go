package vm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

var mirrorTests = []struct {
	name  string
	files map[string]string
	want  string // empty: none
}{
	{
		name: "deb822",
		files: map[string]string{"sources.list.d/debian.sources": `# comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`},
		want: "http://mirror.example/debian",
	},
	{
		name: "one line",
		files: map[string]string{"sources.list": `
deb-src http://src.example/debian trixie main
# deb http://comment.example/debian trixie main
deb [arch=amd64 signed-by=/k.gpg] https://one.example/debian/ trixie main non-free # local
deb https://one.example/debian-security trixie-security main
`},
		want: "https://one.example/debian/",
	},
	{
		name: "a third party with a Debian suite comes second",
		files: map[string]string{
			"sources.list.d/a.list":    "deb https://vendor.example/repo bookworm main\n",
			"sources.list.d/b.sources": "Types: deb\nURIs:\n https://two.example/debian\nSuites: sid\nComponents: main\n",
		},
		want: "https://two.example/debian",
	},
	{
		name:  "a mirror of another name",
		files: map[string]string{"sources.list": "deb http://proxy.example/cache/deb stable main\n"},
		want:  "http://proxy.example/cache/deb",
	},
	{
		name:  "disabled",
		files: map[string]string{"sources.list.d/x.sources": "Enabled: no\nTypes: deb\nURIs: http://x.example/debian\nSuites: sid\nComponents: main\n"},
	},
	{
		name:  "another distribution",
		files: map[string]string{"sources.list": "deb http://archive.example/ubuntu noble main\n"},
	},
	{name: "nothing"},
}

func TestFindMirror(t *testing.T) {
	for _, tt := range mirrorTests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				writeFile(t, filepath.Join(dir, name), text)
			}
			got, err := findMirror(dir)
			if got != tt.want {
				t.Errorf("mirror %q, want %q", got, tt.want)
			}
			if missing := tt.want == ""; errors.Is(err, errNoMirror) != missing {
				t.Errorf("error %v", err)
			}
		})
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
