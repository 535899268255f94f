package flow

// second is one in the table's time.
const second = int64(1e9)

const (
	// retry is how long after a request the flow is looked at again: a request that
	// came to nothing is made anew.
	retry = second
	// poll is how often the counters are read of an offloaded flow whose lifetime is
	// shorter than the flowtable's timeout: it bounds by how much it outlives it.
	poll = 3 * second / 4
	// margin is how long before the kernel lets go of a flow it is given more time.
	margin = 3 * second
	// settling is how long after the closing packets a candidate's counters are read
	// for the first time: what it shows later is life.
	settling = second
	// halfClosed is how often a half-closed flow in the flowtable is looked at.
	// Kernels that hide the FIN give it 10 s after it left (TCP_CONNTRACK_CLOSE).
	halfClosed = 7 * second
)

// lifetime is how long a flow may show no packet, in ns, as full as the table is.
func (t *Table) lifetime(r *record) int64 {
	life := t.ageing.Lifetime(r.orig.Proto, r.port(), r.state)
	if r.state == StateClosed {
		return life
	}
	if own := int64(r.life) * second; own > 0 && (r.state != StateNew || own < life) {
		life = own
	}
	return t.pressure.shorten(life)
}

// deadline is when a flow's life is over, if it has shown no packet since.
func (t *Table) deadline(r *record) int64 {
	at := r.seen + t.lifetime(r)
	if r.bits.has(estimated) {
		at += second + eighth
	}
	return at
}

// look is when a flow must be looked at next: when its life may be over, or when
// the kernel may end it before. What is known of its packets is an upper bound
// while it is in the flowtable, whose packets conntrack does not see.
func (t *Table) look(r *record) int64 {
	at := t.deadline(r)
	switch {
	case r.state == StateClosed:
		if t.letsExpire(r, at) {
			at -= second
		}
		return at
	case !r.offloaded():
		if e := t.expiry(r); t.endsEarly(r, e, at) {
			return e - margin
		}
		return at
	}
	idle, whole := t.timers.of(r.orig.Proto)
	switch life := at - r.seen; {
	case life < idle+2*second:
		at = r.seen + min(life, poll)
	default:
		// Its last packet may have come up to idle before it was seen to have come.
		at -= idle
		if whole < life {
			at = min(at, r.seen+max(whole-idle-margin, poll))
		}
	}
	if r.state == StateClosing {
		at = min(at, r.seen+halfClosed)
	}
	return at
}

// of returns, in ns, how long the flowtable keeps a silent flow, and how long it
// and conntrack keep it together.
func (k *KernelTimers) of(p Proto) (idle, whole int64) {
	flow, all := k.FlowTCP, k.Established
	if p != TCP {
		flow, all = k.FlowUDP, k.UDPStream
	}
	return int64(flow) * second, int64(max(flow, all)) * second
}

// endsEarly tells whether the kernel lets go of a flow before its life is over. What
// conntrack takes for closed both ways is the kernel's to end.
func (t *Table) endsEarly(r *record, expiry, deadline int64) bool {
	switch {
	case r.expires == 0, Status(r.status)&StatusFixedTimeout != 0, r.tcp == TCPLastAck, r.tcp == TCPTimeWait,
		r.orig.Proto == SCTP, r.orig.Proto == DCCP: // they may have shut down: their states are not known
		return false
	}
	return expiry+second+eighth < deadline
}

// eighth is the unit of record.expires, in ns.
const eighth = second / 8

// expiry is when the kernel lets go of a flow, in ns since the epoch.
func (t *Table) expiry(r *record) int64 { return t.epoch + int64(r.expires)*eighth }

// class says in which order flows go when room is needed.
func (r *record) class() class {
	switch {
	case r.reason != ReasonNone, r.bits.has(pressed):
		return classAsked
	case r.state == StateClosed && !r.unsettled():
		return classCandidate // not by the tap's word alone: that may be forged
	case r.state == StateNew:
		return classHalfOpen
	}
	return classLive
}

// unsettled tells whether a flow is closed by the tap's word alone, and its counters
// have not been read since the closing packets must have come through.
func (r *record) unsettled() bool {
	return r.state == StateClosed && r.offloaded() && !r.bits.has(based)
}

