package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRequireRoot runs a test of this package as nobody.
func TestRequireRoot(t *testing.T) {
	Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^TestTCPFlows$")
	if err := os.WriteFile(cmd.Path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "run it as root (it runs as uid 65534)") {
		t.Errorf("a test as nobody: %v\n%s", err, output)
	}
}

func TestRequireTool(t *testing.T) {
	var failed recorder
	Require(&failed, "sh", "no-such-tool")
	if !strings.HasPrefix(failed.message, "this test needs no-such-tool: install it") {
		t.Errorf("message %q", failed.message)
	}
}
