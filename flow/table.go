package flow

import (
	"iter"
	"sync"
)

// Table holds every flow. One goroutine writes (Apply, Sweep, Delete); any number
// read at the same time (Find, Get, All, Len, Stats), and may set what flows are
// judged by (SetAgeing, SetLimit, SetLifetime). The lock is held for one event, for
// one Sweep or for one stretch of a listing, never for the whole table.
type Table struct {
	mu     sync.RWMutex
	slab   slab
	index  *index
	wheel  wheel
	labels pool[[16]byte]
	recent recent
	stats  Stats
	epoch  int64 // ns since the epoch: whole seconds, a little before the first event

	ageing   Ageing
	timers   KernelTimers
	pressure pressure
	rearm    uint32   // slots from here on are still to be looked at for shorter lifetimes
	leaving  int      // flows that the kernel was asked to delete
	pressed  int      // flows that are asked for because room is needed
	asks     []Action // for the next Sweep to return

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
	Flows       int   // gauge
	Offloaded   int   // gauge, software and hardware
	Hardware    int   // gauge
	HalfOpen    int   // gauge, never answered
	Candidates  int   // gauge
	Zoned       int   // gauge, in a conntrack zone
	Limit       int   // gauge, flows there may be; 0: no limit
	Shortened   int   // gauge, per cent by which lifetimes are shortened, as the table is full
	WheelLag    int64 // gauge, ns by which flows are looked at too late
	Created     uint64
	Ended       [len(reasonNames)]uint64 // by Reason
	Offloads    uint64                   // times a flow entered the fast path
	Revived     uint64                   // times a candidate went on living
	Syncs       uint64                   // dumps that came through whole
	SyncsFailed uint64                   // dumps that were cut short
	Repaired    uint64                   // flows that a dump added or removed, after the first

	// Packets of the flows as they were learnt of, both directions, and those of
	// them that were learnt of when the flow was, or had just been, in the flowtable.
	Packets, OffloadedPackets uint64
}

// NewTable returns an empty table, whose flows live as Ageing says.
func NewTable(a Ageing, k KernelTimers) *Table {
	t := &Table{index: newIndex(), ended: make(map[connection]struct{}), ageing: a, timers: k}
	t.wheel.slab = &t.slab
	return t
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
	s := t.stats
	s.Limit = t.pressure.limit
	s.Shortened = int(100 * 2 * t.pressure.level / (3 * pressureLevels))
	return s
}

// Get returns the flow of a handle, if it lives.
func (t *Table) Get(h Handle) (Flow, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if !t.holds(h) {
		return Flow{}, false
	}
	return t.flow(h.slot), true
}

func (t *Table) holds(h Handle) bool {
	return h.slot < t.slab.next && t.slab.used(h.slot) && t.slab.at(h.slot).generation == h.generation
}

// begin sets the table's epoch, from which ticks are counted, once.
func (t *Table) begin(now int64) {
	if t.epoch == 0 {
		t.epoch = (now/second - 1) * second
	}
}

// Find returns the flow of a tuple: of either direction, translated or not.
func (t *Table) Find(k Key) (Flow, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, k := range [...]Key{k, k.Reverse()} {
		if slot, ok := t.lookup(&k); ok {
			return t.flow(slot), true
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
			dst[n] = t.flow(at)
			n++
		}
	}
	return n, at
}

func (t *Table) lookup(k *Key) (uint32, bool) {
	return t.index.find(t.index.hash(k), func(slot uint32, reply bool) bool {
		r := t.slab.at(slot)
		if reply {
			return r.reply() == *k
		}
		return r.orig == *k
	})
}

// link enters a flow's keys. A connection to itself has one key for both.
func (t *Table) link(slot uint32) {
	r := t.slab.at(slot)
	t.index.insert(t.index.hash(&r.orig), slot, false)
	if reply := r.reply(); reply != r.orig {
		t.index.insert(t.index.hash(&reply), slot, true)
	}
}

func (t *Table) unlink(slot uint32) {
	r := t.slab.at(slot)
	t.index.remove(t.index.hash(&r.orig), slot, false)
	if reply := r.reply(); reply != r.orig {
		t.index.remove(t.index.hash(&reply), slot, true)
	}
}

// gauge keeps the stats that count flows in a condition; by is +1 or -1.
func (t *Table) gauge(r *record, by int) {
	t.stats.Flows += by
	switch r.path() {
	case OffloadHardware:
		t.stats.Hardware += by
		t.stats.Offloaded += by
	case OffloadSoftware:
		t.stats.Offloaded += by
	}
	if r.orig.Zone != 0 || r.back.zone != 0 {
		t.stats.Zoned += by
	}
	switch r.state {
	case StateClosed:
		t.stats.Candidates += by
	case StateNew:
		t.stats.HalfOpen += by
	}
}
