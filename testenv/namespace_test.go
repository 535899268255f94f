package testenv

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// netNamespace returns the identity of the calling thread's namespace.
func netNamespace() (string, error) {
	return os.Readlink("/proc/thread-self/ns/net")
}

func TestDo(t *testing.T) {
	lab := Up(t)
	home, err := netNamespace()
	if err != nil {
		t.Fatal(err)
	}
	for _, space := range []*Namespace{lab.Client, lab.Router, lab.Server} {
		want := strings.TrimSpace(space.Run(t, "readlink", "/proc/self/ns/net"))
		if err := space.Do(func() error {
			got, err := netNamespace()
			if got != want || got == home {
				return fmt.Errorf("in %s: %q, want %q; home is %q (%w)", space.Name, got, want, home, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	cause := errors.New("cause")
	if err := lab.Client.Do(func() error { return cause }); err != cause {
		t.Errorf("Do: %v, want the error of its function", err)
	}
	if err := (*Namespace)(nil).Do(func() error {
		if got, err := netNamespace(); got != home {
			return fmt.Errorf("in nil: %q (%w)", got, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestDoRestores: threads return to their namespace, however many and in
// whatever order they are used.
func TestDoRestores(t *testing.T) {
	lab := Up(t)
	home, err := netNamespace()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 200 {
		space := []*Namespace{lab.Client, lab.Router, lab.Server}[i%3]
		group.Go(func() {
			if err := space.Do(func() error { return nil }); err != nil {
				t.Error(err)
			}
			if got, err := netNamespace(); got != home {
				t.Errorf("after Do: in %q, want %q (%v)", got, home, err)
			}
		})
	}
	group.Wait()
}

// TestDoEndsTest: what ends the goroutine inside of Do, as t.FailNow does, ends
// the one that called it.
func TestDoEndsTest(t *testing.T) {
	lab := Up(t)
	reached := false
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = lab.Client.Do(func() error {
			runtime.Goexit()
			return nil
		})
		reached = true
	}()
	<-ended
	if reached {
		t.Error("Do returned to a test that had ended")
	}
}

func TestDoClosed(t *testing.T) {
	lab := Up(t)
	space, err := OpenNamespace(lab.Client.Name)
	if err != nil {
		t.Fatal(err)
	}
	space.Close()
	if err := space.Do(func() error { return nil }); err == nil ||
		!strings.Contains(err.Error(), "enter namespace "+space.Name) {
		t.Errorf("Do in a closed namespace: %v", err)
	}
	if _, err := OpenNamespace("no-such-namespace"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenNamespace: %v, want ErrNotExist", err)
	}
}

func TestOutput(t *testing.T) {
	lab := Up(t)
	out, err := lab.Server.Output("sh", "-c", "echo out; echo err >&2; exit 3")
	if out != "out\n" {
		t.Errorf("Output: %q, want the standard output alone", out)
	}
	for _, want := range []string{"sh -c", lab.Server.Name, "exit status 3", "out\n", "err\n"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Output: error %v, want %q in it", err, want)
		}
	}
}
