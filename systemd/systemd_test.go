// Package systemd holds the units, and the tests that systemd agrees with them.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowd/policy"
)

// TestUnitVerifies has systemd look at the unit as it would at boot.
func TestUnitVerifies(t *testing.T) {
	unit, err := os.ReadFile("flowd.service")
	if err != nil {
		t.Fatal(err)
	}
	// It checks that programs exist: stand-ins do, beside a copy of the unit.
	dir := t.TempDir()
	program := filepath.Join(dir, "flowd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "flowd.service")
	text := strings.ReplaceAll(string(unit), "/usr/sbin/flowd", program)
	if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", copied).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestCapabilities holds the unit to the one capability that is proven to be
// needed: the daemon's own tests run it without and see it refused.
func TestCapabilities(t *testing.T) {
	unit, err := os.ReadFile("flowd.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet="); ok && v != "CAP_NET_ADMIN" {
			t.Errorf("capabilities %q", v)
		}
	}
	if !strings.Contains(string(unit), "\nCapabilityBoundingSet=") {
		t.Error("no CapabilityBoundingSet: that is all capabilities")
	}
}

// TestSysusers and TestTmpfiles have systemd carry the files out in a root of
// their own.
func TestSysusers(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "systemd-sysusers", "--root="+root, absolute(t, "flowd.sysusers"))
	groups, err := os.ReadFile(filepath.Join(root, "etc/group"))
	if err != nil || !strings.HasPrefix(string(groups), "flowd:") {
		t.Errorf("groups: %q, %v", groups, err)
	}
}

func TestTmpfiles(t *testing.T) {
	root := t.TempDir()
	run(t, "systemd-tmpfiles", "--root="+root, "--create", absolute(t, "flowd.tmpfiles"))
	info, err := os.Stat(filepath.Join(root, "run/flowd"))
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExampleIsTheDefault holds the commented example to the built-in defaults.
func TestExampleIsTheDefault(t *testing.T) {
	text, err := os.ReadFile("flowd.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := policy.Parse("flowd.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Default()
	if len(got.Flowtable.Devices) != 0 || len(got.Flowtable.Exclude) != 0 ||
		got.Flowtable.Offload != want.Flowtable.Offload || got.Flowtable.After != want.Flowtable.After ||
		got.Flowtable.OnExit != want.Flowtable.OnExit || !reflect.DeepEqual(got.Ageing, want.Ageing) || got.API != want.API ||
		want.Ageing.TCP.Closing != 5*time.Second {
		t.Errorf("the example says %+v, the default is %+v", got, want)
	}
}
