//go:build !kernel

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowd/testenv"
)

// launch starts a flowd as it is, without waiting for anything.
func launch(t testing.TB, space *testenv.Namespace, config string, env ...string) *daemon {
	t.Helper()
	return launchProgram(t, space, program(t, "flowd"), config, env...)
}

// stop ends the daemon as systemd does, and fails unless it ends well.
func (d *daemon) stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.wait(0)
}

// wait expects the daemon to end by itself with an exit code.
func (d *daemon) wait(code int) {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(waitReady):
		d.t.Fatalf("flowd still runs\n%s", d.log)
	}
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		d.t.Errorf("flowd ended with %d (%v), not %d\n%s", got, d.cmd.ProcessState, code, d.log)
	}
}

// expect has a flowd end by itself, with an exit code and words in its log.
func expect(t *testing.T, d *daemon, code int, words ...string) {
	t.Helper()
	d.wait(code)
	for _, w := range words {
		if !strings.Contains(d.log.String(), w) {
			t.Errorf("the log does not say %q:\n%s", w, d.log)
		}
	}
	if strings.Contains(d.log.String(), "goroutine ") {
		t.Errorf("panic:\n%s", d.log)
	}
}

func TestRefusesBadConfiguration(t *testing.T) {
	lab := testenv.Up(t)
	expect(t, launch(t, lab.Router, "[flowtable]\noffload = \"hw\"\n"), exitUsage,
		`flowd.toml:2:11: flowtable.offload: "hw" is not one of ["off" "software"]`, `offload = "hw"`, "^")
	expect(t, launch(t, lab.Router, "[flowtable]\nspeed = 1\n"), exitUsage, `:2:1: unknown key "flowtable.speed"`)
	if out := lab.Router.Run(t, "nft", "list", "ruleset"); out != "" {
		t.Errorf("something was loaded all the same:\n%s", out)
	}
}

func TestRefusesUnreadableConfiguration(t *testing.T) {
	for _, path := range []string{"/nonexistent/flowd.toml", t.TempDir()} {
		out, err := (*testenv.Namespace)(nil).Output(program(t, "flowd"), "check", "--config", path)
		if err == nil || !strings.Contains(err.Error(), "flowd: configuration: ") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v %s", path, err, out)
		}
	}
}

func TestRefusesSecondDaemon(t *testing.T) {
	lab := testenv.Up(t)
	first := start(t, lab.Router, "")
	// Its socket is another one: what counts is the network namespace.
	expect(t, launch(t, lab.Router, ""), exitRunning, "another flowd runs in this network namespace: process ")
	first.ctl("status")
	first.stop()
	start(t, lab.Router, "").stop()
}

func TestRefusesSocketInUse(t *testing.T) {
	lab := testenv.Up(t)
	first := start(t, lab.Router, "")
	// In another namespace, but on the same socket.
	second := launchOn(t, lab.Client, first.socket)
	expect(t, second, exitRunning, first.socket+": in use by process ")
	first.ctl("status")
}

// launchOn starts a flowd on a socket of somebody else's choice.
func launchOn(t *testing.T, space *testenv.Namespace, socket string) *daemon {
	t.Helper()
	return launch(t, space, "[api]\nsocket = \""+socket+"\"\n")
}

