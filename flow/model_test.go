package flow

import "slices"

// model is the table as one would write it without thought of speed: a list of
// flows that is searched from end to end. It has no wheel and judges nothing: what
// the table asks for is held against what the model knows (judge_test.go).
type model struct {
	flows   []*modelFlow
	ended   []connection
	syncing bool
	synced  bool
	stats   Stats
	ages    *ages
	early   func(*modelFlow) bool // whether the kernel ends this flow before its time
}

// modelFlow is a flow and what was learnt of it, each thing in a field of its own.
type modelFlow struct {
	Flow                     // but for what the wheel and the judge go by
	finOrig, finReply, reset bool
	timed                    bool // established, but with no more time than a RST left
	sped                     bool // in the flowtable since its packets were last counted
	heir                     bool // its tuple had just been another's
	settled                  bool // a candidate's closing packets are counted
	expires                  int64
	shown                    int64 // ns: it has had a packet then, or later
	asked                    int64 // ns: when its counters were last asked for
	started                  bool  // the kernel told when
	dumped                   bool  // since the last SyncStart
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
	if f.Reason != ReasonNone {
		why = f.Reason // what was asked for counts, however its end is found
	}
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
		m.sight(f, ev, now)
	case SyncStart:
		m.syncing = true
		for _, f := range m.flows {
			f.dumped = false
		}
	case SyncEnd:
		m.endSync(ev)
	}
}

// sight takes in what the tap has seen, of a packet before translation or between two.
func (m *model) sight(f *modelFlow, ev *Event, now int64) {
	reply := f != nil && f.Orig != ev.Orig
	if f == nil {
		back := ev.Orig.Reverse()
		if f = m.holder(back); f == nil {
			return
		}
		reply = f.Orig == back
	}
	if f.heir && now < f.Start+tapDelay {
		return
	}
	f.reset = f.reset || ev.Kind == RST
	if ev.Kind == RST && f.TCP == TCPEstablished && f.Status&StatusOffload == 0 && !m.alwaysShort(f) {
		// Its RST may have been what it was seen to have so little time of.
		f.timed = f.timed || f.expires != 0 && f.expires <= now+11*second
	}
	f.finOrig = f.finOrig || ev.Kind == FIN && !reply
	f.finReply = f.finReply || ev.Kind == FIN && reply
	if f.derive() > f.State {
		m.conclude(f)
	}
	f.showed(now)
}

func (m *model) endSync(ev *Event) {
	m.syncing, m.ended = false, nil
	if ev.Has&Partial != 0 {
		m.stats.SyncsFailed++
		return
	}
	for _, f := range slices.Clone(m.flows) {
		if !f.dumped {
			m.remove(f, ReasonLost)
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
		f = m.create(ev, now)
		if ev.Kind.whole() {
			defer func() { f.shown = 0 }() // it may be silent for long
		}
	}
	slow := f.Offload() == OffloadNone
	if ev.Has&HasTCP != 0 && tcpState(ev.TCP) <= StateEstablished && !ev.commanded() {
		f.timed = m.looksReset(f, ev, now)
		f.finOrig, f.finReply, f.reset = false, false, false
	}
	if ev.Has&HasTCP != 0 && ev.Kind == Update && ev.TCP == TCPClose && ev.Status&StatusOffload != 0 && ev.Has&Commanded == 0 {
		f.reset = true
	}
	m.learn(f, ev, now)
	if slow && f.Offload() != OffloadNone {
		m.stats.Offloads++
	}
	f.dumped = true
	m.conclude(f)
}

func (m *model) create(ev *Event, now int64) *modelFlow {
	f := &modelFlow{Flow: Flow{Orig: ev.Orig, Reply: ev.Reply, ID: ev.ID, Start: now}, shown: now}
	if ev.Kind.whole() {
		f.Packets, f.Bytes = ev.Packets, ev.Bytes
	}
	m.flows = append(m.flows, f)
	m.stats.Created++
	if m.syncing && m.synced && ev.Kind == Sample {
		m.stats.Repaired++
	}
	return f
}

// alwaysShort tells whether it never has more time than a RST leaves.
func (m *model) alwaysShort(f *modelFlow) bool {
	return m.ages.Lifetime(TCP, f.Orig.DstPort, StateEstablished) <= 10*second
}

// looksReset tells whether what was established has suddenly no more time than a
// RST leaves; time that only went by does not count, and neither does a policy that
// gives no more.
func (m *model) looksReset(f *modelFlow, ev *Event, now int64) bool {
	if ev.TCP != TCPEstablished || ev.Has&HasTimeout == 0 || ev.Timeout > 10 || m.alwaysShort(f) {
		return false
	}
	end := now + int64(ev.Timeout)*second
	switch isRead := ev.Kind == Sample || ev.Kind == Answer; {
	case f.Status&StatusOffload != 0 && (f.reset || !isRead):
		return true // it had none in the flowtable: that is new
	case f.expires != 0 && end < f.expires-2*second:
		return true
	}
	return f.timed && end <= f.expires+2*second
}

// learn takes over what an event has; a Sample has everything.
func (m *model) learn(f *modelFlow, ev *Event, now int64) {
	whole := ev.Kind == Sample || ev.Kind == Answer
	set := func(has Has) bool { return ev.Has&has != 0 }
	was := f.Status
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
		f.expires = now + int64(ev.Timeout)*second
	} else if whole {
		f.expires = 0
	}
	if set(HasStart) {
		f.Start, f.started = ev.Start, true
	}
	if set(HasTCP) {
		f.TCP = ev.TCP
	}
	moved := m.count(f, ev)
	if ev.Kind == Destroy {
		return
	}
	offloaded := f.Status&StatusOffload != 0
	if whole && moved == 2 && f.settled && offloaded {
		f.finOrig, f.finReply, f.reset, f.timed = false, false, false, false
	}
	switch {
	case !whole && !ev.commanded():
		f.showed(now)
	case whole && offloaded && (moved > 0 || !set(HasCounters)):
		f.showed(now)
	case whole && !offloaded && was&StatusOffload != 0:
		f.shown = 0 // the time left tells when its last packet was
	}
}

