package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// suites are the Debian releases that the kernels come from, by the name used here.
var suites = map[string]string{
	"6.1":  "bookworm",
	"6.12": "trixie",
	"sid":  "sid",
}

// Names are the kernels there are, oldest first. "sid" is the newest that Debian has.
var Names = []string{"6.1", "6.12", "sid"}

// Kernel is a kernel with a user space, ready to be booted any number of times,
// also at the same time.
type Kernel struct {
	Name    string // one of Names
	Release string // as uname -r prints it: 6.1.0-50-cloud-amd64
	Version string // that of the stable release it was built from: 6.1.176

	qemu    []string // program and first arguments
	image   string   // vmlinuz
	initrds []string
}

// Prepare is Cache.Prepare with the default cache and its progress on standard error.
func Prepare(ctx context.Context, name string) (*Kernel, error) {
	return (&Cache{Log: os.Stderr}).Prepare(ctx, name)
}

// Prepare provides the named kernel, one of Names: from the cache, or from the
// machine's Debian mirror. It also sees to the programs that the host needs for that.
func (c *Cache) Prepare(ctx context.Context, name string) (*Kernel, error) {
	suite, ok := suites[name]
	if !ok {
		return nil, fmt.Errorf("kernel %q: not one of %s", name, strings.Join(Names, ", "))
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.provideTools(ctx); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	base, err := c.userland(ctx)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	qemu, err := c.emulator(ctx)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	dir, err := c.kernel(ctx, name, suite)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	release, version, _ := strings.Cut(string(text), " ")
	return &Kernel{
		Name:    name,
		Release: release,
		Version: version,
		qemu:    qemu,
		image:   filepath.Join(dir, "vmlinuz"),
		initrds: []string{filepath.Join(base, "base.cpio"), filepath.Join(dir, "modules.cpio")},
	}, nil
}

// kernelPackages are those of the kernel itself: one package in older releases, the
// kernel (binary) and its modules apart in newer ones.
var kernelPackages = regexp.MustCompile(`^linux-(image|binary|modules)-[0-9]`)

// kernel returns a folder with vmlinuz, modules.cpio and release.
func (c *Cache) kernel(ctx context.Context, name, suite string) (string, error) {
	set := packageSet{
		name:     "kernel",
		suite:    suite,
		packages: []string{"linux-image-cloud-amd64"},
		only:     kernelPackages,
	}
	debs, err := c.packages(ctx, set)
	if err != nil {
		return "", err
	}
	recipe := "4\n" + strings.Join(slices.Concat(loadedModules, offeredModules), "\n")
	return c.image("kernel-"+name, debs, recipe, func(tmp string) error {
		root, err := set.unpack(ctx, debs, tmp)
		defer os.RemoveAll(root)
		if err != nil {
			return err
		}
		release, err := buildKernel(ctx, root, tmp)
		if err != nil {
			return err
		}
		version, err := upstreamVersion(debs)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, "release"), []byte(release+" "+version), 0o644)
	})
}

// upstreamVersion takes the kernel's version out of the file names of its packages,
// which are NAME_VERSION-REVISION_ARCHITECTURE.deb.
func upstreamVersion(dir string) (string, error) {
	debs, err := debFiles(dir)
	if err != nil {
		return "", err
	}
	f := strings.Split(filepath.Base(debs[0]), "_")
	if len(f) != 3 {
		return "", fmt.Errorf("%s: want three parts with _ between", debs[0])
	}
	version, _, _ := strings.Cut(f[1], "-")
	return version, nil
}

// buildKernel makes vmlinuz and modules.cpio of the kernel that is unpacked in root.
func buildKernel(ctx context.Context, root, out string) (release string, err error) {
	found, err := findOne(root, "lib/modules/*", "usr/lib/modules/*")
	if err != nil {
		return "", err
	}
	release = filepath.Base(found)
	vmlinuz, err := findOne(root, "boot/vmlinuz-"+release, "usr/lib/modules/"+release+"/vmlinuz")
	if err != nil {
		return "", err
	}
	if err := copyFile(vmlinuz, filepath.Join(out, "vmlinuz")); err != nil {
		return "", err
	}
	// depmod looks below lib/modules and nowhere else.
	lib := filepath.Join(root, "lib", "modules", release)
	if found != lib {
		if err := os.MkdirAll(filepath.Dir(lib), 0o755); err != nil {
			return "", err
		}
		if err := os.Rename(found, lib); err != nil {
			return "", err
		}
	}
	return release, packModules(ctx, root, release, filepath.Join(out, "modules.cpio"))
}

// packModules writes the archive of those modules that guests use, uncompressed, with the
// list of what to load and with what modprobe reads.
func packModules(ctx context.Context, root, release, archive string) error {
	dir := filepath.Join(root, "lib", "modules", release)
	tree, err := depmod(ctx, root, release)
	if err != nil {
		return err
	}
	load := tree.order(loadedModules)
	wanted := tree.order(slices.Concat(loadedModules, offeredModules))
	if err := keepModules(ctx, dir, tree, wanted); err != nil {
		return err
	}
	if _, err := depmod(ctx, root, release); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "load"), []byte(loadList(load)), 0o644); err != nil {
		return err
	}
	return writeArchive(archive, func(w *cpioWriter) error {
		return w.tree(os.DirFS(dir), "usr/lib/modules/"+release, func(name string) bool {
			return strings.HasSuffix(name, ".ko") || strings.HasPrefix(name, "modules.") || name == "load"
		})
	})
}

// loadList is what /init feeds to insmod: paths below lib/modules/RELEASE, decompressed.
func loadList(files []string) string {
	var b strings.Builder
	for _, file := range files {
		b.WriteString(strings.TrimSuffix(file, ".xz") + "\n")
	}
	return b.String()
}

// keepModules decompresses the wanted modules and removes the others.
func keepModules(ctx context.Context, dir string, tree moduleTree, wanted []string) error {
	var compressed []string
	for _, file := range tree.paths {
		file = filepath.FromSlash(file)
		switch {
		case !slices.Contains(wanted, filepath.ToSlash(file)):
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				return err
			}
		case strings.HasSuffix(file, ".xz"):
			compressed = append(compressed, file)
		}
	}
	if len(compressed) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, "xz", append([]string{"--decompress", "--"}, compressed...)...)
	cmd.Dir = dir
	_, err := output(cmd)
	return err
}

// depmod works out which module of the release below root needs which.
func depmod(ctx context.Context, root, release string) (moduleTree, error) {
	program, err := findProgram("depmod")
	if err != nil {
		return moduleTree{}, err
	}
	if _, err := output(exec.CommandContext(ctx, program, "-b", root, release)); err != nil {
		return moduleTree{}, err
	}
	text, err := os.ReadFile(filepath.Join(root, "lib", "modules", release, "modules.dep"))
	if err != nil {
		return moduleTree{}, err
	}
	return parseModulesDep(string(text))
}

// findOne returns the one file below root that matches one of the patterns.
func findOne(root string, patterns ...string) (string, error) {
	var found []string
	for _, p := range patterns {
		m, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			return "", err
		}
		found = append(found, m...)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d matches for %s in the packages, want 1", len(found), strings.Join(patterns, " or "))
	}
	return found[0], nil
}

// writeArchive writes the archive that fill makes to a file.
func writeArchive(name string, fill func(*cpioWriter) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := newCPIOWriter(buf)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.close(); err != nil {
		return err
	}
	return buf.Flush()
}

func copyFile(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
