package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Namespace is a named network namespace. A nil *Namespace is the one that
// the process is in. All methods may be called from any goroutine.
type Namespace struct {
	// Name is the name that ip-netns(8) knows it by.
	Name string
	// Handle refers to the namespace; it is for packages that take one. It
	// is valid until Close.
	Handle netns.NsHandle
}

// OpenNamespace opens the network namespace that ip-netns(8) knows by name.
func OpenNamespace(name string) (*Namespace, error) {
	handle, err := netns.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", name, err)
	}
	return &Namespace{Name: name, Handle: handle}, nil
}

// Close gives the handle back. The namespace itself stays.
func (n *Namespace) Close() error {
	if n == nil {
		return nil
	}
	return n.Handle.Close()
}

// Do calls fn in the namespace and returns its error. What fn opens (sockets,
// files below /proc/self/net) stays in the namespace; goroutines that it starts
// do not run there. fn may fail or skip the test of the caller.
//
// fn runs on an operating system thread of its own for the time, which goes back
// to its namespace afterwards, or is thrown away if it cannot.
func (n *Namespace) Do(fn func() error) error {
	if n == nil {
		return fn()
	}
	type result struct {
		err   error
		ended bool // fn ended the goroutine, by t.FailNow or the like
	}
	results := make(chan result, 1)
	go func() {
		done := result{ended: true}
		defer func() { results <- done }()
		done.err = n.enter(fn)
		done.ended = false
	}()
	done := <-results
	if done.ended {
		runtime.Goexit()
	}
	return done.err
}

// enter calls fn in the namespace on the goroutine's own thread. The thread is
// unlocked only once it is back: the runtime ends a thread whose goroutine ends
// locked.
func (n *Namespace) enter(fn func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: open the present one: %w", n.Name, err)
	}
	defer home.Close()
	if err := unix.Setns(int(n.Handle), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", n.Name, err)
	}
	defer func() {
		if unix.Setns(int(home), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// Command returns a command that will run in the namespace. Like all such
// commands it is killed when ctx ends.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if n == nil {
		return exec.CommandContext(ctx, name, args...)
	}
	args = append([]string{"netns", "exec", n.Name, name}, args...)
	return exec.CommandContext(ctx, "ip", args...)
}

// runTimeout ends commands that hang. It is far above what any should take.
const runTimeout = time.Minute

// Run runs a command in the namespace and returns its standard output. The test
// fails, with all output, if the command does or takes longer than a minute.
func (n *Namespace) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	stdout, err := n.Output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout
}

// Output runs a command in the namespace and returns its standard output, for
// at most a minute. An error tells all output.
func (n *Namespace) Output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), runTimeout,
		errors.New("it takes too long"))
	defer cancel()
	cmd := n.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	where := ""
	if n != nil {
		where = " in " + n.Name
	}
	return stdout.String(), fmt.Errorf("%s %s%s: %w\n%s%s",
		name, strings.Join(args, " "), where, err, stdout.Bytes(), stderr.Bytes())
}
