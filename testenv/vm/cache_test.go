package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCacheImage(t *testing.T) {
	c := &Cache{Dir: t.TempDir()}
	debs := t.TempDir()
	writeFile(t, filepath.Join(debs, "x_1_amd64.deb"), "")
	builds := 0
	build := func(tmp string) error {
		builds++
		return os.WriteFile(filepath.Join(tmp, "image"), nil, 0o644)
	}
	image := func(recipe string) string {
		t.Helper()
		dir, err := c.image("name", debs, recipe, build)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "image")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	first := image("a")
	if image("a") != first || builds != 1 {
		t.Errorf("the same again: %d builds, want 1", builds)
	}
	if image("b") == first || builds != 2 {
		t.Errorf("another recipe: %d builds, want 2", builds)
	}
	writeFile(t, filepath.Join(debs, "x_2_amd64.deb"), "")
	c.Refresh = true
	if image("a") == first || builds != 3 {
		t.Errorf("newer packages: %d builds, want 3", builds)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "images", "*")); len(left) != 1 {
		t.Errorf("after a refresh: %q, want one image", left)
	}
}

// An interrupted build leaves nothing that a later run would take for an image.
func TestCacheCreateFails(t *testing.T) {
	c := &Cache{Dir: t.TempDir()}
	broken := errors.New("broken")
	dir := filepath.Join(c.Dir, "images", "x")
	err := c.create(dir, func(tmp string) error {
		writeFile(t, filepath.Join(tmp, "half"), "")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCacheLock(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "images", ".tmp-1")
	writeFile(t, filepath.Join(left, "half"), "")
	unlock, err := (&Cache{Dir: dir}).lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an interrupted run left is still there: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := (&Cache{Dir: dir}).lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v, want it to wait", err)
	}
	unlock()
	unlock, err = (&Cache{Dir: dir}).lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestCacheLocate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("FLOWD_CACHE", "")
	var c Cache
	if err := c.locate(); err != nil || c.Dir != filepath.Join(dir, "flowd") {
		t.Errorf("cache in %q (%v), want it in XDG_CACHE_HOME", c.Dir, err)
	}
	t.Setenv("FLOWD_CACHE", dir)
	c = Cache{}
	if err := c.locate(); err != nil || c.Dir != dir {
		t.Errorf("cache in %q (%v), want it in FLOWD_CACHE", c.Dir, err)
	}
}

func TestUpstreamVersion(t *testing.T) {
	dir := t.TempDir()
	if _, err := upstreamVersion(dir); err == nil {
		t.Error("no packages: no error")
	}
	writeFile(t, filepath.Join(dir, "linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb"), "")
	got, err := upstreamVersion(dir)
	if err != nil || got != "6.1.176" {
		t.Errorf("version %q, %v", got, err)
	}
}

func TestUnknownKernel(t *testing.T) {
	if _, err := Prepare(t.Context(), "2.4"); err == nil {
		t.Error("no error")
	}
	for _, name := range Names {
		if suites[name] == "" {
			t.Errorf("kernel %s has no suite", name)
		}
	}
}
