package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packageSet is a set of Debian packages that are fetched together.
type packageSet struct {
	name, suite string
	packages    []string       // with all they depend on
	only        *regexp.Regexp // of those and what they depend on, fetch what matches; nil for all
	apart       []string       // packages that conflict with the others: fetched alone, unpacked below apart/NAME
}

// key names the set's folder in the cache.
func (s packageSet) key() string {
	if s.only != nil {
		return s.name + "-" + s.suite
	}
	return s.name + "-" + s.suite + "-" + digest(fmt.Sprint(s.packages, s.apart))
}

// fetch downloads the newest version of the set into dir; state is an empty folder for apt.
func (s packageSet) fetch(ctx context.Context, state, dir string) error {
	a, err := newAPT(ctx, state, s.suite)
	if err != nil {
		return err
	}
	all, err := a.resolve(ctx, s.packages...)
	if err != nil {
		return err
	}
	var wanted []string
	for _, name := range all {
		if s.only == nil || s.only.MatchString(name) {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return fmt.Errorf("none of %v matches %v", all, s.only)
	}
	return a.download(ctx, dir, append(wanted, s.apart...))
}

func debFiles(dir string) ([]string, error) {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err == nil && len(debs) == 0 {
		err = fmt.Errorf("%s: no packages", dir)
	}
	return debs, err
}

// unpack extracts the set's packages from dir into a new folder beside tmp, which
// the caller removes, also after an error.
func (s packageSet) unpack(ctx context.Context, dir, tmp string) (root string, err error) {
	debs, err := debFiles(dir)
	if err != nil {
		return "", err
	}
	root, err = os.MkdirTemp(filepath.Dir(tmp), temporary)
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		into := root
		if name, _, _ := strings.Cut(filepath.Base(deb), "_"); slices.Contains(s.apart, name) {
			into = filepath.Join(root, "apart", name)
		}
		if err := os.MkdirAll(into, 0o755); err != nil {
			return root, err
		}
		if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "-x", deb, into)); err != nil {
			return root, err
		}
	}
	return root, nil
}