// count returns in how many directions there were packets.
func (m *model) count(f *modelFlow, ev *Event) (moved int) {
	f.sped = f.sped || f.Status&StatusOffload != 0
	if ev.Has&HasCounters == 0 {
		return 0
	}
	if ev.Kind.whole() && (ev.Packets[0] < f.Packets[0] || ev.Packets[1] < f.Packets[1]) {
		f.Packets, f.Bytes, f.settled = ev.Packets, ev.Bytes, false
		return 2
	}
	for d := range 2 {
		if ev.Packets[d] > f.Packets[d] {
			m.stats.Packets += ev.Packets[d] - f.Packets[d]
			if f.sped {
				m.stats.OffloadedPackets += ev.Packets[d] - f.Packets[d]
			}
			f.Packets[d], f.Bytes[d] = ev.Packets[d], ev.Bytes[d]
			moved++
		}
	}
	f.sped = f.sped && f.Status&StatusOffload != 0
	return moved
}

// showed is for a packet now; a handshake has its time from its first on.
func (f *modelFlow) showed(now int64) {
	if f.Orig.Proto != TCP || f.derive() != StateNew {
		f.shown = now
	}
}

// conclude takes the state that follows from what was learnt.
func (m *model) conclude(f *modelFlow) {
	was := f.State
	f.State = f.derive()
	f.Candidate = f.State == StateClosed
	if was == StateClosed && !f.Candidate {
		m.stats.Revived++
	}
}

func (f *modelFlow) derive() State {
	tap := StateEstablished
	switch {
	case f.reset, f.finOrig && f.finReply:
		tap = StateClosed
	case f.finOrig, f.finReply:
		tap = StateClosing
	}
	switch {
	case f.Orig.Proto == TCP && f.Status&StatusOffload != 0:
		return tap
	case f.Orig.Proto == TCP && f.TCP == TCPEstablished && f.timed:
		return StateClosed
	case f.Orig.Proto == TCP && (f.TCP == TCPTimeWait || f.TCP == TCPClose) && tap == StateClosing:
		return StateClosing
	case f.Orig.Proto == TCP && f.TCP != TCPNone:
		return tcpState(f.TCP)
	case f.Status&StatusSeenReply != 0:
		return StateEstablished
	}
	return StateNew
}

func (m *model) destroy(f *modelFlow, ev *Event, now int64) {
	if m.syncing {
		m.ended = append(m.ended, connection{ev.Orig, ev.ID})
	}
	if !f.isOf(ev) {
		return
	}
	m.learn(f, ev, now)
	why := f.Reason
	switch {
	case why != ReasonNone:
	case f.Candidate:
		why = f.closedReason()
	case m.early(f):
		why = ReasonKernel
	default:
		why = f.overReason()
	}
	m.remove(f, why)
}

func (f *modelFlow) closedReason() Reason {
	if !(f.finOrig && f.finReply) && (f.reset || f.timed || f.TCP == TCPClose) {
		return ReasonReset
	}
	return ReasonClosed
}

// overReason is the reason of an end by silence.
func (f *modelFlow) overReason() Reason {
	switch f.State {
	case StateClosed:
		return f.closedReason()
	case StateNew:
		return ReasonHalfOpen
	}
	return ReasonIdle
}
