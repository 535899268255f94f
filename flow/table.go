package flow

import (
	"iter"
	"sync"
)

// Table holds every flow. One goroutine writes (Apply, Delete); any
// number read at the same time (Find, All, Len, Stats). The lock is held for one
// event or for one stretch of a listing, never for the whole table.
type Table struct {
	mu    sync.RWMutex
	slab  slab
	index *index
	stats Stats

	round   uint16                  // number of the current or last dump
	syncing bool                    // between SyncStart and SyncEnd
	synced  bool                    // a dump has come through whole at least once
	ended   map[connection]struct{} // while syncing: what ended, which the dump may still show
}

type connection struct {
	orig Key
	id   uint32
}

// Stats counts what happened to the table. The gauges are of this moment, the
// rest since the start.
type Stats struct {
	Flows       int // gauge
	Offloaded   int // gauge, software and hardware
	Hardware    int // gauge
	Candidates  int // gauge
	Created     uint64
	Ended       [len(reasonNames)]uint64 // by Reason
	Offloads    uint64                   // times a flow entered the fast path
	Syncs       uint64                   // dumps that came through whole
	SyncsFailed uint64                   // dumps that were cut short
	Repaired    uint64                   // flows that a dump added or removed, after the first
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{index: newIndex(), ended: make(map[connection]struct{})}
}

// Len returns the number of flows.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.stats.Flows
}

// Stats returns the counters as they are now.
func (t *Table) Stats() Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.stats
}

// Find returns the flow of a tuple: of either direction, translated or not.
func (t *Table) Find(k Key) (Flow, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, k := range [...]Key{k, k.Reverse()} {
		if slot, ok := t.lookup(&k); ok {
			return *t.slab.at(slot), true
		}
	}
	return Flow{}, false
}

// All yields every flow once, in no particular order. A flow that comes or goes
// meanwhile may or may not be among them.
func (t *Table) All() iter.Seq[*Flow] {
	return func(yield func(*Flow) bool) {
		var buf [256]Flow
		for at := uint32(0); ; {
			n, next := t.stretch(at, buf[:])
			if next == at {
				return
			}
			for i := range buf[:n] {
				if !yield(&buf[i]) {
					return
				}
			}
			at = next
		}
	}
}

// stretchSlots bounds how many slots are looked at under one lock: a table that
// was large once may have long stretches of free ones.
const stretchSlots = 4096

// stretch copies flows from slot at on and returns how many, and where to go on.
func (t *Table) stretch(at uint32, dst []Flow) (n int, next uint32) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for end := min(t.slab.next, at+stretchSlots); at < end && n < len(dst); at++ {
		if t.slab.used(at) {
			dst[n] = *t.slab.at(at)
			n++
		}
	}
	return n, at
}

func (t *Table) lookup(k *Key) (uint32, bool) {
	return t.index.find(t.index.hash(k), func(slot uint32, reply bool) bool {
		f := t.slab.at(slot)
		if reply {
			return f.Reply == *k
		}
		return f.Orig == *k
	})
}

// link enters a flow's keys. A connection to itself has one key for both.
func (t *Table) link(slot uint32) {
	f := t.slab.at(slot)
	t.index.insert(t.index.hash(&f.Orig), slot, false)
	if f.Reply != f.Orig {
		t.index.insert(t.index.hash(&f.Reply), slot, true)
	}
}

func (t *Table) unlink(slot uint32) {
	f := t.slab.at(slot)
	t.index.remove(t.index.hash(&f.Orig), slot, false)
	if f.Reply != f.Orig {
		t.index.remove(t.index.hash(&f.Reply), slot, true)
	}
}

// gauge keeps the stats that count flows in a condition; by is +1 or -1.
func (t *Table) gauge(f *Flow, by int) {
	t.stats.Flows += by
	switch f.Offload() {
	case OffloadHardware:
		t.stats.Hardware += by
		t.stats.Offloaded += by
	case OffloadSoftware:
		t.stats.Offloaded += by
	}
	if f.Candidate {
		t.stats.Candidates += by
	}
}
