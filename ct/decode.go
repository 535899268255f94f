package ct

import (
	"encoding/binary"
	"errors"

	"flowd/flow"

	"golang.org/x/sys/unix"
)

// errMalformed is the one decoding error: what exactly is wrong with a message
// of the kernel's helps nobody, that and how often it happens does.
var errMalformed = errors.New("malformed conntrack message")

// attrs walks netlink attributes in place. After next returned false, bad tells
// whether it stopped at the end or at something that is no attribute.
type attrs struct {
	rest []byte
	typ  uint16
	data []byte
	bad  bool
}

func (a *attrs) next() bool {
	if len(a.rest) < nlaHdrLen {
		a.bad = a.bad || len(a.rest) != 0
		return false
	}
	n := int(binary.NativeEndian.Uint16(a.rest))
	if n < nlaHdrLen || n > len(a.rest) {
		a.bad = true
		return false
	}
	a.typ = binary.NativeEndian.Uint16(a.rest[2:]) & nlaTypeMask
	a.data = a.rest[nlaHdrLen:n]
	a.rest = a.rest[min(align(n), len(a.rest)):]
	return true
}

// The kernel sends numbers in exactly their size; anything else is malformed.

func (a *attrs) u8() uint8 {
	if len(a.data) != 1 {
		a.bad = true
		return 0
	}
	return a.data[0]
}

func (a *attrs) u16() uint16 {
	if len(a.data) != 2 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint16(a.data)
}

func (a *attrs) u32() uint32 {
	if len(a.data) != 4 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint32(a.data)
}

func (a *attrs) u64() uint64 {
	if len(a.data) != 8 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint64(a.data)
}

// nested runs f over the attributes within the current one.
func (a *attrs) nested() attrs { return attrs{rest: a.data} }

// fold takes over from an inner walk that something was wrong.
func (a *attrs) fold(inner *attrs) { a.bad = a.bad || inner.bad }

// decode reads one conntrack message, header included, into ev. It allocates
// nothing and keeps no reference to msg. An entry without timeout or protocol
// state is an ordinary one: offloaded entries have neither. Unknown attributes
// are passed over, as newer kernels send more.
func decode(ev *flow.Event, msg []byte) error {
	if len(msg) < nlmsgHdrLen+nfgenmsgLen {
		return errMalformed
	}
	*ev = flow.Event{}
	typ, flags := binary.NativeEndian.Uint16(msg[4:]), binary.NativeEndian.Uint16(msg[6:])
	switch {
	case typ == msgDelete:
		ev.Kind = flow.Destroy
	case typ != msgNew:
		return errMalformed
	case flags&(unix.NLM_F_CREATE|unix.NLM_F_EXCL) != 0:
		ev.Kind = flow.New
	default:
		ev.Kind = flow.Update
	}
	if binary.NativeEndian.Uint32(msg[12:]) != 0 {
		// The port of who has asked for the change (ctnetlink_conntrack_event). What
		// a packet changes comes from nobody.
		ev.Has |= flow.Commanded
	}
	family := flow.Family(msg[nlmsgHdrLen])
	if family != flow.IPv4 && family != flow.IPv6 {
		return errMalformed
	}
	ev.Orig.Family, ev.Reply.Family = family, family

	a := attrs{rest: msg[nlmsgHdrLen+nfgenmsgLen:]}
	seenOrig := false
	for a.next() {
		if a.typ == ctaTupleOrig {
			seenOrig = true
		}
		decodeAttr(ev, &a)
	}
	if a.bad || !seenOrig {
		return errMalformed
	}
	return nil
}