// tickAt is the first tick at which a time has come. The wheel turns once in 18 years:
// what lies farther ahead waits for nine.
func (t *Table) tickAt(at int64) uint32 {
	at = min(max(at-t.epoch, 0), int64(1)<<(tickShift+31))
	return uint32((at + tick - 1) >> tickShift)
}

// arm has a flow looked at then. It is in the wheel already.
func (t *Table) arm(slot uint32, at int64) {
	t.wheel.remove(slot)
	t.enter(slot, at)
}

// regroup is for a flow whose class has become another one.
func (t *Table) regroup(slot uint32) {
	r := t.slab.at(slot)
	t.wheel.remove(slot)
	t.wheel.insert(slot, r.class(), r.armed)
}

// hasten has a flow looked at earlier, if it must be and is not asked for already.
func (t *Table) hasten(slot uint32) {
	r := t.slab.at(slot)
	if r.reason != ReasonNone || r.bits.has(asked) {
		return
	}
	if at := t.look(r); int32(t.tickAt(at)-r.armed) < 0 {
		t.arm(slot, at)
	}
}

// enter is arm for a flow that is not in the wheel.
func (t *Table) enter(slot uint32, at int64) {
	due := t.tickAt(at)
	if int32(due-t.wheel.now) <= 0 {
		due = t.wheel.now + 1
	}
	t.wheel.insert(slot, t.slab.at(slot).class(), due)
}

// Sweep looks at flows whose time has come, some max of them at the most, and
// appends what the kernel is to be asked. It reports whether there is more to do.
//
// Nothing is taken for idle by what the table knows alone: the kernel is asked
// first, and the answer, which comes by Apply, decides.
func (t *Table) Sweep(dst []Action, now int64, max int) (_ []Action, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(now)
	budget := max
	to := uint32((now - t.epoch) >> tickShift)
	for {
		slot, ok := t.wheel.pop(to, &budget)
		if !ok {
			break
		}
		t.visit(slot, now)
	}
	t.stats.WheelLag = int64(to-t.wheel.now) * tick
	t.pressure.measure(t.stats.Created, to)
	crowded := t.recycle(now, max)
	t.relieve(now)
	t.readjust(max)
	dst = append(dst, t.asks...)
	t.asks = t.asks[:0]
	return dst, budget == 0 || t.rearm < t.slab.next || crowded
}

// visit looks at one flow that the wheel has come to.
func (t *Table) visit(slot uint32, now int64) {
	r := t.slab.at(slot)
	switch {
	case r.reason != ReasonNone:
		t.ask(r, Remove)
	case r.state == StateClosed && !r.offloaded() && !r.bits.has(asked|expiring|rstTimed) && t.look(r) <= now:
		t.enter(slot, t.letExpire(r, now))
		return
	default:
		if at := t.look(r); at > now && !r.unsettled() && !r.bits.has(asked|adjusted) {
			t.enter(slot, at)
			return
		}
		r.set(asked)
		t.ask(r, Read)
	}
	t.enter(slot, now+retry)
}

// ask adds a request to those that the next Sweep returns.
func (t *Table) ask(r *record, v Verb) {
	t.asks = append(t.asks, Action{Verb: v, Orig: r.orig, ID: r.id})
}

// judge decides on a flow that the kernel was asked for and has now shown; alive
// tells whether it has shown packets with that.
func (t *Table) judge(slot uint32, alive bool, now int64) {
	r := t.slab.at(slot)
	press := r.bits.has(pressed)
	t.unask(r)
	at, expiry := t.deadline(r), t.expiry(r)
	switch {
	case r.reason != ReasonNone:
	case r.unsettled():
		if !press {
			r.set(based)
		}
		t.arm(slot, min(at, now+settling))
	case at <= now && r.state == StateClosed && !r.offloaded() && !r.bits.has(expiring):
		t.arm(slot, t.letExpire(r, now))
	case at <= now:
		t.remove(slot, r.whyOver(), now)
	case press && !alive && now >= r.seen+second && t.crowded(0):
		t.remove(slot, ReasonRecycled, now)
	case r.state != StateClosed && !r.offloaded() && t.endsEarly(r, expiry, at) && expiry-margin <= now:
		t.extend(r, uint32((at+t.unmistakable(r)-now)/second)+2, now)
		t.arm(slot, min(t.watched(r, now), now+second)) // a packet may have come before the kernel obeys
	default:
		if press {
			r.set(spared)
		}
		t.arm(slot, min(max(t.watched(r, now), now+poll), at))
	}
}

