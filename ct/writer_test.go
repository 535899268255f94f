package ct

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flowd/flow"
	"flowd/testenv"
)

func write(t *testing.T, space *testenv.Namespace) *Writer {
	t.Helper()
	var w *Writer
	err := space.Do(func() (err error) {
		w, err = NewWriter(func(a flow.Action, err error) { t.Errorf("%v: %v", a, err) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestWriterChecksTheID asks for an entry by tuple, once with another id and once
// with its own, for each kind of tuple that the traffic has.
func TestWriterChecksTheID(t *testing.T) {
	f, w := busy(t)
	var all []flow.Action
	for e := range f.table.All() {
		all = append(all, flow.Action{Verb: flow.Remove, Orig: e.Orig, ID: e.ID})
	}
	if len(all) < 8 {
		t.Fatalf("only %d flows", len(all))
	}
	var wrong []flow.Action
	for _, a := range all {
		a.ID++
		wrong = append(wrong, a)
	}
	w.Submit(wrong)
	answered := func(n int) {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, func() error {
			if s := w.Stats(); int(s.Done+s.Absent) != n || s.Failed != 0 {
				return fmt.Errorf("%+v, not %d answers", s, n)
			}
			return nil
		})
	}
	answered(len(all))
	f.refresh()
	if w.Stats().Done != 0 || f.table.Len() != len(all) {
		t.Errorf("with other ids: %+v, %d of %d flows left", w.Stats(), f.table.Len(), len(all))
	}
	w.Submit(all)
	answered(2 * len(all))
	f.refresh()
	if w.Stats().Done != uint64(len(all)) {
		t.Errorf("with their ids: %+v, not %d", w.Stats(), len(all))
	}
	// A late packet of a connection that is still open makes a new entry.
	for _, a := range all {
		if e, ok := f.table.Find(a.Orig); ok && e.ID == a.ID {
			t.Errorf("left: %v, id %d", e.Orig, e.ID)
		}
	}
}

// busy returns a table that knows the traffic of a router, and a writer to its kernel.
func busy(t *testing.T) (*follower, *Writer) {
	t.Helper()
	lab := testenv.Up(t, testenv.NAT)
	conntrackOn(t, lab)
	f := follow(t, lab.Router, ReaderConfig{})
	w := write(t, lab.Router)
	mixedTraffic(t, lab)
	f.refresh()
	return f, w
}

// TestWriterReads has entries read one by one: what comes is what a dump shows.
func TestWriterReads(t *testing.T) {
	f, w := busy(t)
	want := map[uint32]flow.Flow{}
	var reads []flow.Action
	for e := range f.table.All() {
		want[e.ID] = *e
		reads = append(reads, flow.Action{Verb: flow.Read, Orig: e.Orig, ID: e.ID})
	}
	w.Submit(reads)
	for len(want) > 0 {
		select {
		case answers := <-w.Answers():
			for _, ev := range answers {
				f := want[ev.ID]
				// A late acknowledgement may have been counted since the dump.
				if ev.Kind != flow.Answer || ev.Orig != f.Orig || ev.Reply != f.Reply || ev.Start != f.Start ||
					ev.Packets[0] < f.Packets[0] || ev.Packets[1] < f.Packets[1] {
					t.Errorf("read %+v, dumped %+v", ev, f)
				}
				delete(want, ev.ID)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no answer for %+v", want)
		}
	}
}

// TestWriterMerges submits while nobody sends: requests for one connection are one.
func TestWriterMerges(t *testing.T) {
	lab := testenv.Up(t)
	var w *Writer
	if err := lab.Router.Do(func() (err error) {
		w, err = NewWriter(nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer w.sock.close()
	a := flow.Action{Verb: flow.Remove, Orig: flow.Key{Family: flow.IPv4, Proto: flow.UDP, SrcPort: 1}, ID: 7}
	read := a
	read.Verb = flow.Read
	w.Submit([]flow.Action{read, a, read, read})
	other := read
	other.ID = 8
	w.Submit([]flow.Action{other, read})
	got := w.take(make([]flow.Action, 0, writeBatch))
	if len(got) != 2 || (got[0] != a && got[1] != a) || (got[0] != other && got[1] != other) {
		t.Errorf("%+v", got)
	}
}

// TestWriterExtends gives entries more time: no packet is seen in that, and a TCP
// connection that is reopened is half-closed.
func TestWriterExtends(t *testing.T) {
	f, w := busy(t)
	before := map[uint32]flow.Flow{}
	var extend []flow.Action
	const timeout = 77_777
	for e := range f.table.All() {
		before[e.ID] = *e
		extend = append(extend, flow.Action{Verb: flow.Extend, Orig: e.Orig, ID: e.ID, Timeout: timeout, Reopen: e.Orig.Proto == flow.TCP})
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		w.Submit(extend) // a late acknowledgement may have undone it
		f.refresh()
		for e := range f.table.All() {
			left := int64(e.Expires) - time.Now().Unix()
			if left > timeout || left < timeout-60 {
				return fmt.Errorf("%v expires in %d s, not %d", e.Orig, left, timeout)
			}
			if e.Orig.Proto == flow.TCP && e.State != flow.StateClosing {
				return fmt.Errorf("%v is %v, not reopened", e.Orig, e.State)
			}
		}
		return nil
	})
	for e := range f.table.All() {
		if was := before[e.ID]; e.Packets == was.Packets && e.Seen != was.Seen {
			t.Errorf("%v: a change that was asked for is taken for a packet: seen %d ns later", e.Orig, e.Seen-was.Seen)
		}
	}
}
