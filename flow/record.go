package flow

// record is a flow as it lies in the slab: 176 bytes, no pointers. What both
// tuples share stands once.
type record struct {
	orig           Key
	back           answer    // the reply tuple
	status         uint16    // Status: the kernel has no bit above HWOffload
	packets, bytes [2]uint64 // original and reply direction
	start, seen    int64     // ns since the epoch, as in Flow

	id, mark   uint32
	expires    uint32 // when the kernel lets go, in eighths of a second since the table's epoch; 0: it does not age it
	labels     uint32 // in the table's pool
	life       uint32 // s: a lifetime of its own; 0: the policy's
	armed      uint32 // tick at which the wheel comes by
	next, prev uint32 // in its bucket of the wheel
	generation uint32 // of the slot: how many flows it has held

	round  uint16 // number of the dump or event round that saw it last
	bits   bits
	tcp    TCPState
	state  State
	reason Reason
}

// answer is what a reply tuple does not share with the original one.
type answer struct {
	src, dst         [16]byte
	srcPort, dstPort uint16
	zone             uint16
}

// bits are what a record remembers in yes and no.
type bits uint16

const (
	// Closing signals that the tap has seen since the flow last showed life.
	finOrig bits = 1 << iota
	finReply
	rstSeen
	rstTimed // conntrack shows it as established, but with the timeout of a RST

	stamped   // start is the kernel's
	asked     // the kernel was asked for it, to judge by the answer
	adjusted  // a program has set the kernel's timeout: it says nothing of packets
	estimated // seen is off by up to a second: the kernel tells its timeouts in whole ones
	based     // of a candidate: its counters are those of after the closing packets
	pressed   // it is asked for because room is needed
	sped      // it has been in the flowtable since its counters were learnt last
	heir      // its tuple had just been another's, whose FIN and RST may be told of late
	expiring  // closed, and given no more time than it has left
	extended  // it was given time since it was read last
	spared    // room was needed, but it had shown packets

	bothFINs  = finOrig | finReply
	closeBits = bothFINs | rstSeen | rstTimed
)

func (b bits) has(some bits) bool { return b&some != 0 }

func (r *record) set(b bits)   { r.bits |= b }
func (r *record) clear(b bits) { r.bits &^= b }

func (r *record) setReply(k *Key) {
	r.back = answer{src: k.Src, dst: k.Dst, srcPort: k.SrcPort, dstPort: k.DstPort, zone: k.Zone}
}

func (r *record) reply() Key {
	return Key{
		Src: r.back.src, Dst: r.back.dst, SrcPort: r.back.srcPort, DstPort: r.back.dstPort,
		Zone: r.back.zone, Family: r.orig.Family, Proto: r.orig.Proto,
	}
}

func (r *record) offloaded() bool { return Status(r.status)&StatusOffload != 0 }

// port is the one that names the service, or 0.
func (r *record) port() uint16 {
	if r.orig.Proto.HasPorts() {
		return r.orig.DstPort
	}
	return 0
}

// path tells the path that the flow's packets take now.
func (r *record) path() Offload { return Status(r.status).path() }

// flow writes a record out.
func (t *Table) flow(slot uint32) Flow {
	r := t.slab.at(slot)
	f := Flow{
		Handle: Handle{slot, r.generation},
		Orig:   r.orig, Reply: r.reply(), Labels: t.labels.value(r.labels),
		Packets: r.packets, Bytes: r.bytes, Start: r.start, Seen: r.seen,
		Lifetime: t.lifetime(r), Own: r.life != 0, ID: r.id, Status: Status(r.status), Mark: r.mark,
		TCP: r.tcp, State: r.state, Reason: r.reason, Candidate: r.state == StateClosed,
	}
	if r.expires != 0 {
		f.Expires = uint32(t.expiry(r) / second)
	}
	return f
}

// closedReason tells how a closed flow came to be closed. After FIN both ways a
// RST is but an answer to what came late, and CLOSE what the kernel calls a flow
// that has aged out of the flowtable.
func (r *record) closedReason() Reason {
	switch {
	case r.bits&bothFINs == bothFINs:
		return ReasonClosed
	case r.bits.has(rstSeen | rstTimed), r.tcp == TCPClose:
		return ReasonReset
	}
	return ReasonClosed
}

// deriveState computes the state from what conntrack and the tap told.
// While a flow is offloaded conntrack no longer sees its packets: its TCP state
// stands still, what is there is established, and the tap alone sees the end.
// On the slow path conntrack knows better: it checks sequence numbers.
func (r *record) deriveState() State {
	if r.orig.Proto == TCP {
		if r.offloaded() {
			return r.tapState()
		}
		switch {
		case r.tcp == TCPEstablished && r.bits.has(rstTimed):
			return StateClosed
		case (r.tcp == TCPClose || r.tcp == TCPTimeWait) && r.tapState() == StateClosing:
			// Half-closed, whatever conntrack says: it takes a FIN that is sent again
			// for the other side's (tcp_conntracks, sLA), and a flow that fell silent in
			// the flowtable after a FIN for closed (nf_conntrack_tcp_set_closing).
			return StateClosing
		case r.tcp != TCPNone:
			return tcpState(r.tcp)
		}
	}
	if Status(r.status)&StatusSeenReply != 0 {
		return StateEstablished
	}
	return StateNew
}

func (r *record) tapState() State {
	switch {
	case r.bits.has(rstSeen), r.bits&bothFINs == bothFINs:
		return StateClosed
	case r.bits.has(bothFINs):
		return StateClosing
	}
	return StateEstablished
}

func tcpState(s TCPState) State {
	switch s {
	case TCPEstablished:
		return StateEstablished
	case TCPFinWait, TCPCloseWait, TCPLastAck:
		return StateClosing
	case TCPTimeWait, TCPClose:
		return StateClosed
	}
	return StateNew
}
