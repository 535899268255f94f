package vm

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// File type bits of a cpio mode: POSIX <cpio.h>, the same as st_mode.
const (
	cpioDir     = 0o040000
	cpioFile    = 0o100000
	cpioSymlink = 0o120000
)

// cpioWriter writes an archive in the "newc" format, the one the kernel unpacks
// as initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
// Archives are 4-byte aligned, so that several can simply follow one another:
// a later entry replaces an earlier one of the same name.
// Entries belong to root and carry no time, so that equal input gives equal output.
type cpioWriter struct {
	w    io.Writer
	ino  uint32
	dirs map[string]bool // directories that are in the archive already
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: map[string]bool{"": true}}
}

// file writes size bytes of r as a regular file. Directories above it are added
// where they are missing. name is taken as absolute, with or without a leading slash.
func (c *cpioWriter) file(name string, perm fs.FileMode, size int64, r io.Reader) error {
	return c.entry(name, cpioFile|uint32(perm.Perm()), size, r)
}

// symlink writes a symbolic link called name that points to target.
func (c *cpioWriter) symlink(name, target string) error {
	return c.entry(name, cpioSymlink|0o777, int64(len(target)), strings.NewReader(target))
}

// dir writes a directory and those above it.
func (c *cpioWriter) dir(name string) error {
	name = cpioName(name)
	if c.dirs[name] {
		return nil
	}
	c.dirs[name] = true
	return c.entry(name, cpioDir|0o755, 0, nil)
}

// close ends the archive. It does not close the underlying writer.
func (c *cpioWriter) close() error {
	c.ino = 0
	return c.header("TRAILER!!!", 0, 0)
}

func (c *cpioWriter) entry(name string, mode uint32, size int64, r io.Reader) error {
	name = cpioName(name)
	if parent := cpioName(path.Dir(name)); !c.dirs[parent] {
		if err := c.dir(parent); err != nil {
			return err
		}
	}
	// The size field has eight hexadecimal digits, and the kernel ends at 2 GiB - 1.
	if size >= 1<<31 {
		return fmt.Errorf("cpio %s: %d bytes exceed the format", name, size)
	}
	c.ino++
	if err := c.header(name, mode, size); err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	n, err := io.Copy(c.w, io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("cpio %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("cpio %s: %d of %d bytes: %w", name, n, size, io.ErrUnexpectedEOF)
	}
	return c.pad(size)
}

// header writes the 110 bytes of the header and the name, padded to four bytes.
func (c *cpioWriter) header(name string, mode uint32, size int64) error {
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
	// rdevmajor, rdevminor, namesize (with the final NUL), check.
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if _, err := io.WriteString(c.w, h); err != nil {
		return fmt.Errorf("cpio %s: %w", name, err)
	}
	return c.pad(int64(len(h)))
}

func (c *cpioWriter) pad(n int64) error {
	_, err := c.w.Write(make([]byte, -n&3))
	return err
}

// cpioName makes the name that the archive has for an absolute or relative path.
func cpioName(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// tree writes everything below the root of fsys for which keep says so, sorted by name.
func (c *cpioWriter) tree(fsys fs.FS, prefix string, keep func(name string) bool) error {
	var names []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && keep(name) {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cpio: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := c.copyFrom(fsys, name, path.Join(prefix, name)); err != nil {
			return err
		}
	}
	return nil
}

// copyFrom writes the file or link called src in fsys under the name dst.
func (c *cpioWriter) copyFrom(fsys fs.FS, src, dst string) error {
	info, err := fs.Lstat(fsys, src)
	if err != nil {
		return fmt.Errorf("cpio %s: %w", dst, err)
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return c.dir(dst)
	case fs.ModeSymlink:
		target, err := fs.ReadLink(fsys, src)
		if err != nil {
			return fmt.Errorf("cpio %s: %w", dst, err)
		}
		return c.symlink(dst, target)
	case 0:
		f, err := fsys.Open(src)
		if err != nil {
			return fmt.Errorf("cpio %s: %w", dst, err)
		}
		defer f.Close()
		return c.file(dst, info.Mode(), info.Size(), f)
	default:
		return fmt.Errorf("cpio %s: a %v cannot be packed", dst, info.Mode().Type())
	}
}