func decodeAttr(ev *flow.Event, a *attrs) {
	switch a.typ {
	case ctaTupleOrig:
		decodeTuple(&ev.Orig, a)
	case ctaTupleReply:
		decodeTuple(&ev.Reply, a)
		ev.Has |= flow.HasReply
	case ctaStatus:
		ev.Status = flow.Status(a.u32())
		ev.Has |= flow.HasStatus
	case ctaProtoinfo:
		decodeProtoinfo(ev, a)
	case ctaTimeout:
		ev.Timeout = a.u32()
		ev.Has |= flow.HasTimeout
	case ctaMark:
		ev.Mark = a.u32()
		ev.Has |= flow.HasMark
	case ctaCountersOrig:
		decodeCounters(ev, a, 0)
	case ctaCountersReply:
		decodeCounters(ev, a, 1)
	case ctaID:
		ev.ID = a.u32()
		ev.Has |= flow.HasID
	case ctaZone:
		// A zone of both directions. One of a single direction stands in its tuple.
		z := a.u16()
		for _, k := range [...]*flow.Key{&ev.Orig, &ev.Reply} {
			if k.Zone == 0 {
				k.Zone = z
			}
		}
	case ctaTimestamp:
		decodeTimestamp(ev, a)
	case ctaLabels:
		if copy(ev.Labels[:], a.data) == 0 {
			a.bad = true
		}
		ev.Has |= flow.HasLabels
	}
}

func decodeTuple(k *flow.Key, a *attrs) {
	t := a.nested()
	for t.next() {
		switch t.typ {
		case ctaTupleIP:
			decodeAddrs(k, &t)
		case ctaTupleProto:
			decodePorts(k, &t)
		case ctaTupleZone:
			k.Zone = t.u16()
		}
	}
	a.fold(&t)
}

func decodeAddrs(k *flow.Key, a *attrs) {
	ip := a.nested()
	for ip.next() {
		size, dst := 4, &k.Src
		switch ip.typ {
		case ctaIPv4Src:
		case ctaIPv4Dst:
			dst = &k.Dst
		case ctaIPv6Src:
			size = 16
		case ctaIPv6Dst:
			size, dst = 16, &k.Dst
		default:
			continue
		}
		if len(ip.data) != size || (size == 4) != (k.Family == flow.IPv4) {
			ip.bad = true
			continue
		}
		copy(dst[:], ip.data)
	}
	a.fold(&ip)
}

func decodePorts(k *flow.Key, a *attrs) {
	p := a.nested()
	for p.next() {
		switch p.typ {
		case ctaProtoNum:
			k.Proto = flow.Proto(p.u8())
		case ctaProtoSrcPort, ctaProtoICMPID, ctaProtoICMPv6ID:
			k.SrcPort = p.u16()
		case ctaProtoDstPort:
			k.DstPort = p.u16()
		case ctaProtoICMPType, ctaProtoICMPv6Type:
			k.DstPort |= uint16(p.u8()) << 8
		case ctaProtoICMPCode, ctaProtoICMPv6Code:
			k.DstPort |= uint16(p.u8())
		}
	}
	a.fold(&p)
}

func decodeProtoinfo(ev *flow.Event, a *attrs) {
	info := a.nested()
	for info.next() {
		if info.typ != ctaProtoinfoTCP {
			continue
		}
		tcp := info.nested()
		for tcp.next() {
			if tcp.typ == ctaProtoinfoTCPState {
				ev.TCP = flow.TCPState(tcp.u8())
				ev.Has |= flow.HasTCP
			}
		}
		info.fold(&tcp)
	}
	a.fold(&info)
}

func decodeCounters(ev *flow.Event, a *attrs, dir int) {
	c := a.nested()
	for c.next() {
		switch c.typ {
		case ctaCountersPackets:
			ev.Packets[dir] = c.u64()
		case ctaCountersBytes:
			ev.Bytes[dir] = c.u64()
		}
	}
	ev.Has |= flow.HasCounters
	a.fold(&c)
}

func decodeTimestamp(ev *flow.Event, a *attrs) {
	t := a.nested()
	for t.next() {
		switch t.typ {
		case ctaTimestampStart:
			ev.Start = int64(t.u64())
			ev.Has |= flow.HasStart
		case ctaTimestampStop:
			ev.Stop = int64(t.u64())
			ev.Has |= flow.HasStop
		}
	}
	a.fold(&t)
}
