package flow

// Apply takes one event in and appends to dst what it changed. now is in ns
// since the epoch and never goes back between calls.
func (t *Table) Apply(dst []Change, ev *Event, now int64) []Change {
	if ev.Kind == SyncEnd {
		return t.finishSync(dst, ev, now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(now)
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
func sameFlow(r *record, ev *Event) bool {
	return r.orig == ev.Orig && (ev.Has&HasID == 0 || r.id == ev.ID) &&
		(ev.Has&HasStart == 0 || !r.bits.has(stamped) || r.start == ev.Start)
}

func (t *Table) create(dst []Change, ev *Event, now int64) []Change {
	slot := t.slab.take()
	r := t.slab.at(slot)
	r.orig, r.id = ev.Orig, ev.ID
	r.setReply(&ev.Reply)
	r.start, r.seen = now, now
	if t.recent.has(t.index.hash(&r.orig), now) {
		r.set(heir)
	}
	if ev.Kind.whole() {
		r.packets, r.bytes = ev.Packets, ev.Bytes // of the time before it was known
	}
	t.absorb(r, ev, now)
	r.state = r.deriveState()
	if ev.Kind.whole() {
		t.adopt(r, ev, now)
	}
	r.round = t.round
	t.link(slot)
	t.enter(slot, t.look(r))
	t.stats.Created++
	if ev.Kind == Sample && t.synced && t.syncing {
		t.stats.Repaired++
	}
	t.gauge(r, +1)
	dst = append(dst, Change{Time: now, Kind: Created, Flow: t.flow(slot)})
	if r.path() != OffloadNone {
		t.stats.Offloads++
		dst = append(dst, Change{Time: now, Kind: Offloaded, Flow: t.flow(slot)})
	}
	if r.state == StateClosed {
		dst = t.candidate(dst, slot, now)
	}
	return dst
}

// adopt works out since when a flow has been silent that is older than what the
// table knows.
func (t *Table) adopt(r *record, ev *Event, now int64) {
	switch {
	case r.state == StateNew && r.orig.Proto == TCP && r.bits.has(stamped):
		// The clock that stamped it may have been set since: it is not ended at once.
		r.seen = max(min(now, r.start), now-t.lifetime(r)+2*second)
	case r.state == StateEstablished && ev.Has&HasTimeout != 0:
		r.seen = max(min(now, r.start), t.lastPacket(r, ev, t.given(r), now))
	}
}

func (t *Table) update(dst []Change, slot uint32, ev *Event, now int64) []Change {
	r := t.slab.at(slot)
	r.round = t.round
	state, path, mark, labels, expires, class := r.state, r.path(), r.mark, r.labels, r.expires, r.class()
	t.gauge(r, -1)
	alive := t.absorb(r, ev, now)
	r.state = r.deriveState()
	t.gauge(r, +1)

	if r.mark != mark || r.labels != labels {
		dst = append(dst, Change{Time: now, Kind: Marked, Flow: t.flow(slot)})
	}
	if r.state != state && r.state == StateEstablished {
		dst = append(dst, Change{Time: now, Kind: Established, Flow: t.flow(slot)})
	}
	switch p := r.path(); {
	case p == path:
	case p == OffloadNone:
		dst = append(dst, Change{Time: now, Kind: Onloaded, Flow: t.flow(slot)})
	default:
		if path == OffloadNone {
			t.stats.Offloads++
		}
		dst = append(dst, Change{Time: now, Kind: Offloaded, Flow: t.flow(slot)})
	}
	if r.state != state {
		dst = t.turned(dst, slot, state, now)
	}
	switch {
	case r.reason != ReasonNone:
	case r.bits.has(asked):
		if ev.Kind == Answer { // a dump may have shown it before it was asked for
			t.judge(slot, alive, now)
		}
	case r.expires < expires || r.path() != path:
		t.hasten(slot)
	}
	if r.class() != class {
		t.regroup(slot)
	}
	return dst
}

// turned is for a flow whose state is not what it was.
func (t *Table) turned(dst []Change, slot uint32, was State, now int64) []Change {
	r := t.slab.at(slot)
	if was == StateClosed {
		t.stats.Revived++
		r.clear(based)
	}
	if r.state == StateClosing {
		dst = append(dst, Change{Time: now, Kind: Closing, Flow: t.flow(slot)})
	}
	if r.state == StateClosed {
		return t.candidate(dst, slot, now)
	}
	if r.reason == ReasonNone && !r.bits.has(asked) {
		t.arm(slot, t.look(r))
	}
	return dst
}

// candidate makes a flow that has closed an eviction candidate. One in the flowtable
// is read now, and again when the closing packets must have come through: what its
// counters show after that is life.
func (t *Table) candidate(dst []Change, slot uint32, now int64) []Change {
	r := t.slab.at(slot)
	if r.reason == ReasonNone {
		t.unask(r)
		at := t.deadline(r)
		if r.offloaded() {
			t.ask(r, Read) // so that nothing of before the closing is taken for later
			at = min(at, now+settling)
		}
		t.arm(slot, at)
	}
	return append(dst, Change{Time: now, Kind: Candidate, Flow: t.flow(slot)})
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
	r := t.slab.at(slot)
	t.gauge(r, -1)
	t.absorb(r, ev, now)
	t.gauge(r, +1)
	reason := r.reason
	if reason == ReasonNone {
		reason = t.whyEnded(r, now)
	}
	return t.drop(dst, slot, reason, now)
}

// whyEnded finds the reason of an end that flowd did not ask for.
func (t *Table) whyEnded(r *record, now int64) Reason {
	switch {
	case r.state == StateClosed:
		return r.closedReason()
	case t.deadline(r) <= now+second, r.expires != 0 && t.expiry(r) <= now+second:
		return r.whyOver()
	}
	return ReasonKernel
}

// endOf names the end of a flow that flowd has asked for.
func endOf(why Reason) ChangeKind {
	switch why {
	case ReasonRecycled:
		return Recycled
	case ReasonIdle, ReasonHalfOpen:
		return Expired
	}
	return Evicted
}

func (t *Table) drop(dst []Change, slot uint32, reason Reason, now int64) []Change {
	r := t.slab.at(slot)
	kind := Expired
	if r.reason != ReasonNone {
		t.leaving--
		reason = r.reason
		kind = endOf(reason)
	} else if r.bits.has(expiring) {
		kind = Evicted
	}
	r.reason = reason
	dst = append(dst, Change{Time: now, Kind: kind, Reason: reason, Flow: t.flow(slot)})
	t.gauge(r, -1)
	t.unask(r)
	t.labels.drop(r.labels)
	t.stats.Ended[reason]++
	if r.orig.Proto == TCP && now < r.seen+tapDelay && r.tapState() != StateClosed {
		t.recent.add(t.index.hash(&r.orig), now)
	}
	t.unlink(slot)
	t.wheel.remove(slot)
	t.slab.put(slot)
	return dst
}

// sight takes in a FIN or RST that passed the tap: at ingress with the tuple of its
// direction, in the forward hook as it looks between the translations.
func (t *Table) sight(dst []Change, ev *Event, now int64) []Change {
	k, fin := ev.Orig, [2]bits{finOrig, finReply}
	slot, ok := t.lookup(&k)
	if !ok {
		k, fin = k.Reverse(), [2]bits{finReply, finOrig}
		if slot, ok = t.lookup(&k); !ok {
			return dst
		}
	}
	r := t.slab.at(slot)
	if r.bits.has(heir) && now < r.start+tapDelay {
		return dst
	}
	was, class := r.state, r.class()
	t.gauge(r, -1)
	switch {
	case ev.Kind == RST:
		r.set(rstSeen)
		t.timeRST(r, now)
	case r.orig == k:
		r.set(fin[0])
	default:
		r.set(fin[1])
	}
	r.clear(based)
	if state := r.deriveState(); state > was {
		r.state = state // one FIN opens nothing again: the other's sighting may be on its way
	}
	r.showed(now)
	t.gauge(r, +1)
	if r.state != was {
		dst = t.turned(dst, slot, was, now)
	}
	if r.class() != class {
		t.regroup(slot)
	}
	return dst
}

// Delete records that the kernel is being asked to delete this very connection,
// and why: its end will carry the reason that was given first. The next Sweep
// returns the request, and again until the flow is gone. It reports whether the
// flow is there still.
func (t *Table) Delete(h Handle, why Reason, now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.holds(h) {
		return false
	}
	t.unask(t.slab.at(h.slot))
	t.remove(h.slot, why, now)
	return true
}
