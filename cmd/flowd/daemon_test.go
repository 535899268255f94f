package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flowd/testenv"
)

// The programs under test: those of the guest in a VM, else built from source.
var programs = sync.OnceValues(func() (string, error) {
	if os.Getenv("FLOWD_VM") != "" {
		return "/usr/local/bin", nil
	}
	dir, err := os.MkdirTemp("", "flowd-test")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir+"/", "flowd/cmd/flowd", "flowd/cmd/flowctl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil && os.Getenv("FLOWD_VM") == "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// daemon is a flowd that runs in a namespace.
type daemon struct {
	t      testing.TB
	cmd    *exec.Cmd
	socket string
	log    *syncBuffer
	exited chan struct{}
}

// syncBuffer may be written and read by different goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// waitReady is how long a daemon may take to be ready on a busy machine.
const waitReady = 30 * time.Second

// launchProgram starts a flowd in the namespace, without waiting for anything.
// config is the text of its file, to which the socket is added if it names none.
func launchProgram(t testing.TB, space *testenv.Namespace, path, config string, env ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{t: t, socket: filepath.Join(dir, "flowd.sock"), log: &syncBuffer{}, exited: make(chan struct{})}
	file := filepath.Join(dir, "flowd.toml")
	text := config
	if !strings.Contains(config, "[api]") {
		text += fmt.Sprintf("\n[api]\nsocket = %q\n", d.socket)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d.cmd = space.Command(context.Background(), path, "--config", file)
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.exited
		if t.Failed() {
			t.Logf("log of flowd:\n%s", d.log)
		}
	})
	return d
}

// start starts a flowd, and returns once the daemon has told systemd that it is ready.
func start(t testing.TB, space *testenv.Namespace, config string) *daemon {
	t.Helper()
	return startProgram(t, space, program(t, "flowd"), config)
}

func startProgram(t testing.TB, space *testenv.Namespace, path, config string) *daemon {
	t.Helper()
	notifySocket := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	d := launchProgram(t, space, path, config, "NOTIFY_SOCKET="+notifySocket)
	go func() {
		<-d.exited
		notify.SetReadDeadline(time.Now())
	}()
	notify.SetReadDeadline(time.Now().Add(waitReady))
	buf := make([]byte, 256)
	n, err := notify.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Fatalf("flowd is not ready: %v %q\n%s", err, buf[:n], d.log)
	}
	return d
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.exited
}

// try runs flowctl and returns its output and exit code.
func (d *daemon) try(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	cmd := exec.Command(program(d.t, "flowctl"), append([]string{"--socket", d.socket}, args...)...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return out.String(), diag.String(), cmd.ProcessState.ExitCode()
}

// ctl runs flowctl, which must succeed, and returns what it prints.
func (d *daemon) ctl(args ...string) string {
	d.t.Helper()
	out, diag, code := d.try(args...)
	if code != 0 {
		d.t.Fatalf("flowctl %s: exit code %d: %s%s", strings.Join(args, " "), code, diag, out)
	}
	return out
}

// seenFlow is what flowctl -o json prints of a flow.
type seenFlow struct {
	Event, Reason         string
	Protocol, Src, Dst    string
	Sport, Dport          int
	ID                    uint32
	State, Offload, Evict string
	Packets, Bytes        [2]uint64
	Mark                  uint32
	Reply                 struct {
		Src, Dst     string
		Sport, Dport int
	}
}

func parseFlows(t testing.TB, out string) []seenFlow {
	t.Helper()
	var flows []seenFlow
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var f seenFlow
		if err := dec.Decode(&f); err != nil {
			t.Fatalf("flowctl printed what is no JSON: %v\n%s", err, out)
		}
		flows = append(flows, f)
	}
	return flows
}

// flows lists the flows that the arguments select.
func (d *daemon) flows(args ...string) []seenFlow {
	d.t.Helper()
	return parseFlows(d.t, d.ctl(append([]string{"flows", "-o", "json"}, args...)...))
}
