package nft

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// startNft starts an interactive nft, which keeps its socket, and returns a
// function that has it carry out a command.
func startNft(t testing.TB) func(command string) {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	return func(command string) {
		t.Helper()
		// The listing that follows proves that the command is done.
		if _, err := io.WriteString(in, command+"\nlist tables\n"); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if lines.Text() == "table inet flowd" {
				return
			}
		}
		t.Fatalf("nft ended without %q", command)
	}
}

// TestWatchFlush: somebody else's flush is seen, with its author, and told from
// what the Conn does itself.
func TestWatchFlush(t *testing.T) {
	c := inNamespace(t)
	seen := make(chan Generation, 16)
	background(t, func(ctx context.Context) error {
		return c.Watch(ctx, func(g Generation) { seen <- g })
	})
	first := await(t, seen, "first call", func(Generation) bool { return true })
	if first.PID != 0 || first.Name != "" || first.ID == 0 {
		t.Errorf("first call %+v", first)
	}
	apply(t, c, Ruleset{})
	own := await(t, seen, "own generation", func(Generation) bool { return true })
	if !own.Own || own.ID != first.ID+1 {
		t.Errorf("Apply made %+v after %+v", own, first)
	}
	cmd := exec.Command("nft", "flush", "ruleset")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	foreign := await(t, seen, "foreign generation", func(Generation) bool { return true })
	want := Generation{ID: own.ID + 1, PID: uint32(cmd.Process.Pid), Name: "nft"}
	if foreign != want {
		t.Errorf("flush made %+v, want %+v", foreign, want)
	}
	if err := c.Check(Ruleset{}); !errors.Is(err, Damage("it is gone")) {
		t.Errorf("Check after the flush: %v", err)
	}
	apply(t, c, Ruleset{})
	if g := await(t, seen, "repair", func(Generation) bool { return true }); !g.Own {
		t.Errorf("repair made %+v", g)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if g := await(t, seen, "removal", func(Generation) bool { return true }); !g.Own {
		t.Errorf("Remove made %+v", g)
	}
}

// TestWatchOverrun: a reader that falls behind is told the newest generation, and
// goes on.
func TestWatchOverrun(t *testing.T) {
	c := inNamespace(t)
	seen := make(chan Generation)
	background(t, func(ctx context.Context) error {
		// The kernel makes more of a buffer of one byte, yet little.
		return c.watch(ctx, 1, func(g Generation) {
			select {
			case seen <- g:
			case <-ctx.Done():
			}
		})
	})
	await(t, seen, "first call", func(Generation) bool { return true })
	for range 64 { // nobody reads meanwhile
		apply(t, c, Ruleset{})
	}
	last, err := c.generation()
	if err != nil {
		t.Fatal(err)
	}
	await(t, seen, "report of a loss", func(g Generation) bool {
		return g.PID == 0 && g.Name == "" && g.ID == last && !g.Own
	})
	apply(t, c, Ruleset{})
	await(t, seen, "generation after the loss", func(g Generation) bool { return g.Own && g.ID == last+1 })
}

func TestWatchEndsWithItsContext(t *testing.T) {
	c := inNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Watch(ctx, func(Generation) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
	if err := c.WatchDevices(ctx, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("WatchDevices: %v", err)
	}
}

// TestBatchNamesTheMessage: an error of the kernel says what it is about.
func TestBatchNamesTheMessage(t *testing.T) {
	c := inNamespace(t)
	generation, err := c.generation()
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(table)
	b.addTable()
	b.delChain("none")
	err = c.commit(b, generation)
	if !errors.Is(err, unix.ENOENT) || err.Error() != "chain none: no such file or directory" {
		t.Errorf("commit: %v", err)
	}
	b = newBatch(table)
	b.addTable()
	if err := c.commit(b, generation+1); !errors.Is(err, unix.ERESTART) {
		t.Errorf("commit of a batch for another generation: %v", err)
	}
}
