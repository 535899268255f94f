package flow

// absorb takes over what the event says, and returns whether it shows that the
// flow has had packets. A dump shows an entry whole, so what is absent there is
// zero; an event names only what changed.
func (t *Table) absorb(r *record, ev *Event, now int64) (alive bool) {
	was := before{r.expires, r.offloaded()}
	if ev.Has&HasTCP != 0 {
		t.absorbTCP(r, ev, now)
	}
	if ev.Has&HasStatus != 0 {
		r.status = uint16(ev.Status)
	}
	if ev.Has&HasMark != 0 || ev.Kind.whole() {
		r.mark = ev.Mark
	}
	if ev.Has&HasLabels != 0 || ev.Kind.whole() {
		r.labels = t.labels.swap(r.labels, ev.Labels)
	}
	if ev.Has&HasTimeout != 0 {
		r.expires = t.eighths(now + int64(ev.Timeout)*second)
	} else if ev.Kind.whole() {
		r.expires = 0
	}
	if ev.Has&HasStart != 0 {
		r.start = ev.Start
		r.set(stamped)
	}
	if r.offloaded() {
		r.set(sped)
	}
	moved := t.count(r, ev)
	if ev.Kind == Destroy {
		return false
	}
	alive = t.notice(r, was, ev, moved, now)
	if alive {
		r.clear(spared)
	}
	return alive
}

// before is what a record was before an event.
type before struct {
	expires   uint32
	offloaded bool
}

// count takes over the counters, and returns in which directions they have moved.
func (t *Table) count(r *record, ev *Event) (moved [2]bool) {
	if ev.Has&HasCounters == 0 {
		return moved
	}
	if ev.Kind.whole() && (ev.Packets[0] < r.packets[0] || ev.Packets[1] < r.packets[1]) {
		// Another program has set them to zero: what came since is not known.
		r.packets, r.bytes = ev.Packets, ev.Bytes
		r.clear(based)
		return [2]bool{true, true}
	}
	for d := range r.packets {
		if ev.Packets[d] > r.packets[d] {
			t.stats.Packets += ev.Packets[d] - r.packets[d]
			if r.bits.has(sped) {
				t.stats.OffloadedPackets += ev.Packets[d] - r.packets[d]
			}
			r.packets[d], r.bytes[d] = ev.Packets[d], ev.Bytes[d]
			moved[d] = true
		}
	}
	if !r.offloaded() {
		r.clear(sped)
	}
	return moved
}

// notice works out when the flow last showed a packet. What is found is never too
// early, or a living flow would be ended.
//
// A handshake has its time from the first packet on, however often that is sent
// again.
func (t *Table) notice(r *record, was before, ev *Event, moved [2]bool, now int64) (alive bool) {
	if !ev.Kind.whole() {
		switch {
		case ev.commanded() && ev.Has&HasTimeout != 0:
			r.set(adjusted)
			return false
		case ev.commanded():
			return false
		}
		r.showed(now)
		return true
	}
	switch {
	case r.offloaded():
		return t.noticeOffloaded(r, ev, moved, now)
	case was.offloaded:
		return t.noticeReturned(r, ev, moved, now)
	}
	return t.noticeAged(r, was, ev, moved, now)
}

// showed is for packets that came just now, or may have.
func (r *record) showed(now int64) {
	r.clear(adjusted | estimated | extended | expiring)
	if r.orig.Proto != TCP || r.deriveState() != StateNew {
		r.seen = now
	}
}

// noticeOffloaded is for a flow in the flowtable: its counters are current. Of one
// that is not counted nothing tells, but that it is there still.
func (t *Table) noticeOffloaded(r *record, ev *Event, moved [2]bool, now int64) bool {
	if ev.Has&HasCounters != 0 && !moved[0] && !moved[1] {
		return false
	}
	if moved[0] && moved[1] && r.bits.has(based) {
		// More packets both ways than closing takes: the FIN or RST was forged.
		r.clear(closeBits | based)
	}
	r.showed(now)
	return true
}

// noticeReturned is for a flow that has left the flowtable since it was last seen.
// What the kernel gave it then tells when it had its last packet.
func (t *Table) noticeReturned(r *record, ev *Event, moved [2]bool, now int64) bool {
	last := now
	if r.state == StateEstablished && ev.Has&HasTimeout != 0 {
		_, whole := t.timers.of(r.orig.Proto)
		last = t.lastPacket(r, ev, whole, now)
	}
	if moved[0] || moved[1] || ev.Has&HasCounters == 0 {
		old := r.seen
		r.showed(now)
		r.seen = min(r.seen, max(old, last))
		return true
	}
	if last < r.seen {
		r.seen = max(last, min(r.start, r.seen))
		r.clear(estimated)
	}
	return false
}

