package api

import (
	"context"
	"testing"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// watcher reads the changes of a stream one by one.
type watcher struct {
	*testing.T
	stream  flowdv1.Flowd_WatchClient
	changes []*flowdv1.Change
	next    uint64
}

// watch begins to watch, and reads the first message, which has no changes.
func watch(t *testing.T, c flowdv1.FlowdClient, req *flowdv1.WatchRequest) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s, err := c.Watch(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Changes) != 0 || m.NextSeq == 0 {
		t.Fatalf("the first message has %d changes, next_seq %d", len(m.Changes), m.NextSeq)
	}
	return &watcher{T: t, stream: s, next: m.NextSeq}
}

// expect reads as many changes as are given and fails unless they are these.
func (w *watcher) expect(want ...string) []*flowdv1.Change {
	w.Helper()
	for len(w.changes) < len(want) {
		m, err := w.stream.Recv()
		if err != nil {
			w.Fatalf("%d of %d changes, then %v", len(w.changes), len(want), err)
		}
		w.changes = append(w.changes, m.Changes...)
		w.next = m.NextSeq
		if len(m.Changes) == 0 || m.NextSeq <= m.Changes[len(m.Changes)-1].Seq {
			w.Errorf("%d changes, next_seq %d", len(m.Changes), m.NextSeq)
		}
	}
	got := w.changes[:len(want)]
	w.changes = w.changes[len(want):]
	for i, c := range got {
		if text := c.Event + ":" + c.Reason; text != want[i] {
			w.Fatalf("change %d is %s, want %s", c.Seq, text, want[i])
		}
	}
	return got
}

// fails reads on, and fails unless an error with this code comes.
func (w *watcher) fails(want codes.Code) {
	w.Helper()
	m, err := w.stream.Recv()
	if status.Code(err) != want {
		w.Fatalf("got %v, %v, want %v", m, err, want)
	}
}

func TestWatchFromNowOn(t *testing.T) {
	c, w := serve(t, 64, many(1, 3)...)
	watcher := watch(t, c, &flowdv1.WatchRequest{})
	if watcher.next != 4 {
		t.Errorf("next_seq %d, want 4", watcher.next)
	}
	ev := entry(tuple(flow.TCP, "10.0.0.1:1", "192.0.2.1:80", 0), 9)
	w.kernel.create(ev)
	got := watcher.expect("new:")
	if got[0].Seq != 4 || got[0].Flow.Id != 9 || got[0].TimeNs == 0 {
		t.Errorf("change %v", got[0])
	}
	w.kernel.destroy(ev.Orig)
	watcher.expect("expired:kernel")
}

func TestWatchSince(t *testing.T) {
	c, _ := serve(t, 64, many(1, 5)...)
	got := watch(t, c, &flowdv1.WatchRequest{SinceSeq: 3}).expect("new:", "new:", "new:")
	for i, change := range got {
		if change.Seq != uint64(3+i) {
			t.Errorf("change %d, want %d", change.Seq, 3+i)
		}
	}
}

// A watcher may go on where it stopped, even when nothing has happened since.
func TestWatchSinceNext(t *testing.T) {
	c, w := serve(t, 64, many(1, 5)...)
	watcher := watch(t, c, &flowdv1.WatchRequest{SinceSeq: 6})
	w.kernel.create(many(6, 1)...)
	if got := watcher.expect("new:"); got[0].Seq != 6 {
		t.Errorf("change %d, want 6", got[0].Seq)
	}
}

// A filter hides changes, but not their numbers.
func TestWatchFilter(t *testing.T) {
	c, w := serve(t, 64)
	watcher := watch(t, c, &flowdv1.WatchRequest{Filter: &flowdv1.Filter{Id: proto.Uint32(4)}})
	w.kernel.create(many(1, 5)...)
	if got := watcher.expect("new:"); got[0].Seq != 4 || watcher.next != 6 {
		t.Errorf("change %d, next_seq %d; want 4 and 6", got[0].Seq, watcher.next)
	}
}

// More changes than the journal keeps, at once, are more than any watcher can
// follow.
func TestWatcherFallsBehind(t *testing.T) {
	c, w := serve(t, 64)
	watcher := watch(t, c, &flowdv1.WatchRequest{})
	w.kernel.create(many(1, 65)...)
	watcher.fails(codes.DataLoss)
	again := watch(t, c, &flowdv1.WatchRequest{})
	if again.next != 66 {
		t.Errorf("next_seq %d, want 66", again.next)
	}
	w.kernel.create(many(66, 1)...)
	again.expect("new:")
}

func TestWatchKeepsUpWithAFullJournal(t *testing.T) {
	c, w := serve(t, 64)
	watcher := watch(t, c, &flowdv1.WatchRequest{})
	w.kernel.create(many(1, 64)...)
	want := make([]string, 64)
	for i := range want {
		want[i] = "new:"
	}
	watcher.expect(want...)
}

func TestWatchEndsWithItsCaller(t *testing.T) {
	c, _ := serve(t, 64)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.Watch(ctx, &flowdv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("error %v", err)
	}
}

func TestManyWatchers(t *testing.T) {
	c, w := serve(t, 64)
	var watchers []*watcher
	for range 10 {
		watchers = append(watchers, watch(t, c, &flowdv1.WatchRequest{}))
	}
	w.kernel.create(many(1, 2)...)
	for _, watcher := range watchers {
		watcher.expect("new:", "new:")
	}
}
