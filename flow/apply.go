package flow

// Apply takes one event in and appends to dst what it changed. now is in ns
// since the epoch and never goes back between calls.
func (t *Table) Apply(dst []Change, ev *Event, now int64) []Change {
	if ev.Kind == SyncEnd {
		return t.finishSync(dst, ev, now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch ev.Kind {
	case New, Update:
		return t.see(dst, ev, now)
	case Sample, Answer:
		if t.outdated(ev) {
			return dst
		}
		return t.see(dst, ev, now)
	case Destroy:
		return t.end(dst, ev, now)
	case FIN, RST:
		return t.sight(dst, ev, now)
	case SyncStart:
		t.round++
		t.syncing = true
	}
	return dst
}

// outdated tells whether a Sample or Answer shows a connection that has ended
// since. A dump may show what ended while it ran, and what is just being deleted
// (the kernel sends the Destroy event first: nf_ct_delete, nf_conntrack_core.c).
func (t *Table) outdated(ev *Event) bool {
	if _, over := t.ended[connection{ev.Orig, ev.ID}]; over {
		return true
	}
	if ev.Kind == Sample && t.syncing && ev.Status&StatusDying == 0 {
		return false
	}
	slot, ok := t.lookup(&ev.Orig)
	return !ok || !sameFlow(t.slab.at(slot), ev)
}

// see enters or updates the flow of an event.
func (t *Table) see(dst []Change, ev *Event, now int64) []Change {
	slot, ok := t.lookup(&ev.Orig)
	if ok && !sameFlow(t.slab.at(slot), ev) {
		dst = t.drop(dst, slot, ReasonLost, now)
		ok = false
	}
	if ok {
		return t.update(dst, slot, ev, now)
	}
	if ev.Has&HasReply == 0 {
		return dst // nothing to key it by
	}
	if other, taken := t.lookup(&ev.Reply); taken {
		// conntrack keeps every tuple once: the flow that had this one is over.
		dst = t.drop(dst, other, ReasonLost, now)
	}
	return t.create(dst, ev, now)
}

// sameFlow tells whether the event is of this very connection. conntrack gives a
// new id to the next connection on the same tuple, unless that lands at the same
// address in memory (nf_ct_get_id hashes it): then the start differs.
func sameFlow(f *Flow, ev *Event) bool {
	return f.Orig == ev.Orig && (ev.Has&HasID == 0 || f.ID == ev.ID) &&
		(ev.Has&HasStart == 0 || !f.stamped || f.Start == ev.Start)
}

func (t *Table) create(dst []Change, ev *Event, now int64) []Change {
	slot := t.slab.take()
	f := t.slab.at(slot)
	f.Orig, f.Reply, f.ID = ev.Orig, ev.Reply, ev.ID
	f.Start, f.Seen = now, now
	f.absorb(ev, now)
	f.State = f.deriveState()
	f.sync = t.round
	t.link(slot)
	t.stats.Created++
	if ev.Kind == Sample && t.synced && t.syncing {
		t.stats.Repaired++
	}
	t.gauge(f, +1)
	dst = append(dst, Change{Time: now, Kind: Created, Flow: *f})
	if f.Offload() != OffloadNone {
		t.stats.Offloads++
		dst = append(dst, Change{Time: now, Kind: Offloaded, Flow: *f})
	}
	return t.reviewCandidate(dst, f, now)
}

func (t *Table) update(dst []Change, slot uint32, ev *Event, now int64) []Change {
	f := t.slab.at(slot)
	f.sync = t.round
	state, offload, mark, labels := f.State, f.Offload(), f.Mark, f.Labels
	t.gauge(f, -1)
	f.absorb(ev, now)
	f.State = f.deriveState()
	f.Candidate = f.Candidate && f.State == StateClosed
	t.gauge(f, +1)

	if f.Mark != mark || f.Labels != labels {
		dst = append(dst, Change{Time: now, Kind: Marked, Flow: *f})
	}
	if f.State != state && f.State == StateEstablished {
		dst = append(dst, Change{Time: now, Kind: Established, Flow: *f})
	}
	switch o := f.Offload(); {
	case o == offload:
	case o == OffloadNone:
		dst = append(dst, Change{Time: now, Kind: Onloaded, Flow: *f})
	default:
		if offload == OffloadNone {
			t.stats.Offloads++
		}
		dst = append(dst, Change{Time: now, Kind: Offloaded, Flow: *f})
	}
	if f.State != state && f.State == StateClosing {
		dst = append(dst, Change{Time: now, Kind: Closing, Flow: *f})
	}
	return t.reviewCandidate(dst, f, now)
}

// reviewCandidate makes a flow that has closed an eviction candidate.
func (t *Table) reviewCandidate(dst []Change, f *Flow, now int64) []Change {
	if f.State != StateClosed || f.Candidate {
		return dst
	}
	f.Candidate = true
	t.stats.Candidates++
	return append(dst, Change{Time: now, Kind: Candidate, Flow: *f})
}

// absorb takes over what the event says. A dump shows an entry whole, so what is
// absent there is zero; an event names only what changed.
func (f *Flow) absorb(ev *Event, now int64) {
	if ev.Has&HasTCP != 0 {
		f.absorbTCP(ev, now)
	}
	if ev.Has&HasStatus != 0 {
		f.Status = ev.Status
	}
	if ev.Has&HasMark != 0 || ev.Kind.whole() {
		f.Mark = ev.Mark
	}
	if ev.Has&HasLabels != 0 || ev.Kind.whole() {
		f.Labels = ev.Labels
	}
	if ev.Has&HasTimeout != 0 {
		f.Expires = ev.expires(now)
	} else if ev.Kind.whole() {
		f.Expires = 0
	}
	if ev.Has&HasStart != 0 {
		f.Start, f.stamped = ev.Start, true
	}
	if !ev.Kind.whole() {
		f.Seen = now
	}
	for d := range f.Packets {
		if ev.Has&HasCounters != 0 && ev.Packets[d] > f.Packets[d] {
			f.Packets[d], f.Bytes[d] = ev.Packets[d], ev.Bytes[d]
			f.Seen = now
		}
	}
}

// expires is when the timeout of an event is over, in s since the epoch.
func (ev *Event) expires(now int64) uint32 { return uint32(now/1e9) + ev.Timeout }

// rstTimeout is the timeout in seconds of a connection that a RST has closed
// (tcp_timeouts[TCP_CONNTRACK_CLOSE], nf_conntrack_proto_tcp.c).
const rstTimeout = 10

// absorbTCP takes over conntrack's word on a connection of the slow path, before
// status and expiry are.
//
// There is a RST that conntrack does not call CLOSE: when a connection comes back
// from the flowtable conntrack does not know its sequence numbers any more, and a
// RST that does not match the last one it saw leaves the state established, but
// has the timeout of CLOSE (nf_conntrack_tcp_packet). So an expiry that came
// closer, which ageing never brings about, down to that timeout stands for a RST,
// until a packet moves it away again.
func (f *Flow) absorbTCP(ev *Event, now int64) {
	f.TCP = ev.TCP
	if ev.Kind == Destroy || ev.TCP > TCPEstablished && ev.TCP != TCPSynSent2 {
		return
	}
	was := f.closed
	f.closed = 0 // it lives
	if ev.TCP != TCPEstablished || ev.Has&HasTimeout == 0 || ev.Timeout > rstTimeout {
		return
	}
	const slack = 2 // s: both are rounded
	expires := ev.expires(now)
	closer := f.Expires != 0 && expires+slack < f.Expires || f.Status&StatusOffload != 0
	if closer || was&rstTimed != 0 && expires <= f.Expires+slack {
		f.closed = rstTimed
	}
}

// end removes the flow of a Destroy event. One that names another id is
// of an earlier connection on the same tuple.
func (t *Table) end(dst []Change, ev *Event, now int64) []Change {
	if t.syncing {
		t.ended[connection{ev.Orig, ev.ID}] = struct{}{}
	}
	slot, ok := t.lookup(&ev.Orig)
	if !ok || !sameFlow(t.slab.at(slot), ev) {
		return dst
	}
	f := t.slab.at(slot)
	seen := f.Seen
	t.gauge(f, -1)
	f.absorb(ev, now)
	t.gauge(f, +1)
	f.Seen = seen
	reason := f.Reason
	if reason == ReasonNone {
		reason = f.whyEnded(now)
	}
	return t.drop(dst, slot, reason, now)
}

// whyEnded finds the reason of an end that flowd did not ask for.
func (f *Flow) whyEnded(now int64) Reason {
	switch {
	case f.State == StateClosed:
		return f.ClosedReason()
	case f.Expires != 0 && int64(f.Expires) <= now/1e9+1:
		return ReasonIdle
	}
	return ReasonKernel
}

func (t *Table) drop(dst []Change, slot uint32, reason Reason, now int64) []Change {
	f := t.slab.at(slot)
	kind := Expired
	if f.Reason != ReasonNone && f.Reason == reason {
		kind = Evicted
	}
	f.Reason = reason
	dst = append(dst, Change{Time: now, Kind: kind, Reason: reason, Flow: *f})
	t.gauge(f, -1)
	t.stats.Ended[reason]++
	t.unlink(slot)
	t.slab.put(slot)
	return dst
}

// sight takes in a FIN or RST that passed the tap.
func (t *Table) sight(dst []Change, ev *Event, now int64) []Change {
	slot, ok := t.lookup(&ev.Orig)
	if !ok {
		return dst
	}
	f := t.slab.at(slot)
	was := f.State
	switch {
	case ev.Kind == RST:
		f.closed |= rstSeen
	case f.Orig == ev.Orig:
		f.closed |= finOrig
	default:
		f.closed |= finReply
	}
	f.Seen = now
	f.State = f.deriveState()
	if f.State != was && f.State == StateClosing {
		dst = append(dst, Change{Time: now, Kind: Closing, Flow: *f})
	}
	return t.reviewCandidate(dst, f, now)
}

// Delete records that the kernel is being asked to delete this very connection,
// and why: its end will carry the reason that was given first. It reports
// whether the connection is there.
func (t *Table) Delete(orig Key, id uint32, why Reason) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot, ok := t.lookup(&orig)
	if !ok || t.slab.at(slot).ID != id {
		return false
	}
	if f := t.slab.at(slot); f.Reason == ReasonNone {
		f.Reason = why
	}
	return true
}

// finishStretch slots are looked through under one lock at the end of a dump.
const finishStretch = 4096

// finishSync ends a dump: what it did not show, and no event since, is gone.
func (t *Table) finishSync(dst []Change, ev *Event, now int64) []Change {
	whole := ev.Has&Partial == 0
	for from := uint32(0); whole && from < t.slab.next; from += finishStretch {
		dst = t.dropUnseen(dst, from, min(from+finishStretch, t.slab.next), now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.syncing = false
	clear(t.ended)
	if !whole {
		t.stats.SyncsFailed++
		return dst
	}
	t.synced = true
	t.stats.Syncs++
	return dst
}

// dropUnseen ends the flows of some slots that the present round has not shown.
func (t *Table) dropUnseen(dst []Change, from, to uint32, now int64) []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot := from; slot < to; slot++ {
		if !t.slab.used(slot) || t.slab.at(slot).sync == t.round {
			continue
		}
		why := t.slab.at(slot).Reason
		if why == ReasonNone {
			why = ReasonLost
		}
		if t.synced {
			t.stats.Repaired++
		}
		dst = t.drop(dst, slot, why, now)
	}
	return dst
}