// lastPacket is when an established flow had its last packet, or later, by the time
// that the kernel still gives it: it gave it the namespace's timeout, whole, or that of
// a timeout object, which is the policy's. Where the former is above a day it tells
// nothing: a flow that comes back from the flowtable has a day at the most
// (nf_ct_offload_timeout, NF_CT_DAY).
func (t *Table) lastPacket(r *record, ev *Event, whole, now int64) int64 {
	const day = 86400 * second
	left := int64(ev.Timeout+1) * second
	if policy := t.ageing.Lifetime(r.orig.Proto, r.port(), StateEstablished); left <= policy && (policy < whole || left > whole) {
		whole = policy
	}
	if left > whole || whole > day/2 {
		return now
	}
	return min(now, now-whole+left)
}

// given is the timeout that an established flow of the slow path has of the namespace.
func (t *Table) given(r *record) int64 {
	if r.orig.Proto == UDP && Status(r.status)&StatusAssured == 0 {
		return int64(t.timers.UDP) * second
	}
	_, whole := t.timers.of(r.orig.Proto)
	return whole
}

// noticeAged is for a flow that the kernel ages, before as now. Each packet moves
// its expiry on to a fixed time after: so by how much that has moved tells when the
// last one came, if nothing else has moved it. Counters alone do not: events do not
// carry them, and they may be but learnt of now.
func (t *Table) noticeAged(r *record, was before, ev *Event, moved [2]bool, now int64) bool {
	late := r.bits.has(extended)
	r.clear(extended)
	const rounding = 2 * second / eighth // the kernel tells whole seconds
	later := int64(r.expires) - int64(was.expires)
	switch counted := ev.Has&HasCounters != 0; {
	case moved[0], moved[1]:
	case counted, ev.Has&HasTimeout == 0, later <= 0 && !r.bits.has(adjusted), later >= -rounding && later <= rounding && r.bits.has(adjusted):
		if !counted && r.state != StateClosed {
			r.set(estimated) // a packet may have moved it by less than the kernel tells
		}
		return false
	}
	last, doubt := now, bits(0)
	switch {
	case ev.Has&HasTimeout == 0, was.expires == 0, Status(r.status)&StatusFixedTimeout != 0:
	case late: // the packet may have come before the time was given: its expiry does not tell
	case r.bits.has(adjusted) && r.state == StateEstablished:
		last = max(r.seen, t.lastPacket(r, ev, t.given(r), now))
	case !r.bits.has(adjusted) && later >= -rounding: // else it has another timeout
		last, doubt = r.seen+max(later, 0)*eighth, estimated
	}
	r.showed(now)
	if last < r.seen {
		r.seen = last
		r.set(doubt)
	}
	return true
}

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
// until a packet moves it away again. A flow that was in the flowtable had none: of it
// that timeout is enough, with the packet that brought it back or a RST seen.
func (t *Table) absorbTCP(r *record, ev *Event, now int64) {
	r.tcp = ev.TCP
	if ev.Kind == Update && ev.TCP == TCPClose && ev.Status&StatusOffload != 0 && !ev.commanded() {
		r.set(rstSeen) // conntrack has seen it, though the flow is offloaded still, or again
	}
	if ev.Kind == Destroy || ev.commanded() || ev.TCP > TCPEstablished && ev.TCP != TCPSynSent2 {
		return
	}
	was := r.bits
	r.clear(closeBits) // it lives
	if ev.TCP != TCPEstablished || ev.Has&HasTimeout == 0 || ev.Timeout > rstTimeout || t.livesShortly(r) {
		return
	}
	const slack = uint32(2 * second / eighth) // both are rounded
	expires := t.eighths(now + int64(ev.Timeout)*second)
	closer := !was.has(adjusted) && r.expires != 0 && expires+slack < r.expires || r.offloaded() && (!ev.Kind.whole() || was.has(rstSeen))
	if closer || was.has(rstTimed) && expires <= r.expires+slack {
		r.set(rstTimed)
	}
}

// livesShortly tells whether an established connection has no more time than a RST
// leaves it, at any time.
func (t *Table) livesShortly(r *record) bool {
	return t.ageing.Lifetime(TCP, r.port(), StateEstablished) <= rstTimeout*second
}

// timeRST is absorbTCP's judgement for a RST that the tap tells of only after the
// connection was seen to have that timeout.
func (t *Table) timeRST(r *record, now int64) {
	left := t.expiry(r) - now
	if r.tcp == TCPEstablished && !r.offloaded() && r.expires != 0 && left <= (rstTimeout+1)*second && !t.livesShortly(r) {
		r.set(rstTimed)
	}
}
