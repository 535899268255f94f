package flow

import (
	"slices"
	"testing"
)

// model is the table as one would write it without thought of speed: a list of
// flows that is searched from end to end.
type model struct {
	flows   []*modelFlow
	ended   []connection
	syncing bool
	synced  bool
	stats   Stats
}

// modelFlow is a flow and what was learnt of it, each thing in a field of its own.
type modelFlow struct {
	Flow                     // exported fields alone
	finOrig, finReply, reset bool
	timed                    bool // established, but with no more time than a RST left
	started                  bool // the kernel told when
	shown                    bool // since the last SyncStart
}

// holder returns the flow that has a tuple, as its original or reply one.
func (m *model) holder(k Key) *modelFlow {
	for _, f := range m.flows {
		if f.Orig == k || f.Reply == k {
			return f
		}
	}
	return nil
}

func (f *modelFlow) isOf(ev *Event) bool {
	return f != nil && f.Orig == ev.Orig && (ev.Has&HasID == 0 || f.ID == ev.ID) &&
		(ev.Has&HasStart == 0 || !f.started || f.Start == ev.Start)
}

func (m *model) remove(f *modelFlow, why Reason) {
	m.flows = slices.DeleteFunc(m.flows, func(g *modelFlow) bool { return g == f })
	m.stats.Ended[why]++
}

func (m *model) apply(ev *Event, now int64) {
	f := m.holder(ev.Orig)
	switch ev.Kind {
	case New, Update:
		m.observe(ev, now)
	case Sample, Answer:
		switch {
		case slices.Contains(m.ended, connection{ev.Orig, ev.ID}):
		case f.isOf(ev), ev.Kind == Sample && m.syncing && ev.Status&StatusDying == 0:
			m.observe(ev, now)
		}
	case Destroy:
		m.destroy(f, ev, now)
	case FIN, RST:
		if f == nil {
			return
		}
		f.reset = f.reset || ev.Kind == RST
		f.finOrig = f.finOrig || ev.Kind == FIN && f.Orig == ev.Orig
		f.finReply = f.finReply || ev.Kind == FIN && f.Orig != ev.Orig
		f.Seen = now
		f.conclude()
	case SyncStart:
		m.syncing = true
		for _, f := range m.flows {
			f.shown = false
		}
	case SyncEnd:
		m.endSync(ev)
	}
}

func (m *model) endSync(ev *Event) {
	m.syncing, m.ended = false, nil
	if ev.Has&Partial != 0 {
		m.stats.SyncsFailed++
		return
	}
	for _, f := range slices.Clone(m.flows) {
		if !f.shown {
			why := f.Reason
			if why == ReasonNone {
				why = ReasonLost
			}
			m.remove(f, why)
			if m.synced {
				m.stats.Repaired++
			}
		}
	}
	m.synced = true
	m.stats.Syncs++
}

func (m *model) observe(ev *Event, now int64) {
	f := m.holder(ev.Orig)
	if f != nil && !f.isOf(ev) {
		m.remove(f, ReasonLost)
		f = nil
	}
	if f == nil {
		if ev.Has&HasReply == 0 {
			return
		}
		if other := m.holder(ev.Reply); other != nil {
			m.remove(other, ReasonLost)
		}
		f = &modelFlow{Flow: Flow{Orig: ev.Orig, Reply: ev.Reply, ID: ev.ID, Start: now, Seen: now}}
		m.flows = append(m.flows, f)
		m.stats.Created++
		if m.syncing && m.synced && ev.Kind == Sample {
			m.stats.Repaired++
		}
	}
	slow := f.Offload() == OffloadNone
	if ev.Has&HasTCP != 0 && tcpState(ev.TCP) <= StateEstablished {
		f.finOrig, f.finReply, f.reset = false, false, false
		f.timed = f.looksReset(ev, now)
	}
	f.learn(ev, now)
	if slow && f.Offload() != OffloadNone {
		m.stats.Offloads++
	}
	f.shown = true
	f.conclude()
}

// looksReset tells whether what was established has suddenly no more time than a
// RST leaves; time that only went by does not count.
func (f *modelFlow) looksReset(ev *Event, now int64) bool {
	if ev.TCP != TCPEstablished || ev.Has&HasTimeout == 0 || ev.Timeout > 10 {
		return false
	}
	end := int64(uint32(now/second) + ev.Timeout)
	old := int64(f.Expires)
	switch {
	case f.Status&StatusOffload != 0:
		return true
	case old != 0 && end < old-2:
		return true
	}
	return f.timed && end <= old+2
}

