package nft

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNamespace moves the test into a network namespace of its own and opens a Conn
// there. What the test's goroutine starts runs there too. The test keeps its
// thread, which ends with it.
func inNamespace(t testing.TB) *Conn {
	t.Helper()
	need(t)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenAt(int(ns))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// need fails the test where it cannot run: a test that has not run has not passed.
func need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s: %v", tool, err)
		}
	}
}

// run runs a command in the namespace of the calling goroutine and returns what it
// prints.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return feed(t, "", name, args...)
}

// feed is run with something to read for the command.
func feed(t testing.TB, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// addDevices makes devices without traffic. The ifb driver is in every kernel that
// the tests run on.
func addDevices(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		run(t, "ip", "link", "add", "name", name, "type", "ifb")
	}
}

// listing returns flowd's table as nft 1.0.6 lists it: later versions have units in
// the values of timeouts, such as 1d2h3m4s, which that one cannot read.
func listing(t testing.TB) string {
	t.Helper()
	text := run(t, "nft", "-s", "list", "table", "inet", tableName)
	return policyLine.ReplaceAllStringFunc(text, func(line string) string {
		return timeSpec.ReplaceAllStringFunc(line, func(spec string) string {
			days, rest, ok := strings.Cut(spec, "d")
			if !ok {
				days, rest = "0", spec
			}
			n, err := strconv.Atoi(days)
			if err != nil {
				t.Fatal(err)
			}
			d, err := time.ParseDuration(cmp.Or(rest, "0s"))
			if err != nil {
				t.Fatal(err)
			}
			return strconv.Itoa(n*24*60*60 + int(d.Seconds()))
		})
	})
}

var (
	policyLine = regexp.MustCompile(`(?m)^\t\tpolicy = .*$`)
	timeSpec   = regexp.MustCompile(`\b(\d+[dhms])+\b`)
)

// handles returns flowd's table with the handles of all objects.
func handles(t testing.TB) string {
	t.Helper()
	return run(t, "nft", "-s", "-a", "list", "table", "inet", tableName)
}

// handleOf returns the handle of the object whose line in handles begins so.
func handleOf(t testing.TB, line string) string {
	t.Helper()
	for l := range strings.Lines(handles(t)) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, line) {
			_, handle, ok := strings.Cut(l, "# handle ")
			if ok {
				return handle
			}
		}
	}
	t.Fatalf("no handle of %q in\n%s", line, handles(t))
	return ""
}

// apply applies r and fails the test unless all of it is applied.
func apply(t testing.TB, c *Conn, r Ruleset) {
	t.Helper()
	missing, err := c.Apply(r)
	if err != nil || len(missing) > 0 {
		t.Fatalf("Apply: missing %q, error %v", missing, err)
	}
}

// whole fails the test unless the kernel has exactly r, in whatever order: what
// stayed is listed before what came later.
func whole(t testing.TB, c *Conn, r Ruleset) {
	t.Helper()
	if got := listing(t); !slices.Equal(parts(got), parts(r.String())) {
		t.Errorf("listed:\n%s\nwanted:\n%s", got, r)
	}
	if err := c.Check(r); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// parts returns the parts of a table's text, sorted.
func parts(text string) []string {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "table inet flowd {\n"), "}\n")
	parts := strings.Split(strings.TrimSuffix(text, "\n"), "\n\n")
	slices.Sort(parts)
	return parts
}

// await receives a value that fits, and fails the test if none comes for a minute.
func await[T any](t testing.TB, from <-chan T, what string, fits func(T) bool) T {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case v := <-from:
			if fits(v) {
				return v
			}
		case <-timeout:
			t.Fatalf("no %s for a minute", what)
		}
	}
}

// background runs a watcher until the test ends, which fails unless that ends with
// its context.
func background(t testing.TB, watch func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err == nil || ctx.Err() == nil || !strings.Contains(err.Error(), ctx.Err().Error()) {
			t.Errorf("watcher ended with %v", err)
		}
	})
}

// dropCapability takes a capability from the test's thread, which ends with it.
func dropCapability(t testing.TB, capability uint) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << capability
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}