// watched is look for a flow that has just been looked at. A packet gives one whose
// timeout was set the kernel's own again, with no event to tell.
func (t *Table) watched(r *record, now int64) int64 {
	at := t.look(r)
	if !r.bits.has(adjusted) {
		return at
	}
	// The shortest timeouts that a packet may bring: nf_conntrack_proto_tcp.c,
	// tcp_timeouts (CLOSE_WAIT), nf_conntrack_proto_icmp.c, nf_ct_icmp_timeout.
	own := 30 * second
	switch r.orig.Proto {
	case TCP:
		own = min(60*second, int64(t.timers.Established)*second,
			t.ageing.Lifetime(TCP, r.port(), StateEstablished), t.ageing.Lifetime(TCP, r.port(), StateClosing))
	case UDP:
		if Status(r.status)&StatusAssured == 0 {
			return at // the next packet makes it assured, and that is an event
		}
		own = min(int64(t.timers.UDPStream)*second, t.ageing.Lifetime(UDP, r.port(), StateEstablished))
	}
	return min(at, now+max(own-margin, poll))
}

// unask is for a flow that is no longer waited for.
func (t *Table) unask(r *record) {
	if r.bits.has(pressed) {
		t.pressed--
	}
	r.clear(asked | pressed)
}

// extend asks the kernel to keep a flow for so many seconds.
func (t *Table) extend(r *record, timeout uint32, now int64) {
	a := Action{Verb: Extend, Orig: r.orig, ID: r.id, Timeout: timeout, Reopen: r.tcp == TCPClose && r.state == StateClosing}
	t.asks = append(t.asks, a)
	r.set(adjusted | extended)
	r.expires = t.eighths(now + int64(a.Timeout)*second)
}

// letExpire is how a closed connection of the slow path is evicted: not deleted, but
// given no more time than it has left. The next connection on the tuple may begin at
// that very moment, with the same id (its entry lies where the last one's did) or even
// in the same entry; its packets then give it its time again. It returns when the
// flow is to be looked at.
func (t *Table) letExpire(r *record, now int64) int64 {
	left := max(1, (t.deadline(r)-now+second-1)/second)
	t.extend(r, uint32(left), now)
	r.set(expiring)
	return now + left*second + tick
}

// letsExpire tells whether a closed flow that has until deadline is to be left to expire
// a second before. With less time than that it is so in the end, a second late; and so
// is one of which a timeout alone tells that it is closed, which is read before.
func (t *Table) letsExpire(r *record, deadline int64) bool {
	return !r.offloaded() && !r.bits.has(expiring|rstTimed) && deadline-r.seen >= 2*second
}

// unmistakable is how much longer a flow is given that is not counted: its expiry
// alone tells of packets then, so none may bring it to what was set.
func (t *Table) unmistakable(r *record) int64 {
	if r.packets != [2]uint64{} {
		return 0
	}
	return max(t.given(r), t.ageing.Lifetime(r.orig.Proto, r.port(), StateEstablished)) + 5*second
}

func (t *Table) eighths(at int64) uint32 { return uint32((at - t.epoch) / eighth) }

// whyOver is the reason of an end by silence.
func (r *record) whyOver() Reason {
	switch r.state {
	case StateClosed:
		return r.closedReason()
	case StateNew:
		return ReasonHalfOpen
	}
	return ReasonIdle
}

// remove has the kernel asked to delete a flow, and again until it is gone.
func (t *Table) remove(slot uint32, why Reason, now int64) {
	r := t.slab.at(slot)
	if r.reason == ReasonNone {
		r.reason = why
		t.leaving++
	}
	t.ask(r, Remove)
	t.arm(slot, now+retry)
}
