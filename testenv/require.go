package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Require fails the test with one line unless it runs as root and finds all the
// tools in PATH. A test that cannot run has not passed: it never skips.
func Require(t testing.TB, tools ...string) {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		t.Fatalf("this test makes network namespaces: run it as root (it runs as uid %d)", uid)
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s: install it (%v)", tool, err)
		}
	}
}
