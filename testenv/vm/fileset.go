package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Where Debian's packages for amd64 have their libraries and what loads them.
const (
	libDir    = "usr/lib/x86_64-linux-gnu"
	libLoader = "usr/lib64/ld-linux-x86-64.so.2"
)

// fileSet picks, out of unpacked packages, programs and data and the libraries that these need.
type fileSet struct {
	fsys  fs.FS
	files map[string]bool
}

func newFileSet(fsys fs.FS) *fileSet {
	return &fileSet{fsys: fsys, files: map[string]bool{}}
}

// names returns all files and links, sorted.
func (s *fileSet) names() []string { return sortedKeys(s.files) }

// add picks the files that match the patterns, each of which must match one at least.
// Folders are passed over.
func (s *fileSet) add(patterns ...string) error {
	for _, pattern := range patterns {
		found, err := fs.Glob(s.fsys, pattern)
		if err != nil {
			return fmt.Errorf("%s: %w", pattern, err)
		}
		if len(found) == 0 {
			return fmt.Errorf("%s: %w in the packages", pattern, fs.ErrNotExist)
		}
		for _, name := range found {
			if err := s.addFile(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// addFile adds a file, where its links lead to, and what it is linked with.
func (s *fileSet) addFile(name string) error {
	if s.files[name] {
		return nil
	}
	info, err := fs.Lstat(s.fsys, name)
	if err != nil || info.IsDir() {
		return err
	}
	s.files[name] = true
	if info.Mode().Type() == fs.ModeSymlink {
		target, err := fs.ReadLink(s.fsys, name)
		if err != nil {
			return err
		}
		return s.addFile(resolveLink(name, target))
	}
	return s.addLibraries(name)
}

// resolveLink returns the path that a link leads to, /lib being /usr/lib.
func resolveLink(name, target string) string {
	if !path.IsAbs(target) {
		target = path.Join("/", path.Dir(name), target)
	}
	target = strings.TrimPrefix(target, "/")
	if strings.HasPrefix(target, "lib/") {
		target = "usr/" + target
	}
	return target
}

// addLibraries adds the libraries that an ELF file names. Other files name none.
func (s *fileSet) addLibraries(name string) error {
	data, err := fs.ReadFile(s.fsys, name)
	if err != nil || !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(needed) > 0 {
		needed = append(needed, path.Base(libLoader))
	}
	for _, lib := range needed {
		file := path.Join(libDir, lib)
		if lib == path.Base(libLoader) {
			file = libLoader
		}
		if err := s.addFile(file); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// copyTo copies the set below dir, links as links.
func (s *fileSet) copyTo(dir string) error {
	for _, name := range s.names() {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		target, err := fs.ReadLink(s.fsys, name)
		if err == nil {
			err = os.Symlink(target, to)
		} else {
			err = s.copyFile(name, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *fileSet) copyFile(name, to string) (err error) {
	data, err := fs.ReadFile(s.fsys, name)
	if err != nil {
		return err
	}
	info, err := fs.Stat(s.fsys, name)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, data, 0o644), os.Chmod(to, info.Mode().Perm()))
}
