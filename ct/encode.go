package ct

import (
	"encoding/binary"

	"flowd/flow"

	"golang.org/x/sys/unix"
)

// encoder builds netlink messages one after the other in one buffer.
type encoder struct {
	buf   []byte
	start int // of the message being built
}

// open begins a conntrack message.
func (e *encoder) open(typ, flags uint16, seq uint32, family flow.Family) {
	e.start = len(e.buf)
	ne := binary.NativeEndian
	e.buf = ne.AppendUint32(e.buf, 0) // length, filled in by close
	e.buf = ne.AppendUint16(e.buf, typ)
	e.buf = ne.AppendUint16(e.buf, unix.NLM_F_REQUEST|flags)
	e.buf = ne.AppendUint32(e.buf, seq)
	e.buf = ne.AppendUint32(e.buf, 0) // port id: the kernel knows it
	e.buf = append(e.buf, byte(family), unix.NFNETLINK_V0, 0, 0)
}

func (e *encoder) close() {
	binary.NativeEndian.PutUint32(e.buf[e.start:], uint32(len(e.buf)-e.start))
}

// nest begins a nested attribute and returns where, for unnest.
func (e *encoder) nest(typ uint16) int {
	at := len(e.buf)
	e.attr(typ|unix.NLA_F_NESTED, nil)
	return at
}

func (e *encoder) unnest(at int) {
	binary.NativeEndian.PutUint16(e.buf[at:], uint16(len(e.buf)-at))
}

func (e *encoder) attr(typ uint16, data []byte) {
	e.buf = binary.NativeEndian.AppendUint16(e.buf, uint16(nlaHdrLen+len(data)))
	e.buf = binary.NativeEndian.AppendUint16(e.buf, typ)
	e.buf = append(e.buf, data...)
	for len(e.buf)%nlaAlignment != 0 {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) u8(typ uint16, v uint8) { e.attr(typ, []byte{v}) }

func (e *encoder) u16(typ uint16, v uint16) {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	e.attr(typ, b[:])
}

func (e *encoder) u32(typ uint16, v uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	e.attr(typ, b[:])
}

// action encodes a request about one entry: its original tuple, its zone and
// its id. ctnetlink_del_conntrack refuses with ENOENT when the id is another's;
// ctnetlink_get_conntrack does not look at it, so its answer must be compared;
// nor does ctnetlink_new_conntrack, which Extend uses: it may give the next
// connection on the tuple more time, until that has a packet.
func (e *encoder) action(a *flow.Action, seq uint32) {
	types := [...]uint16{flow.Read: msgGet, flow.Extend: msgNew, flow.Remove: msgDelete}
	e.open(types[a.Verb], unix.NLM_F_ACK, seq, a.Orig.Family)
	e.tuple(ctaTupleOrig, &a.Orig)
	if a.Orig.Zone != 0 {
		e.u16(ctaZone, a.Orig.Zone)
	}
	e.u32(ctaID, a.ID)
	if a.Verb == flow.Extend {
		e.u32(ctaTimeout, a.Timeout)
		if a.Reopen {
			e.reopen()
		}
	}
	e.close()
}

// reopen has conntrack take a TCP connection for one that one side has closed.
func (e *encoder) reopen() {
	info := e.nest(ctaProtoinfo)
	tcp := e.nest(ctaProtoinfoTCP)
	e.u8(ctaProtoinfoTCPState, uint8(flow.TCPCloseWait))
	e.unnest(tcp)
	e.unnest(info)
}

func (e *encoder) tuple(typ uint16, k *flow.Key) {
	tuple := e.nest(typ)
	ip := e.nest(ctaTupleIP)
	if k.Family == flow.IPv4 {
		e.attr(ctaIPv4Src, k.Src[:4])
		e.attr(ctaIPv4Dst, k.Dst[:4])
	} else {
		e.attr(ctaIPv6Src, k.Src[:])
		e.attr(ctaIPv6Dst, k.Dst[:])
	}
	e.unnest(ip)
	proto := e.nest(ctaTupleProto)
	e.u8(ctaProtoNum, uint8(k.Proto))
	switch k.Proto {
	case flow.ICMP:
		e.u16(ctaProtoICMPID, k.SrcPort)
		e.u8(ctaProtoICMPType, uint8(k.DstPort>>8))
		e.u8(ctaProtoICMPCode, uint8(k.DstPort))
	case flow.ICMPv6:
		e.u16(ctaProtoICMPv6ID, k.SrcPort)
		e.u8(ctaProtoICMPv6Type, uint8(k.DstPort>>8))
		e.u8(ctaProtoICMPv6Code, uint8(k.DstPort))
	default:
		e.u16(ctaProtoSrcPort, k.SrcPort)
		e.u16(ctaProtoDstPort, k.DstPort)
	}
	e.unnest(proto)
	e.unnest(tuple)
}
