package flow

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Family is an address family with the kernel's numbers (linux/socket.h).
type Family uint8

const (
	IPv4 Family = 2  // AF_INET
	IPv6 Family = 10 // AF_INET6
)

// Key is one direction of a connection as conntrack tracks it: struct
// nf_conntrack_tuple plus its zone. It is comparable, 40 bytes long and free of
// pointers and padding, so that it can be hashed as it lies in memory.
//
// For ICMP and ICMPv6 SrcPort holds the identifier and DstPort the type in its
// high and the code in its low byte; for GRE both hold the call keys; a
// protocol that conntrack knows nothing of has zeros.
type Key struct {
	Src, Dst         [16]byte // IPv4: the first four bytes, the rest zero
	SrcPort, DstPort uint16   // host byte order
	Zone             uint16
	Family           Family
	Proto            Proto
}

// MakeKey returns the Key of addresses and ports. Both addresses must be of one
// family; an IPv4 address mapped into IPv6 counts as IPv4.
func MakeKey(proto Proto, src, dst netip.AddrPort, zone uint16) (Key, error) {
	s, d := src.Addr().Unmap(), dst.Addr().Unmap()
	if !s.IsValid() || !d.IsValid() {
		return Key{}, fmt.Errorf("tuple %v > %v: address missing", src, dst)
	}
	if s.Is4() != d.Is4() {
		return Key{}, fmt.Errorf("tuple %v > %v: IPv4 and IPv6 mixed", src, dst)
	}
	k := Key{SrcPort: src.Port(), DstPort: dst.Port(), Zone: zone, Family: IPv6, Proto: proto}
	if s.Is4() {
		k.Family = IPv4
		a, b := s.As4(), d.As4()
		copy(k.Src[:], a[:])
		copy(k.Dst[:], b[:])
		return k, nil
	}
	k.Src, k.Dst = s.As16(), d.As16()
	return k, nil
}

// Reverse returns the key that packets in the other direction carry when
// nothing is translated. The type of an ICMP query becomes that of its answer.
func (k Key) Reverse() Key {
	k.Src, k.Dst = k.Dst, k.Src
	switch k.Proto {
	case ICMP, ICMPv6:
		k.DstPort = uint16(inverseICMP(k.Proto, uint8(k.DstPort>>8)))<<8 | k.DstPort&0xff
	default:
		k.SrcPort, k.DstPort = k.DstPort, k.SrcPort
	}
	return k
}

// inverseICMP answers as the invmap tables of the kernel do
// (nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c).
func inverseICMP(p Proto, typ uint8) uint8 {
	if p == ICMPv6 {
		switch typ {
		case 128, 139: // echo request, node information query
			return typ + 1
		case 129, 140:
			return typ - 1
		}
		return typ
	}
	switch typ {
	case 8: // echo request
		return 0
	case 0:
		return 8
	case 13, 15, 17: // timestamp, information, address mask request
		return typ + 1
	case 14, 16, 18:
		return typ - 1
	}
	return typ
}

// SrcAddr returns the source address.
func (k Key) SrcAddr() netip.Addr { return addr(k.Family, k.Src) }

// DstAddr returns the destination address.
func (k Key) DstAddr() netip.Addr { return addr(k.Family, k.Dst) }

func addr(f Family, a [16]byte) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	return netip.AddrFrom16(a)
}

// String is the tuple in conntrack(8)'s words.
func (k Key) String() string {
	s := k.Proto.String() + " src=" + k.SrcAddr().String() + " dst=" + k.DstAddr().String()
	switch k.Proto {
	case ICMP, ICMPv6:
		s += fmt.Sprintf(" type=%d code=%d id=%d", k.DstPort>>8, k.DstPort&0xff, k.SrcPort)
	case GRE:
		s += fmt.Sprintf(" srckey=0x%x dstkey=0x%x", k.SrcPort, k.DstPort)
	default:
		if k.SrcPort != 0 || k.DstPort != 0 {
			s += " sport=" + strconv.Itoa(int(k.SrcPort)) + " dport=" + strconv.Itoa(int(k.DstPort))
		}
	}
	if k.Zone != 0 {
		s += " zone=" + strconv.Itoa(int(k.Zone))
	}
	return s
}
