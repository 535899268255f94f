package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/protobuf/proto"
)

func TestEvictOne(t *testing.T) {
	nat := natted()
	nat.Packets, nat.Has = [2]uint64{7, 6}, nat.Has|flow.HasCounters
	c, w := serve(t, 64, append(many(1, 5), nat)...)
	r, err := c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{Filter: named(nat.Reply)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Evicted != 1 || r.Remaining != 0 || len(r.Ended) != 1 {
		t.Fatalf("evicted %d, remaining %d, %d described", r.Evicted, r.Remaining, len(r.Ended))
	}
	if e := r.Ended[0]; e.Event != "evicted" || e.Reason != "command" || e.Flow.Id != 77 || e.Flow.PacketsOrig != 7 {
		t.Errorf("the end is %v", e)
	}
	if n := w.Table().Len(); n != 5 {
		t.Errorf("%d flows are left, want 5", n)
	}
}

func TestEvictFilterAndAll(t *testing.T) {
	c, w := serve(t, 4096, append(many(1, 1500), natted())...)
	r, err := c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{Filter: &flowdv1.Filter{Protocol: proto.Uint32(17)}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Evicted != 1500 || r.Remaining != 0 || len(r.Ended) != endsKept {
		t.Errorf("evicted %d, remaining %d, %d described", r.Evicted, r.Remaining, len(r.Ended))
	}
	r, err = c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Evicted != 1 || w.Table().Len() != 0 {
		t.Errorf("evicted %d, %d are left", r.Evicted, w.Table().Len())
	}
}

// So many ends at once that the journal does not keep them are counted by the
// table.
func TestEvictMoreThanTheJournalKeeps(t *testing.T) {
	c, _ := serve(t, 64, many(1, 500)...)
	r, err := c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Evicted != 500 || r.Remaining != 0 {
		t.Errorf("evicted %d, remaining %d", r.Evicted, r.Remaining)
	}
}

// evictIn calls EvictFlows in a bubble, where waiting costs nothing.
// It returns how long that was.
func evictIn(t *testing.T, prepare func(w *world), flows ...flow.Event) (r *flowdv1.EvictFlowsResponse, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 64)
		w.kernel.create(flows...)
		w.settle(t)
		prepare(w)
		var err error
		before := time.Now()
		if r, err = (&Server{backend: w}).EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{All: true}); err != nil {
			t.Fatal(err)
		}
		took = time.Since(before)
	})
	return r, took
}

// What the kernel does not delete in time is reported, then.
func TestEvictRemaining(t *testing.T) {
	r, took := evictIn(t, func(w *world) { w.beforeEvict = w.kernel.setDeaf }, many(1, 3)...)
	if r.Evicted != 0 || r.Remaining != 3 {
		t.Errorf("evicted %d, remaining %d; want 0 and 3", r.Evicted, r.Remaining)
	}
	if want := evictWait + 3*evictEach; took != want {
		t.Errorf("waited %v, want %v", took, want)
	}
}

// Only its end ends the wait for a flow, whatever else changes before.
func TestEvictWaitsForTheEnd(t *testing.T) {
	flows := many(1, 1)
	marked := flows[0]
	marked.Mark, marked.Has = 5, marked.Has|flow.HasMark
	r, _ := evictIn(t, func(w *world) {
		w.beforeEvict = func() {
			w.kernel.create(marked)
			synctest.Wait()
		}
	}, flows...)
	if r.Evicted != 1 || r.Remaining != 0 || len(r.Ended) != 1 || r.Ended[0].Event != "evicted" {
		t.Errorf("evicted %d, remaining %d: %v", r.Evicted, r.Remaining, r.Ended)
	}
}

// A flow that ends by itself between the listing and the eviction is gone, and
// nobody waits for it.
func TestEvictOfAFlowThatEndsMeanwhile(t *testing.T) {
	flows := many(1, 2)
	r, _ := evictIn(t, func(w *world) {
		w.beforeEvict = func() {
			w.kernel.destroy(flows[0].Orig)
			synctest.Wait()
		}
	}, flows...)
	if r.Evicted != 2 || r.Remaining != 0 {
		t.Errorf("evicted %d, remaining %d; want 2 and 0", r.Evicted, r.Remaining)
	}
}

// The next connection on an evicted one's tuple is not waited for.
func TestEvictAndNextConnection(t *testing.T) {
	flows := many(1, 1)
	next := flows[0]
	next.ID = 99
	r, _ := evictIn(t, func(w *world) {
		w.beforeEvict = func() {
			w.kernel.destroy(flows[0].Orig)
			w.kernel.create(next)
			synctest.Wait()
		}
	}, flows...)
	if r.Evicted != 1 || r.Remaining != 0 || r.Ended[0].Flow.Id != 1 {
		t.Errorf("evicted %d, remaining %d: %v", r.Evicted, r.Remaining, r.Ended)
	}
}

func TestEvictEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 64)
		w.kernel.create(many(1, 1)...)
		w.settle(t)
		ctx, cancel := context.WithCancel(t.Context())
		w.beforeEvict = w.kernel.setDeaf
		done := make(chan *flowdv1.EvictFlowsResponse, 1)
		go func() {
			r, err := (&Server{backend: w}).EvictFlows(ctx, &flowdv1.EvictFlowsRequest{All: true})
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case r := <-done:
			if r.GetRemaining() != 1 {
				t.Errorf("remaining %d, want 1", r.GetRemaining())
			}
		default:
			t.Error("goes on waiting for a caller that is gone")
		}
	})
}
