package policy

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"flowd/flow"
)

// Ageing says how long flows live.
type Ageing struct {
	Idle      time.Duration // of every flow not named below
	Unreplied time.Duration // of flows of other protocols than TCP that were never answered
	TCP       TCPAgeing
	Protocols []ProtocolAgeing // no two of the same protocol and port
}

// TCPAgeing says how long the states of a TCP connection last without a packet.
type TCPAgeing struct {
	Established time.Duration
	Handshake   time.Duration // until the handshake is complete
	HalfClosed  time.Duration // one side has said FIN
	Closing     time.Duration // both have, or one RST: until the connection is evicted
}

// ProtocolAgeing says how long the established flows of a protocol live, or
// those to one port of it.
type ProtocolAgeing struct {
	Protocol flow.Proto
	Port     uint16 // of the original direction's destination; 0: every port
	Idle     time.Duration
}

// name is what the entry is about, for messages.
func (p *ProtocolAgeing) name() string {
	if p.Port == 0 {
		return "protocol " + p.Protocol.String()
	}
	return fmt.Sprintf("protocol %s, port %d", p.Protocol, p.Port)
}

func defaultAgeing() Ageing {
	return Ageing{
		Idle:      180 * time.Second, // RFC 4787, REQ-5: not less than two minutes
		Unreplied: 30 * time.Second,  // as the kernel's, nf_conntrack_udp_timeout
		TCP: TCPAgeing{
			Established: 7440 * time.Second, // RFC 5382, REQ-5: two hours and four minutes
			Handshake:   30 * time.Second,   // mostly scans and floods
			HalfClosed:  900 * time.Second,  // the other side may still have much to send
			Closing:     5 * time.Second,    // for segments that are sent again
		},
	}
}

// A timeout is in whole seconds, as the kernel keeps it (CTA_TIMEOUT,
// linux/netfilter/nfnetlink_conntrack.h). It is far below what the kernel's clock
// can tell: nf_ct_expires, net/netfilter/nf_conntrack.h, takes differences of
// jiffies as signed 32 bits, and at HZ=1000 2^31 of them are 24 days.
const (
	minTimeout = time.Second
	maxTimeout = 240 * time.Hour
)

// parseTimeout reads a time span that the kernel can hold.
func parseTimeout(s string) (time.Duration, error) {
	switch v, err := parseSpan(s); {
	case err != nil:
		return 0, err
	case v < minTimeout || v > maxTimeout:
		return 0, fmt.Errorf("%q: must be from 1s to 240h", s)
	case v%time.Second != 0:
		return 0, fmt.Errorf("%q: must be in whole seconds", s)
	default:
		return v, nil
	}
}

// parseClosing reads a time span that may be a fraction of a second.
func parseClosing(s string) (time.Duration, error) {
	v, err := parseSpan(s)
	switch {
	case err == nil && v <= 0:
		return 0, fmt.Errorf("%q: must be more than nothing", s)
	case v > maxTimeout:
		return 0, fmt.Errorf("%q: must be 240h at the most", s)
	}
	return v, err
}

// parseSpan reads a time span as time.ParseDuration takes it.
func parseSpan(s string) (time.Duration, error) {
	v, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q: not a time span such as \"5s\" or \"2m30s\"", s)
	}
	return v, nil
}

// parseProtocol reads a protocol's name or number as the TOML parser gives it.
func parseProtocol(v any) (flow.Proto, error) {
	switch v := v.(type) {
	case string:
		return flow.ParseProto(v)
	case int64:
		return flow.ParseProto(strconv.FormatInt(v, 10))
	}
	return 0, errors.New("must be a protocol's name in quotes, or its number")
}

// Lifetimes is an Ageing made ready to be asked about millions of flows. It does
// not change: any number of goroutines may ask. The zero value is not of use.
type Lifetimes struct {
	unreplied, handshake, halfClosed, closing int64 // ns, as the rest

	established [256]int64            // by protocol
	ports       [256]map[uint16]int64 // by protocol: ports with a life of their own; mostly nil
}

// Lifetimes makes the ageing ready to be asked.
func (a Ageing) Lifetimes() *Lifetimes {
	l := &Lifetimes{
		unreplied:  int64(a.Unreplied),
		handshake:  int64(a.TCP.Handshake),
		halfClosed: int64(a.TCP.HalfClosed),
		closing:    int64(a.TCP.Closing),
	}
	for p := range l.established {
		l.established[p] = int64(a.Idle)
	}
	l.established[flow.TCP] = int64(a.TCP.Established)
	for _, p := range a.Protocols {
		if p.Port == 0 {
			l.established[p.Protocol] = int64(p.Idle)
			continue
		}
		if l.ports[p.Protocol] == nil {
			l.ports[p.Protocol] = make(map[uint16]int64)
		}
		l.ports[p.Protocol][p.Port] = int64(p.Idle)
	}
	return l
}

// Lifetime is how long, in ns, a flow may show no packet. port is the
// destination's of the original direction; protocols without ports have no use
// for it. It allocates nothing.
func (l *Lifetimes) Lifetime(p flow.Proto, port uint16, s flow.State) int64 {
	switch {
	case s == flow.StateClosed:
		return l.closing
	case s == flow.StateClosing:
		return l.halfClosed
	case s == flow.StateNew && p == flow.TCP:
		return l.handshake
	}
	life, ok := l.ports[p][port]
	if !ok {
		life = l.established[p]
	}
	if s == flow.StateNew {
		return min(l.unreplied, life)
	}
	return life
}
