package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// variants are the options of "lab up", alone and together.
var variants = [][]Option{
	{},
	{NAT},
	{Firewall},
	{Track},
	{Uplink2},
	{VLAN},
	{Bridge},
	{VLAN, Bridge},
	{NAT, Firewall, Track, Uplink2, Bridge},
	{NAT, Firewall, Track, Uplink2, Bridge, VLAN},
}

func TestUp(t *testing.T) {
	for _, options := range variants {
		t.Run(fmt.Sprint(options), func(t *testing.T) {
			if slices.Contains(options, VLAN) && !canVLAN(t) {
				wantNoVLAN(t, options)
				return
			}
			lab := Up(t, options...)
			pingAll(t, lab, options)
			for _, device := range append(lab.Devices, lab.LAN, lab.WAN) {
				lab.Router.Run(t, "ip", "link", "show", device)
			}
		})
	}
}

// pingAll wants every address that the client can reach to answer the first
// packet: nothing may wait for address detection or a carrier.
func pingAll(t *testing.T, lab *Lab, options []Option) {
	t.Helper()
	addrs := []netip.Addr{lab.LANV4, lab.LANV6, lab.WANV4, lab.WANV6, lab.ServerV4, lab.ServerV6}
	if slices.Contains(options, Uplink2) {
		addrs = append(addrs, lab.Server2V4, lab.Server2V6)
	}
	for _, addr := range addrs {
		lab.Client.Run(t, "ping", "-c1", "-W10", addr.String())
	}
}

// canVLAN reports whether this kernel can make VLAN devices.
func canVLAN(t *testing.T) bool {
	t.Helper()
	lab := Up(t)
	_, err := lab.Router.Output("ip", "link", "add", "link", "lan0", "name", "probe", "type", "vlan", "id", "1")
	return err == nil
}

// wantNoVLAN: without VLAN devices in the kernel, lab says so and leaves nothing.
func wantNoVLAN(t *testing.T, options []Option) {
	t.Helper()
	lab := &Lab{Prefix: "test" + randomHex(4)}
	var args []string
	for _, option := range options {
		args = append(args, string(option))
	}
	_, err := lab.script("up", args...)
	if err == nil || !strings.Contains(err.Error(), "--vlan needs VLAN devices in the kernel") {
		t.Errorf("lab up %v on a kernel without VLAN: %v", options, err)
	}
	wantNothing(t, lab.Prefix)
}

func wantNothing(t *testing.T, prefix string) {
	t.Helper()
	list, err := (*Namespace)(nil).Output("ip", "netns", "list")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(list, prefix+"-") {
		t.Errorf("namespaces of %s are left:\n%s", prefix, list)
	}
}

// shells are those that the script has to run in.
func shells(t *testing.T) [][]string {
	t.Helper()
	var found [][]string
	for _, shell := range [][]string{{"sh"}, {"dash"}, {"busybox", "sh"}, {"bash", "--posix"}} {
		if _, err := exec.LookPath(shell[0]); err == nil {
			found = append(found, shell)
		}
	}
	return found
}

// runScript runs the script from a file, as by hand, and returns its exit status
// and all output.
func runScript(t *testing.T, shell []string, args ...string) (int, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab")
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shell[0], slices.Concat(shell[1:], []string{file}, args)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Stdin = strings.NewReader("not for the script\n")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v lab %v: %v", shell, args, err)
	}
	return cmd.ProcessState.ExitCode(), output.String()
}

