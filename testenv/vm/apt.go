package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// debianKeyring holds the keys that sign Debian's releases (package debian-archive-keyring).
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt is a private state of apt for one suite: its own sources, lists and caches and an
// empty dpkg status, so that it neither sees nor changes what the machine has installed,
// and so that everything a package depends on is fetched with it.
type apt struct {
	dir  string
	opts []string
}

// newAPT makes the state in dir and fetches the suite's package lists.
func newAPT(ctx context.Context, dir, suite string) (*apt, error) {
	mirror, err := findMirror("/etc/apt")
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	list := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", debianKeyring, mirror, suite)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(list), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "status"), nil, 0o644); err != nil {
		return nil, err
	}
	a := &apt{dir: dir, opts: []string{
		"-oDir::Etc::SourceList=" + filepath.Join(dir, "sources.list"),
		"-oDir::Etc::SourceParts=/dev/null",
		"-oDir::Etc::Preferences=/dev/null",
		"-oDir::Etc::PreferencesParts=/dev/null",
		"-oDir::State=" + dir,
		"-oDir::State::Lists=" + filepath.Join(dir, "lists"),
		"-oDir::State::Status=" + filepath.Join(dir, "status"),
		"-oDir::Cache=" + filepath.Join(dir, "cache"),
		"-oAPT::Architecture=amd64",
		"-oAPT::Architectures=amd64",
		"-oAPT::Sandbox::User=root",
		"-oAcquire::Languages=none",
		"-oAcquire::Retries=3",
		"-oAPT::Update::Error-Mode=any", // otherwise a mirror that cannot be reached is but a warning
		"-qq",
	}}
	_, err = a.get(ctx, "update")
	return a, err
}

// instLine is a line of "apt-get --simulate install" that names a package to be installed.
var instLine = regexp.MustCompile(`(?m)^Inst (\S+)`)

// resolve names the packages with all they depend on, those only recommended left out.
func (a *apt) resolve(ctx context.Context, packages ...string) ([]string, error) {
	out, err := a.get(ctx, append([]string{"--simulate", "--no-install-recommends", "install"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range instLine.FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	return names, nil
}

// download fetches the packages' files, checked against the signed lists, into dir.
func (a *apt) download(ctx context.Context, dir string, packages []string) error {
	_, err := a.getIn(ctx, dir, append([]string{"download"}, packages...)...)
	return err
}

func (a *apt) get(ctx context.Context, args ...string) (string, error) {
	return a.getIn(ctx, a.dir, args...)
}

func (a *apt) getIn(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append(append([]string{}, a.opts...), args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return output(cmd)
}

// output runs cmd and returns what it printed; its error holds what it complained about.
func output(cmd *exec.Cmd) (string, error) {
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}