// learn takes over what an event has; a Sample has everything.
func (f *modelFlow) learn(ev *Event, now int64) {
	whole := ev.Kind == Sample || ev.Kind == Answer
	set := func(has Has) bool { return ev.Has&has != 0 }
	if set(HasStatus) {
		f.Status = ev.Status
	}
	if set(HasMark) || whole {
		f.Mark = ev.Mark
	}
	if set(HasLabels) || whole {
		f.Labels = ev.Labels
	}
	if set(HasTimeout) {
		f.Expires = uint32(now/second) + ev.Timeout
	} else if whole {
		f.Expires = 0
	}
	if set(HasStart) {
		f.Start, f.started = ev.Start, true
	}
	if set(HasTCP) {
		f.TCP = ev.TCP
	}
	moved := false
	for d := range 2 {
		if set(HasCounters) && ev.Packets[d] > f.Packets[d] {
			f.Packets[d], f.Bytes[d] = ev.Packets[d], ev.Bytes[d]
			moved = true
		}
	}
	if moved || !whole {
		f.Seen = now
	}
}

// conclude derives the state.
func (f *modelFlow) conclude() {
	switch {
	case f.Orig.Proto == TCP && f.Status&StatusOffload != 0:
		switch {
		case f.reset, f.finOrig && f.finReply:
			f.State = StateClosed
		case f.finOrig, f.finReply:
			f.State = StateClosing
		default:
			f.State = StateEstablished
		}
	case f.Orig.Proto == TCP && f.TCP == TCPEstablished && f.timed:
		f.State = StateClosed
	case f.Orig.Proto == TCP && f.TCP != TCPNone:
		f.State = tcpState(f.TCP)
	case f.Status&StatusSeenReply != 0:
		f.State = StateEstablished
	default:
		f.State = StateNew
	}
	f.Candidate = f.State == StateClosed
}

func (m *model) destroy(f *modelFlow, ev *Event, now int64) {
	if m.syncing {
		m.ended = append(m.ended, connection{ev.Orig, ev.ID})
	}
	if !f.isOf(ev) {
		return
	}
	f.learn(ev, now)
	why := ReasonKernel
	switch {
	case f.Reason != ReasonNone:
		why = f.Reason
	case f.State == StateClosed && (f.reset || f.timed || f.TCP == TCPClose && !(f.finOrig && f.finReply)):
		why = ReasonReset
	case f.State == StateClosed:
		why = ReasonClosed
	case f.Expires != 0 && int64(f.Expires)-now/second <= 1:
		why = ReasonIdle
	}
	m.remove(f, why)
}

// public returns a flow as those see it who read the table.
func public(f Flow) Flow {
	f.sync, f.closed, f.stamped = 0, 0, false
	return f
}

// replay is the table as a watcher knows it, who sees the changes alone.
type replay map[Key]Flow

func (w replay) apply(t testing.TB, changes []Change) {
	t.Helper()
	for i := range changes {
		c := &changes[i]
		old, there := w[c.Flow.Orig]
		switch {
		case c.Kind == Created && there:
			t.Fatalf("%v created twice", c.Flow.Orig)
		case c.Kind != Created && !there:
			t.Fatalf("%v of a flow that was never created: %v", c.Kind, c.Flow.Orig)
		case there && (old.ID != c.Flow.ID || old.Reply != c.Flow.Reply):
			t.Fatalf("%v: flow %v became another connection", c.Kind, c.Flow.Orig)
		case c.Kind.Ends() != (c.Reason != ReasonNone), c.Kind.Ends() && c.Flow.Reason != c.Reason:
			t.Fatalf("%v with reason %v, the record's is %v", c.Kind, c.Reason, c.Flow.Reason)
		case c.Kind == Candidate && !c.Flow.Candidate:
			t.Fatalf("candidate of a flow that is none: %+v", c.Flow)
		}
		if c.Kind.Ends() {
			delete(w, c.Flow.Orig)
			continue
		}
		w[c.Flow.Orig] = c.Flow
	}
}

// matches fails unless the watcher knows the flow as it is. That a flow falls
// back to half-open is no change.
func (w replay) matches(t testing.TB, f *Flow) {
	t.Helper()
	g, ok := w[f.Orig]
	if !ok {
		t.Fatalf("a watcher does not know %v", f.Orig)
	}
	if g.Mark != f.Mark || g.Labels != f.Labels || g.Offload() != f.Offload() {
		t.Fatalf("a watcher knows mark %d labels %x offload %v; they are %d %x %v",
			g.Mark, g.Labels, g.Offload(), f.Mark, f.Labels, f.Offload())
	}
	if f.State != StateNew && (g.State != f.State || g.Candidate != f.Candidate) {
		t.Fatalf("a watcher knows state %v candidate %v; they are %v %v", g.State, g.Candidate, f.State, f.Candidate)
	}
}
