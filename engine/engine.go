// Package engine owns the flow table. Step is the whole of its judgement: what
// was learnt goes in, what the kernel is to be asked comes out. Run feeds it.
package engine

import (
	"container/heap"
	"sync/atomic"
	"time"

	"flowd/flow"
)

// Config is what the engine is told at first.
type Config struct {
	// Closing is how long an eviction candidate must have been silent before it
	// is evicted.
	Closing time.Duration
}

// sweepMax flows are looked at in one step, so that what else there is to read
// never waits long: some 4 us each.
const sweepMax = 1024

// keptChanges bounds the memory that is kept between steps.
const keptChanges = 1 << 14

// retry is how long after a request the flow is looked at again: a request that
// came to nothing is made anew.
const retry = time.Second

// Engine is the only writer of its table and journal. Step must not be called
// while Run runs; all other exported methods are for any goroutine.
type Engine struct {
	closing atomic.Int64 // ns
	table   *flow.Table
	journal *flow.Journal
	kernel  Kernel

	due      agenda
	next     map[connection]int64  // when each flow is looked at; any other appointment of its is void
	awaiting map[flow.Key]struct{} // silent candidates that the kernel was asked about
	changes  []flow.Change         // of the step at hand, kept for its memory
	actions  []flow.Action

	started  time.Time
	commands chan evict
	syncs    syncs
}

// Kernel is what the engine asks of the kernel.
type Kernel interface {
	// Submit hands over requests. It does not wait and returns nothing: what
	// came of them is learnt from events.
	Submit([]flow.Action)
	// Refresh asks for a dump that begins now or later and returns its number,
	// which its SyncEnd will carry in ID.
	Refresh() uint32
}

// New returns an engine with an empty table and a journal of the given size.
func New(cfg Config, kernel Kernel, journal int) *Engine {
	e := &Engine{
		table: flow.NewTable(), journal: flow.NewJournal(journal), kernel: kernel,
		next: make(map[connection]int64), awaiting: make(map[flow.Key]struct{}),
		started: time.Now(), commands: make(chan evict), syncs: newSyncs(),
	}
	e.SetClosing(cfg.Closing)
	return e
}

// SetClosing is Config.Closing for a daemon that runs; it holds from the next look at a flow on.
func (e *Engine) SetClosing(d time.Duration) { e.closing.Store(int64(d)) }

// Table returns the table, for reading.
func (e *Engine) Table() *flow.Table { return e.table }

// Journal returns the journal, for reading.
func (e *Engine) Journal() *flow.Journal { return e.journal }

// Now is the engine's time in ns since the epoch: that of the wall clock at the
// start, and monotonic from then on. A clock that is set, as it is at each boot of
// a router without a battery, moves no deadline.
func (e *Engine) Now() int64 { return e.started.UnixNano() + int64(time.Since(e.started)) }

// Step takes in events and the time, in ns since the epoch, and returns what the
// kernel is to be asked. It does no I/O and reads no clock: the same table,
// events and time give the same actions. The result is valid until the next call.
func (e *Engine) Step(events []flow.Event, now int64) []flow.Action {
	e.actions, e.changes = e.actions[:0], e.changes[:0]
	for i := range events {
		ev := &events[i]
		e.changes = e.table.Apply(e.changes, ev, now)
		switch ev.Kind {
		case flow.Sample, flow.Answer:
			e.judge(ev, now)
		case flow.SyncEnd:
			if ev.Has&flow.Partial == 0 {
				e.syncs.ended(ev.ID)
			}
		}
	}
	for i := range e.changes {
		if c := &e.changes[i]; c.Kind == flow.Candidate && c.Flow.Reason == flow.ReasonNone {
			// The first read is the base that the later one is compared with: the
			// counters of a flow in the flowtable come with no event.
			e.read(c.Flow.Orig, c.Flow.ID)
			e.look(c.Flow.Orig, c.Flow.ID, now+e.closing.Load())
		}
	}
	e.journal.Append(e.changes)
	if cap(e.changes) > keptChanges {
		e.changes = nil
	}
	e.sweep(now)
	return e.actions
}

// sweep looks at flows that are due.
func (e *Engine) sweep(now int64) {
	for n := 0; n < sweepMax && len(e.due) > 0 && e.due[0].at <= now; n++ {
		a := heap.Pop(&e.due).(appointment)
		if e.next[a.connection] != a.at {
			continue
		}
		delete(e.next, a.connection)
		f, ok := e.table.Find(a.orig)
		switch {
		case !ok || f.ID != a.id:
			delete(e.awaiting, a.orig)
		case f.Reason != flow.ReasonNone:
			e.remove(a.orig, a.id, now)
		case !f.Candidate:
			delete(e.awaiting, a.orig)
		case f.Seen+e.closing.Load() > now:
			e.look(a.orig, a.id, f.Seen+e.closing.Load())
		default:
			e.awaiting[a.orig] = struct{}{}
			e.read(a.orig, a.id)
			e.look(a.orig, a.id, now+int64(retry))
		}
	}
}

// judge evicts a candidate that the kernel has just shown to be silent still.
func (e *Engine) judge(ev *flow.Event, now int64) {
	if _, ok := e.awaiting[ev.Orig]; !ok {
		return
	}
	f, ok := e.table.Find(ev.Orig)
	if !ok || f.ID != ev.ID || !f.Candidate || f.Seen+e.closing.Load() > now {
		return
	}
	delete(e.awaiting, ev.Orig)
	if e.table.Delete(f.Orig, f.ID, f.ClosedReason()) {
		e.remove(f.Orig, f.ID, now)
	}
}

func (e *Engine) read(orig flow.Key, id uint32) {
	e.actions = append(e.actions, flow.Action{Verb: flow.Read, Orig: orig, ID: id})
}

// remove asks for the deletion of a connection, and again until it is gone.
func (e *Engine) remove(orig flow.Key, id uint32, now int64) {
	e.actions = append(e.actions, flow.Action{Verb: flow.Remove, Orig: orig, ID: id})
	e.look(orig, id, now+int64(retry))
}

// look has a flow looked at then, and not when it was to be before.
func (e *Engine) look(orig flow.Key, id uint32, at int64) {
	c := connection{orig, id}
	e.next[c] = at
	heap.Push(&e.due, appointment{connection: c, at: at})
}

type connection struct {
	orig flow.Key
	id   uint32
}

// appointment is a flow to be looked at, and when.
type appointment struct {
	connection
	at int64
}

// agenda is a heap of appointments, the next one first.
type agenda []appointment

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at < a[j].at }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(appointment)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}