func TestScript(t *testing.T) {
	Require(t, "ip", "nft")
	for _, shell := range shells(t) {
		t.Run(shell[0], func(t *testing.T) {
			prefix := "--prefix=test" + randomHex(4)
			t.Cleanup(func() { runScript(t, shell, "down", prefix) })
			for _, step := range []struct {
				args   string
				status int
				output string
			}{
				{"status", 3, "is down"},
				{"exec client true", 1, "does not exist: 'lab up' makes it"},
				{"down", 0, ""},
				{"up --nat --track --firewall", 0, "is up: client 192.0.2.2"},
				{"status", 0, "198.51.100.1/24"},
				{"up", 1, "is up already"},
				{"exec router nft list table inet lab", 0, "masquerade"},
				{"exec router sh -c 'exit", 2, ""},
				{"exec client cat", 0, "not for the script"},
				{"exec client false", 1, ""},
				{"exec server ip netns del PREFIX-client", 0, ""},
				{"status", 1, "is partly up"},
				{"up", 1, "is partly up: PREFIX-router PREFIX-server; 'lab down' removes it"},
				{"down", 0, ""},
				{"down", 0, ""},
				{"status", 3, "is down"},
				{"up --vlam", 2, "no such variant '--vlam'"},
				{"status --nat", 2, "status: no such option '--nat'"},
				{"exec", 2, "no such place ''"},
				{"exec here true", 2, "no such place 'here'"},
				{"exec router", 2, "exec: no command"},
				{"upp", 2, "no such command 'upp'"},
				{"down --prefix", 2, "--prefix: no name"},
				{"down --prefix a/b", 2, "bad prefix 'a/b'"},
				{"up --help", 0, "Usage: lab up"},
			} {
				name := strings.TrimPrefix(prefix, "--prefix=")
				args := strings.Fields(strings.ReplaceAll(step.args, "PREFIX", name))
				args = slices.Insert(args, 1, prefix)
				want := strings.ReplaceAll(step.output, "PREFIX", name)
				status, output := runScript(t, shell, args...)
				if status != step.status || !strings.Contains(output, want) {
					t.Errorf("lab %s: status %d, want %d with %q:\n%s",
						strings.Join(args, " "), status, step.status, want, output)
				}
			}
			wantNothing(t, strings.TrimPrefix(prefix, "--prefix="))
		})
	}
}

func TestScriptHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help"}, {"-h"}, {"exec", "--help"}} {
		status, output := runScript(t, []string{"sh"}, args...)
		if status != 0 || !strings.Contains(output, "PREFIX-router") {
			t.Errorf("lab %v: status %d\n%s", args, status, output)
		}
	}
	if status, output := runScript(t, []string{"sh"}); status != 2 || !strings.Contains(output, "Usage:") {
		t.Errorf("lab without a command: status %d\n%s", status, output)
	}
}

func TestScriptWithoutTools(t *testing.T) {
	Require(t)
	nobody := exec.Command("/bin/sh", "-c", script, "lab", "up")
	nobody.Dir = "/"
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := nobody.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "run this as root") {
		t.Errorf("lab up as nobody: %v\n%s", err, output)
	}
	// A stand-in for a busybox system: its ip answers -V otherwise.
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/ip", []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(script, "PATH=$PATH:/usr/sbin:/sbin:/usr/bin:/bin", "PATH="+dir+"; id() { echo 0; }", 1)
	output, err = exec.Command("/bin/sh", "-c", text, "lab", "up").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "no ip of iproute2") {
		t.Errorf("lab up with busybox's ip: %v\n%s", err, output)
	}
}

// TestDownBusy: what a process holds on to loses its network all the same.
func TestDownBusy(t *testing.T) {
	lab := Up(t)
	cat := lab.Router.Command(t.Context(), "cat")
	stdin, stdout := pipes(t, cat)
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "ready"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	status, output := runScript(t, []string{"sh"}, "down", "--prefix", lab.Prefix)
	if want := fmt.Sprintf("until these end: process %d", cat.Process.Pid); status != 0 || !strings.Contains(output, want) {
		t.Errorf("lab down: status %d, want %q:\n%s", status, want, output)
	}
	wantNothing(t, lab.Prefix)
	if err := lab.Router.Do(func() error {
		if links, err := os.ReadFile("/proc/thread-self/net/dev"); err != nil || bytes.Contains(links, []byte("wan0")) {
			return fmt.Errorf("devices are left (%v):\n%s", err, links)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	stdin.Close()
	if err := cat.Wait(); err != nil {
		t.Error(err)
	}
}

func pipes(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, io.Reader) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return stdin, stdout
}
