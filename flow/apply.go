package flow

// Apply takes one event in and appends to dst what it changed. now is in ns
// since the epoch and never goes back between calls.
func (t *Table) Apply(dst []Change, ev *Event, now int64) []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch ev.Kind {
	case New, Update:
		return t.see(dst, ev, now)
	case Sample:
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
	case SyncEnd:
		return t.finishSync(dst, ev, now)
	}
	return dst
}

// outdated tells whether a Sample shows a connection that has ended since. A
// dump may show what ended while it ran, and what is just being deleted (the
// kernel sends the Destroy event first: nf_ct_delete, nf_conntrack_core.c). A
// single read is made of known flows alone: what it shows and the table does
// not have ended before the answer came.
func (t *Table) outdated(ev *Event) bool {
	if _, over := t.ended[connection{ev.Orig, ev.ID}]; over {
		return true
	}
	if t.syncing && ev.Status&StatusDying == 0 {
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

// sameFlow tells whether the event is of this very connection: conntrack gives
// a new id to the next connection on the same tuple.
func sameFlow(f *Flow, ev *Event) bool {
	return f.Orig == ev.Orig && (ev.Has&HasID == 0 || f.ID == ev.ID)
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
	if ev.Has&HasStatus != 0 {
		f.Status = ev.Status
	}
	if ev.Has&HasMark != 0 || ev.Kind == Sample {
		f.Mark = ev.Mark
	}
	if ev.Has&HasLabels != 0 || ev.Kind == Sample {
		f.Labels = ev.Labels
	}
	if ev.Has&HasTimeout != 0 {
		f.Expires = uint32(now/1e9) + ev.Timeout
	} else if ev.Kind == Sample {
		f.Expires = 0
	}
	if ev.Has&HasStart != 0 {
		f.Start = ev.Start
	}
	if ev.Has&HasTCP != 0 {
		f.absorbTCP(ev)
	}
	if ev.Kind != Sample {
		f.Seen = now
	}
	for d := range f.Packets {
		if ev.Has&HasCounters != 0 && ev.Packets[d] > f.Packets[d] {
			f.Packets[d], f.Bytes[d] = ev.Packets[d], ev.Bytes[d]
			f.Seen = now
		}
	}
}

// rstTimeout is the timeout in seconds of a connection that a RST has closed
// (tcp_timeouts[TCP_CONNTRACK_CLOSE], nf_conntrack_proto_tcp.c).
const rstTimeout = 10

// absorbTCP takes over conntrack's word on a connection of the slow path. There
// is a RST that it does not call CLOSE: coming back from the flowtable it does
// not know the sequence numbers any more, and a RST that does not match the last
// one it saw leaves the state, but not the timeout (nf_conntrack_tcp_packet).
// Should it live nevertheless, its next packet restores the timeout.
func (f *Flow) absorbTCP(ev *Event) {
	f.TCP = ev.TCP
	if ev.Kind == Destroy || ev.TCP > TCPEstablished && ev.TCP != TCPSynSent2 {
		return
	}
	f.closed = 0 // it lives
	if ev.TCP == TCPEstablished && ev.Has&HasTimeout != 0 && ev.Timeout <= rstTimeout {
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

// finishSync ends a dump: what it did not show, and no event since, is gone.
func (t *Table) finishSync(dst []Change, ev *Event, now int64) []Change {
	t.syncing = false
	clear(t.ended)
	if ev.Has&Partial != 0 {
		t.stats.SyncsFailed++
		return dst
	}
	for slot := range t.slab.next {
		if t.slab.used(slot) && t.slab.at(slot).sync != t.round {
			if t.synced {
				t.stats.Repaired++
			}
			dst = t.drop(dst, slot, ReasonLost, now)
		}
	}
	t.synced = true
	t.stats.Syncs++
	return dst
}
