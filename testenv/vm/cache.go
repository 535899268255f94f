package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cache is where kernels and user space are kept between runs. Its zero value is ready
// to use. Several processes may share a folder: one at a time prepares, the others wait.
type Cache struct {
	// Dir is the folder; if empty, $FLOWD_CACHE, else $XDG_CACHE_HOME/flowd, else ~/.cache/flowd.
	Dir string
	// Refresh asks for newer packages even where the cache has some.
	Refresh bool
	// Log is told, in lines, what takes long. It may be nil.
	Log io.Writer

	refreshed map[string]bool // what this Cache has fetched anew already
}

// temporary begins the names of folders in the cache that are not complete.
const temporary = ".tmp-"

// packages returns the folder that holds the .deb files of one set, fetching them on first use.
// A folder with the set's name is complete: it appears by a rename.
func (c *Cache) packages(ctx context.Context, set packageSet) (string, error) {
	dir := filepath.Join(c.Dir, "packages", set.key())
	if _, err := os.Stat(dir); err == nil && (!c.Refresh || c.refreshed[dir]) {
		return dir, nil
	}
	c.logf("fetching %s from Debian %s", set.name, set.suite)
	err := c.create(dir, func(tmp string) error {
		state, err := os.MkdirTemp(filepath.Dir(tmp), temporary)
		if err != nil {
			return err
		}
		defer os.RemoveAll(state)
		return set.fetch(ctx, state, tmp)
	})
	if err != nil {
		return "", fmt.Errorf("fetch %s from Debian %s: %w", set.name, set.suite, err)
	}
	if c.refreshed == nil {
		c.refreshed = map[string]bool{}
	}
	c.refreshed[dir] = true
	return dir, nil
}

// image returns the folder called name that build makes from the packages in dir.
// It is made again when the packages or the recipe have changed.
func (c *Cache) image(name, dir, recipe string, build func(tmp string) error) (string, error) {
	debs, err := debFiles(dir)
	if err != nil {
		return "", err
	}
	for i := range debs {
		debs[i] = filepath.Base(debs[i])
	}
	out := filepath.Join(c.Dir, "images", name+"-"+digest(recipe+"\n"+strings.Join(debs, "\n")))
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	c.logf("building the image %s", filepath.Base(out))
	if err := c.create(out, build); err != nil {
		return "", fmt.Errorf("image %s: %w", name, err)
	}
	return out, c.removeStale(name, out)
}

// removeStale removes older images of the same name when newer packages were asked for.
// Otherwise they stay: another process may be about to boot one.
func (c *Cache) removeStale(name, current string) error {
	if !c.Refresh {
		return nil
	}
	all, err := filepath.Glob(filepath.Join(c.Dir, "images", name+"-*"))
	if err != nil {
		return err
	}
	for _, dir := range all {
		if dir != current {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// create lets fill work in a temporary folder and gives that its name only when it is complete.
func (c *Cache) create(dir string, fill func(tmp string) error) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), temporary)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// lock waits until no other process prepares in the cache, and removes what an
// interrupted one has left. It returns the function that unlocks.
func (c *Cache) lock(ctx context.Context) (func(), error) {
	if err := c.locate(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waiting := false; ; waiting = true {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if !waiting {
			c.logf("waiting for another process to finish with %s", c.Dir)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
	for _, sub := range []string{"packages", "images"} {
		left, _ := filepath.Glob(filepath.Join(c.Dir, sub, temporary+"*")) // the pattern is well-formed
		for _, dir := range left {
			os.RemoveAll(dir)
		}
	}
	return func() { f.Close() }, nil
}

func (c *Cache) locate() error {
	if c.Dir == "" {
		c.Dir = os.Getenv("FLOWD_CACHE")
	}
	if c.Dir == "" {
		user, err := os.UserCacheDir() // $XDG_CACHE_HOME or ~/.cache
		if err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		c.Dir = filepath.Join(user, "flowd")
	}
	return os.MkdirAll(c.Dir, 0o755)
}

func (c *Cache) logf(format string, args ...any) {
	if c.Log != nil {
		fmt.Fprintf(c.Log, "vm: "+format+"\n", args...)
	}
}

// digest shortens text to a key: 48 bits, enough to tell a few recipes apart.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}
