package flow

import (
	"fmt"
	"strconv"
	"strings"
)

// Proto is an IP protocol number (IANA, "Assigned Internet Protocol Numbers").
type Proto uint8

// The protocols that conntrack tracks with ports, ids or keys of their own.
const (
	ICMP    Proto = 1
	TCP     Proto = 6
	UDP     Proto = 17
	DCCP    Proto = 33
	GRE     Proto = 47
	ICMPv6  Proto = 58
	SCTP    Proto = 132
	UDPLite Proto = 136
)

// protoNames are the names that conntrack(8) and nft(8) use.
var protoNames = map[Proto]string{
	ICMP: "icmp", TCP: "tcp", UDP: "udp", DCCP: "dccp", GRE: "gre",
	50: "esp", 51: "ah", ICMPv6: "icmpv6", SCTP: "sctp", UDPLite: "udplite",
}

// String is the protocol's name, or its number where it has none.
func (p Proto) String() string {
	if n, ok := protoNames[p]; ok {
		return n
	}
	return strconv.Itoa(int(p))
}

// ParseProto reads a name or a number as conntrack(8) takes them after -p.
func ParseProto(s string) (Proto, error) {
	s = strings.ToLower(s)
	for p, n := range protoNames {
		if s == n {
			return p, nil
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: neither a number from 0 to 255 nor one of tcp, udp, icmp, icmpv6, sctp, dccp, gre, udplite, esp, ah", s)
	}
	return Proto(n), nil
}

// HasPorts tells whether a tuple of this protocol carries ports.
func (p Proto) HasPorts() bool {
	switch p {
	case TCP, UDP, DCCP, SCTP, UDPLite:
		return true
	}
	return false
}
