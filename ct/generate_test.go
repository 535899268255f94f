package ct

import (
	"encoding/binary"

	"flowd/flow"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// generate builds a message as ctnetlink could send it, with an encoder that is
// not ours.
func generate(t *rapid.T) []byte {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	family := rapid.SampledFrom([]flow.Family{flow.IPv4, flow.IPv6}).Draw(t, "family")
	proto := rapid.SampledFrom([]flow.Proto{flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6, flow.SCTP, flow.GRE, 99}).Draw(t, "proto")
	generateTuple(t, ae, ctaTupleOrig, family, proto)
	generateTuple(t, ae, ctaTupleReply, family, proto)
	maybe := func(name string, f func()) {
		if rapid.Bool().Draw(t, name) {
			f()
		}
	}
	u32 := func(name string, typ uint16) {
		maybe(name, func() { ae.Uint32(typ, rapid.Uint32().Draw(t, name)) })
	}
	u32("id", ctaID)
	u32("status", ctaStatus)
	u32("timeout", ctaTimeout)
	u32("mark", ctaMark)
	u32("use", 11)
	maybe("zone", func() { ae.Uint16(ctaZone, rapid.Uint16().Draw(t, "zone")) })
	maybe("labels", func() { ae.Bytes(ctaLabels, rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "labels")) })
	for _, dir := range []uint16{ctaCountersOrig, ctaCountersReply} {
		maybe("counters", func() {
			ae.Nested(dir, func(n *netlink.AttributeEncoder) error {
				n.Uint64(ctaCountersPackets, rapid.Uint64().Draw(t, "packets"))
				n.Uint64(ctaCountersBytes, rapid.Uint64().Draw(t, "bytes"))
				return nil
			})
		})
	}
	maybe("timestamp", func() {
		ae.Nested(ctaTimestamp, func(n *netlink.AttributeEncoder) error {
			n.Uint64(ctaTimestampStart, uint64(rapid.Int64Min(1).Draw(t, "start")))
			maybe("stop", func() { n.Uint64(ctaTimestampStop, uint64(rapid.Int64Min(1).Draw(t, "stop"))) })
			return nil
		})
	})
	if proto == flow.TCP {
		maybe("protoinfo", func() { generateProtoinfo(t, ae) })
	}
	maybe("attribute of a kernel to come", func() { ae.Bytes(40, []byte{1, 2, 3}) })
	attrs, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return message(t, family, attrs)
}

func message(t *rapid.T, family flow.Family, attrs []byte) []byte {
	kind := rapid.SampledFrom([][2]uint16{{msgNew, unix.NLM_F_CREATE | unix.NLM_F_EXCL}, {msgNew, 0}, {msgDelete, 0}}).Draw(t, "kind")
	var e encoder
	e.open(kind[0], kind[1], 0, family)
	// open writes requests; what the kernel sends has no such flag.
	binary.NativeEndian.PutUint16(e.buf[6:], kind[1])
	e.buf = append(e.buf, attrs...)
	e.close()
	return e.buf
}

func generateTuple(t *rapid.T, ae *netlink.AttributeEncoder, typ uint16, family flow.Family, proto flow.Proto) {
	size, src, dst := 4, uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if family == flow.IPv6 {
		size, src, dst = 16, ctaIPv6Src, ctaIPv6Dst
	}
	ae.Nested(typ, func(n *netlink.AttributeEncoder) error {
		n.Nested(ctaTupleIP, func(ip *netlink.AttributeEncoder) error {
			ip.Bytes(src, rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "src"))
			ip.Bytes(dst, rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "dst"))
			return nil
		})
		n.Nested(ctaTupleProto, func(p *netlink.AttributeEncoder) error {
			p.Uint8(ctaProtoNum, uint8(proto))
			id, icmpType, code := uint16(ctaProtoICMPID), uint16(ctaProtoICMPType), uint16(ctaProtoICMPCode)
			switch proto {
			case flow.ICMPv6:
				id, icmpType, code = ctaProtoICMPv6ID, ctaProtoICMPv6Type, ctaProtoICMPv6Code
				fallthrough
			case flow.ICMP:
				p.Uint16(id, rapid.Uint16().Draw(t, "icmp id"))
				p.Uint8(icmpType, rapid.Byte().Draw(t, "icmp type"))
				p.Uint8(code, rapid.Byte().Draw(t, "icmp code"))
			case 99: // nf_conntrack_proto_generic.c has nothing to say
			default:
				p.Uint16(ctaProtoSrcPort, rapid.Uint16().Draw(t, "sport"))
				p.Uint16(ctaProtoDstPort, rapid.Uint16().Draw(t, "dport"))
			}
			return nil
		})
		if rapid.IntRange(0, 9).Draw(t, "zone of one direction") == 0 {
			n.Uint16(ctaTupleZone, rapid.Uint16Min(1).Draw(t, "tuple zone"))
		}
		return nil
	})
}

func generateProtoinfo(t *rapid.T, ae *netlink.AttributeEncoder) {
	ae.Nested(ctaProtoinfo, func(n *netlink.AttributeEncoder) error {
		n.Nested(ctaProtoinfoTCP, func(tcp *netlink.AttributeEncoder) error {
			tcp.Uint8(ctaProtoinfoTCPState, rapid.Uint8Max(9).Draw(t, "tcp state"))
			tcp.Uint8(2, 7) // window scale, original
			return nil
		})
		return nil
	})
}
