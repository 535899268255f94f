package testenv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// TCPFlags are the control bits of a TCP header (RFC 9293, section 3.1).
type TCPFlags uint8

// The control bits.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// flagNames are the names of the bits from the lowest on.
var flagNames = [...]string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"}

// ParseTCPFlags reads flags as "fin,ack", in the words of nft(8).
func ParseTCPFlags(text string) (TCPFlags, error) {
	var flags TCPFlags
next:
	for word := range strings.SplitSeq(text, ",") {
		for bit, name := range flagNames {
			if word == name {
				flags |= 1 << bit
				continue next
			}
		}
		return 0, fmt.Errorf("tcp flags %q: no flag %q among %s", text, word, strings.Join(flagNames[:], ","))
	}
	return flags, nil
}

// String returns the flags as ParseTCPFlags reads them.
func (f TCPFlags) String() string {
	var words []string
	for bit, name := range flagNames {
		if f&(1<<bit) != 0 {
			words = append(words, name)
		}
	}
	return strings.Join(words, ",")
}

// A Segment is a TCP segment with whatever is wanted in it, IPv4 or IPv6.
type Segment struct {
	From, To netip.AddrPort
	Seq, Ack uint32
	Flags    TCPFlags
	Window   uint16 // not scaled
	TTL      uint8  // hop limit; 0 is 64
	Payload  []byte
}

// Forge sends a segment from a namespace as if it came from one of its
// connections, or of anybody else's.
func Forge(space *Namespace, segment Segment) error {
	packet, err := segment.packet()
	if err != nil {
		return fmt.Errorf("forge tcp %v->%v: %w", segment.From, segment.To, err)
	}
	if err := space.Do(func() error { return sendRaw(segment.To.Addr().Unmap(), packet) }); err != nil {
		return fmt.Errorf("forge tcp %v->%v: %w", segment.From, segment.To, err)
	}
	return nil
}

// sendRaw sends an IP packet, its header included, by the routes of the
// calling thread's namespace.
func sendRaw(to netip.Addr, packet []byte) error {
	family, addr := unix.AF_INET, unix.Sockaddr(nil)
	if to.Is4() {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	// IPPROTO_RAW has the kernel take the header from the packet (raw(7)).
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, packet, 0, addr); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(packet), err)
	}
	return nil
}

// Lengths of headers without options, in bytes.
const (
	ipv4Header = 20
	ipv6Header = 40
	tcpHeader  = 20
)

// packet returns the IP packet that holds the segment.
func (s Segment) packet() ([]byte, error) {
	from, to := s.From.Addr().Unmap(), s.To.Addr().Unmap()
	if !from.IsValid() || !to.IsValid() || from.Is4() != to.Is4() {
		return nil, errors.New("the addresses are not of one family")
	}
	if s.TTL == 0 {
		s.TTL = 64
	}
	if to.Is4() {
		return append(s.ipv4(from.As4(), to.As4()), s.tcp()...), nil
	}
	return append(s.ipv6(from.As16(), to.As16()), s.tcp()...), nil
}

// ipv4 returns the header; the kernel adds its checksum and identification.
func (s Segment) ipv4(from, to [4]byte) []byte {
	h := make([]byte, ipv4Header, ipv4Header+tcpHeader+len(s.Payload))
	h[0] = 4<<4 | ipv4Header/4
	binary.BigEndian.PutUint16(h[2:], uint16(cap(h)))
	binary.BigEndian.PutUint16(h[6:], 1<<14) // do not fragment
	h[8], h[9] = s.TTL, unix.IPPROTO_TCP
	copy(h[12:], from[:])
	copy(h[16:], to[:])
	return h
}

func (s Segment) ipv6(from, to [16]byte) []byte {
	h := make([]byte, ipv6Header, ipv6Header+tcpHeader+len(s.Payload))
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(tcpHeader+len(s.Payload)))
	h[6], h[7] = unix.IPPROTO_TCP, s.TTL
	copy(h[8:], from[:])
	copy(h[24:], to[:])
	return h
}

// tcp returns header and payload with the checksum.
func (s Segment) tcp() []byte {
	h := make([]byte, tcpHeader, tcpHeader+len(s.Payload))
	binary.BigEndian.PutUint16(h[0:], s.From.Port())
	binary.BigEndian.PutUint16(h[2:], s.To.Port())
	binary.BigEndian.PutUint32(h[4:], s.Seq)
	binary.BigEndian.PutUint32(h[8:], s.Ack)
	h[12] = tcpHeader / 4 << 4
	h[13] = byte(s.Flags)
	binary.BigEndian.PutUint16(h[14:], s.Window)
	h = append(h, s.Payload...)
	binary.BigEndian.PutUint16(h[16:], s.checksum(h))
	return h
}

// checksum returns the Internet checksum of a segment whose own is zero, with
// the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
func (s Segment) checksum(segment []byte) uint16 {
	var sum uint32
	add := func(data []byte) {
		for len(data) > 1 {
			sum += uint32(binary.BigEndian.Uint16(data))
			data = data[2:]
		}
		if len(data) == 1 {
			sum += uint32(data[0]) << 8
		}
	}
	add(s.From.Addr().Unmap().AsSlice())
	add(s.To.Addr().Unmap().AsSlice())
	sum += unix.IPPROTO_TCP + uint32(len(segment))
	add(segment)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
