// Package engine owns the flow table. Step is the whole of its judgement: what
// was learnt goes in, what the kernel is to be asked comes out. Run feeds it.
package engine

import (
	"time"

	"flowd/flow"
)

// Config is what flows are judged by. It may be changed while the engine runs.
type Config struct {
	Ageing flow.Ageing
	Timers flow.KernelTimers
	Limit  int // flows there may be; 0: as many as come
}

// sweepMax flows are looked at in one step, so that what else there is to read
// never waits long: some 0.3 us each, most of it for memory.
const sweepMax = 1024

// keptChanges bounds the memory that is kept between steps.
const keptChanges = 1 << 14

// Engine is the only writer of its table and journal. Step must not be called
// while Run runs; all other exported methods are for any goroutine.
type Engine struct {
	table   *flow.Table
	journal *flow.Journal
	kernel  Kernel

	changes []flow.Change // of the step at hand, kept for its memory
	actions []flow.Action

	started  time.Time
	commands chan evict
	syncs    syncs
	rates    rates
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
		table: flow.NewTable(cfg.Ageing, cfg.Timers), journal: flow.NewJournal(journal), kernel: kernel,
		started: time.Now(), commands: make(chan evict), syncs: newSyncs(),
	}
	e.table.SetLimit(cfg.Limit)
	return e
}

// Configure has flows judged otherwise from now on.
func (e *Engine) Configure(cfg Config) {
	e.table.SetAgeing(cfg.Ageing, cfg.Timers)
	e.table.SetLimit(cfg.Limit)
}

// Table returns the table, for reading.
func (e *Engine) Table() *flow.Table { return e.table }

// Journal returns the journal, for reading.
func (e *Engine) Journal() *flow.Journal { return e.journal }

// Now is the engine's time in ns since the epoch: that of the wall clock at the
// start, and monotonic from then on. A clock that is set, as it is at each boot of
// a router without a battery, moves no deadline.
func (e *Engine) Now() int64 { return e.started.UnixNano() + int64(time.Since(e.started)) }

// Step takes in events and the time, in ns since the epoch, and returns what the
// kernel is to be asked, and whether more flows are due than one step looks at.
// It does no I/O and reads no clock: the same table, events and time give the same
// actions. They are valid until the next call.
func (e *Engine) Step(events []flow.Event, now int64) (actions []flow.Action, more bool) {
	e.changes = e.changes[:0]
	for i := range events {
		ev := &events[i]
		e.changes = e.table.Apply(e.changes, ev, now)
		if ev.Kind == flow.SyncEnd && ev.Has&flow.Partial == 0 {
			e.syncs.ended(ev.ID)
		}
	}
	e.journal.Append(e.changes)
	if cap(e.changes) > keptChanges {
		e.changes = nil
	}
	e.actions, more = e.table.Sweep(e.actions[:0], now, sweepMax)
	e.rates.note(e.table, now)
	return e.actions, more
}
