package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hostTools are the programs that the host needs and the Debian packages they are in.
var hostTools = []struct{ program, pkg string }{
	{"dpkg-deb", "dpkg"},
	{"apt-get", "apt"},
	{"xz", "xz-utils"},
	{"depmod", "kmod"},
}

// provideTools installs what is missing where that is possible, as root on Debian,
// and otherwise returns an error that says what to install.
func (c *Cache) provideTools(ctx context.Context) error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("programs missing: apt-get %s", strings.Join(install, " "))
	}
	c.logf("installing %s", strings.Join(missing, " "))
	if _, err := output(aptGet(ctx, install...)); err != nil {
		// The lists may be missing or too old.
		if _, err := output(aptGet(ctx, "update")); err != nil {
			return err
		}
		if _, err := output(aptGet(ctx, install...)); err != nil {
			return err
		}
	}
	if missing = missingPackages(); len(missing) > 0 {
		return fmt.Errorf("programs missing after installing: %s", strings.Join(missing, " "))
	}
	return nil
}

func missingPackages() []string {
	var missing []string
	for _, t := range hostTools {
		if _, err := findProgram(t.program); err != nil && !slices.Contains(missing, t.pkg) {
			missing = append(missing, t.pkg)
		}
	}
	return missing
}

// findProgram looks in PATH, and where programs for root are, which users do without.
func findProgram(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return found, nil
		}
	}
	return exec.LookPath(name)
}

func aptGet(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return cmd
}
