package flow

import (
	"sync"
	"sync/atomic"
	"testing"
)

// While one goroutine writes, a listing yields every flow exactly once that is
// there throughout, readers find it, and the gauges are those of some moment.
func TestReadersWhileWriting(t *testing.T) {
	const stay, come = 3 * chunkSize, chunkSize / 2 // flows that stay are even, those that come and go odd
	tab := NewTable(usual, DefaultTimers)
	apply := func(kind Kind, i uint32, opts ...opt) { tab.Apply(nil, event(kind, numbered(i), i, opts...), second) }
	for i := range uint32(stay) {
		apply(New, 2*i)
	}
	var stop atomic.Bool
	var readers, writer sync.WaitGroup
	writer.Go(func() {
		for round := uint32(0); !stop.Load(); round++ {
			for i := range uint32(come) {
				apply(New, 2*i+1, withStatus(hw))
			}
			for i := range uint32(come) {
				apply(Update, 2*i, withMark(round))
				apply(Destroy, 2*i+1)
			}
		}
	})
	for range 2 {
		readers.Go(func() {
			for range 4 {
				listOnce(t, tab, stay)
			}
		})
	}
	readers.Go(func() {
		for i := range uint32(stay) {
			if f, ok := tab.Find(numbered(2 * i).Reverse()); !ok || f.ID != 2*i {
				t.Errorf("flow %d is there throughout, and is not found", 2*i)
			}
			if s := tab.Stats(); s.Flows < stay || s.Flows > stay+come || s.Hardware != s.Flows-stay {
				t.Errorf("gauges %+v", s)
			}
		}
	})
	readers.Wait()
	stop.Store(true)
	writer.Wait()
	audit(t, tab)
}

// listOnce lists the table and fails unless each even flow comes exactly once,
// and each with the key that belongs to its id.
func listOnce(t *testing.T, tab *Table, stay int) {
	seen := make(map[uint32]int, stay)
	for f := range tab.All() {
		if f.ID%2 == 0 {
			seen[f.ID]++
		}
		if f.Orig != numbered(f.ID) || f.Reply != f.Orig.Reverse() {
			t.Errorf("flow %d is torn: %v", f.ID, f.Orig)
		}
	}
	if len(seen) != stay {
		t.Errorf("%d flows yielded of %d that are there throughout", len(seen), stay)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("flow %d yielded %d times", id, n)
		}
	}
}