func TestReplacesStaleSocket(t *testing.T) {
	lab := testenv.Up(t)
	d := start(t, lab.Router, "")
	d.kill()
	if _, err := os.Stat(d.socket); err != nil {
		t.Fatalf("nothing left behind to be replaced: %v", err)
	}
	again := launchOn(t, lab.Router, d.socket)
	testenv.Eventually(t, waitReady, func() error {
		c, err := net.Dial("unix", d.socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	again.stop()
}

func TestRefusesFileInTheWay(t *testing.T) {
	lab := testenv.Up(t)
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, launchOn(t, lab.Router, file), exitFailure, file+": is there already and is no socket")
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Errorf("the file was touched: %v %q", err, b)
	}
}

func TestRefusesWithoutCapability(t *testing.T) {
	lab := testenv.Up(t)
	d := launchProgram(t, lab.Router, confined(t, "+all,-net_admin"), "")
	expect(t, d, exitPermission, "CAP_NET_ADMIN")
}

// TestNeedsNoOtherCapability proves the unit's CapabilityBoundingSet: the daemon
// sets what it needs, lists, evicts and repairs with CAP_NET_ADMIN alone.
func TestNeedsNoOtherCapability(t *testing.T) {
	lab := testenv.Up(t)
	d := startProgram(t, lab.Router, confined(t, "-all,+net_admin"), "")
	makeFlows(t, lab, 1)
	testenv.Eventually(t, waitReady, func() error { return agree(d.entries(), conntrack(t, lab.Router)) })
	if out := d.ctl("flow", "evict", "--all"); !strings.Contains(out, "1 evicted") {
		t.Errorf("evict: %s", out)
	}
	lab.Router.Run(t, "nft", "flush", "ruleset")
	testenv.Eventually(t, waitReady, func() error {
		_, err := lab.Router.Output("nft", "list", "table", "inet", "flowd")
		return err
	})
	if status := d.ctl("status"); strings.Contains(status, "not set") {
		t.Errorf("a setting could not be changed:\n%s", status)
	}
	d.stop()
}

// confined returns a program that runs flowd with a bounding set of capabilities,
// in the words of setpriv(1).
func confined(t *testing.T, bounding string) string {
	t.Helper()
	testenv.Require(t, "setpriv")
	shim := filepath.Join(t.TempDir(), "flowd")
	script := "#!/bin/sh\nexec setpriv --bounding-set " + bounding + " " + program(t, "flowd") + " \"$@\"\n"
	if err := os.WriteFile(shim, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return shim
}

func TestStopsOnSignals(t *testing.T) {
	lab := testenv.Up(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d := start(t, lab.Router, "")
		d.cmd.Process.Signal(sig)
		d.wait(0)
		if out := lab.Router.Run(t, "nft", "list", "tables"); !strings.Contains(out, "inet flowd") {
			t.Errorf("%v: the ruleset is gone: %q", sig, out)
		}
	}
	d := start(t, lab.Router, "[flowtable]\non_exit = \"remove\"\n")
	d.stop()
	if out := lab.Router.Run(t, "nft", "list", "tables"); strings.Contains(out, "inet flowd") {
		t.Errorf("on_exit = \"remove\", but the ruleset is there: %q", out)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"bogus"}, {"check", "surplus"}, {"--no-such-flag"}, {"--log-level", "loud"}, {"ruleset", "x"}} {
		cmd := exec.Command(program(t, "flowd"), args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != exitUsage {
			t.Errorf("flowd %q: exit code %d, not %d: %s", args, code, exitUsage, out)
		}
	}
}

// TestCleanup removes what a stopped daemon has left, and nothing beside one that runs.
func TestCleanup(t *testing.T) {
	lab := testenv.Up(t)
	d := start(t, lab.Router, "")
	if _, err := lab.Router.Output(program(t, "flowd"), "cleanup"); err == nil || !strings.Contains(err.Error(), "another flowd runs") {
		t.Errorf("cleanup beside a daemon: %v", err)
	}
	d.stop()
	lab.Router.Run(t, program(t, "flowd"), "cleanup")
	if out := lab.Router.Run(t, "nft", "list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("tables left: %q", out)
	}
}

// TestReload has the configuration read again: a bad one changes nothing, a good
// one is put into force in place.
func TestReload(t *testing.T) {
	lab := testenv.Up(t)
	d := start(t, lab.Router, "[flowtable]\nafter = { packets = 7 }\n")
	file := d.cmd.Args[len(d.cmd.Args)-1]
	reload := func(text, log string) {
		t.Helper()
		seen := strings.Count(d.log.String(), log)
		if err := os.WriteFile(file, []byte(text+"\n[api]\nsocket = \""+d.socket+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		d.cmd.Process.Signal(syscall.SIGHUP)
		testenv.Eventually(t, waitReady, func() error {
			if strings.Count(d.log.String(), log) == seen {
				return errors.New("not logged: " + log)
			}
			return nil
		})
	}
	handle := func() string { return lab.Router.Run(t, "nft", "-a", "list", "chain", "inet", "flowd", "forward") }
	chain := func() string {
		_, after, _ := strings.Cut(handle(), "chain forward { # handle ")
		number, _, _ := strings.Cut(after, "\n")
		return number
	}
	before := chain()
	reload("[flowtable]\nafter = { packets = -1 }\n", "configuration not changed")
	if !strings.Contains(d.ctl("ruleset"), "ct packets >= 7") {
		t.Errorf("a bad configuration changed the ruleset:\n%s", d.ctl("ruleset"))
	}
	reload("[flowtable]\nafter = { packets = 9 }\n[ageing.tcp]\nclosing = \"1s\"\n", "configuration read again")
	testenv.Eventually(t, waitReady, func() error {
		if !strings.Contains(handle(), "ct packets >= 9") {
			return errors.New("the new threshold is not in force")
		}
		return nil
	})
	if after := chain(); after != before || before == "" {
		t.Errorf("the chain was made anew: handle %q, was %q", after, before)
	}
	d.stop()
}

// TestSurvivesAnEarlyHangup has SIGHUP come before the daemon is ready.
func TestSurvivesAnEarlyHangup(t *testing.T) {
	lab := testenv.Up(t)
	d := launch(t, lab.Router, "")
	testenv.Eventually(t, waitReady, func() error {
		if d.log.String() != "" { // it is past the start of the process itself
			d.cmd.Process.Signal(syscall.SIGHUP)
		}
		if !strings.Contains(d.log.String(), "msg=ready") {
			return errors.New("not ready")
		}
		return nil
	})
	d.stop()
}

// TestRulesetNeedsNothing prints the ruleset as somebody who may change nothing.
func TestRulesetNeedsNothing(t *testing.T) {
	lab := testenv.Up(t)
	out := lab.Router.Run(t, confined(t, "-all"), "ruleset")
	if !strings.HasPrefix(out, "table inet flowd {") || !strings.Contains(out, "devices = { lan0, wan0 }") {
		t.Errorf("ruleset:\n%s", out)
	}
	if tables := lab.Router.Run(t, "nft", "list", "tables"); tables != "" {
		t.Errorf("something was loaded: %s", tables)
	}
}
