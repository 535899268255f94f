package vm

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "plain", "two words", "it's", `$HOME "x" \n`, "line\nline"} {
		out, err := exec.Command("sh", "-c", "printf %s "+Quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("sh made %q of %q (%v)", out, s, err)
		}
	}
}

func TestJobPack(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "tree", "sub", "file"), "in a tree")
	writeFile(t, filepath.Join(dir, "single"), "alone")
	if err := os.Symlink("single", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	job := Job{
		Script: "true",
		Env:    map[string]string{"B": "it's", "A": ""},
		Files: map[string]string{
			"/opt/x":   filepath.Join(dir, "link"),
			"/srv/all": filepath.Join(dir, "tree"),
		},
	}
	var buf bytes.Buffer
	if err := job.pack(newCPIOWriter(&buf)); err != nil {
		t.Fatal(err)
	}
	got := readCPIO(t, buf.Bytes())
	for _, want := range []string{
		"100755 job.sh true",
		"100755 job.env export A=''\nexport B='it'\\''s'\n",
		"100644 opt/x alone",
		"40755 srv/all ",
		"100644 srv/all/sub/file in a tree",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestJobRefused(t *testing.T) {
	host := t.TempDir()
	for name, job := range map[string]Job{
		"relative":   {Files: map[string]string{"x": host}},
		"hidden":     {Files: map[string]string{"/run/x": host}},
		"no file":    {Files: map[string]string{"/x": filepath.Join(host, "none")}},
		"variable":   {Env: map[string]string{"A B": ""}},
		"hidden top": {Files: map[string]string{"/tmp": host}},
	} {
		if err := job.pack(newCPIOWriter(&bytes.Buffer{})); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestJobWarp(t *testing.T) {
	for _, test := range []struct {
		job  Job
		cpus int
		warp bool
	}{
		{Job{}, 2, false},
		{Job{Warp: true}, 1, true},
		{Job{Warp: true, CPUs: 4}, 4, true},
	} {
		job := test.job.withDefaults()
		args := (&guest{kernel: &Kernel{qemu: []string{"qemu"}}, job: job}).args()
		if job.CPUs != test.cpus || slices.Contains(args, "shift=0,sleep=off") != test.warp {
			t.Errorf("%+v: %d processors, arguments %q", test.job, job.CPUs, args)
		}
	}
}

func TestUnpackTar(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "out")
	if err := makeSparse(archive, 4096); err != nil {
		t.Fatal(err)
	}
	if err := unpackTar(archive, dir); err != nil {
		t.Errorf("a disk that was not written to: %v", err)
	}

	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./a/b", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
		{Name: "./l", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("text")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, archive, buf.String())
	into := t.TempDir()
	if err := unpackTar(archive, into); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(into, "a", "b")); err != nil || string(text) != "text" {
		t.Errorf("a/b: %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(into, "l")); err == nil {
		t.Error("a link was unpacked")
	}
}

func TestUnpackTarOutside(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "../x", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "out"), buf.String())
	into := filepath.Join(dir, "into")
	if err := os.Mkdir(into, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unpackTar(filepath.Join(dir, "out"), into); err == nil {
		t.Error("a file outside: no error")
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, "*")); strings.Contains(strings.Join(entries, " "), "x ") {
		t.Errorf("written outside: %q", entries)
	}
}
