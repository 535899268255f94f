package testenv

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// A FlowsConfig says which flows to make: every one of the server's ports from
// one source port, then from that of the next client, and so on, until there are
// Count.
type FlowsConfig struct {
	Client, Server *Namespace
	// From is the client's address and first source port; a zero address is
	// the one that the route gives, a zero port is 10000.
	From netip.AddrPort
	// To is the server's address and first port; a zero port is 20000.
	To netip.AddrPort
	// Count is how many flows to make; Ports is the number of server ports
	// to spread them on, 0 is 400.
	Count, Ports int
	// Clients is how many addresses, from that of From on, the source ports
	// are spread on; 0 is 1. The client has many after [Lab.Crowd].
	Clients int
	// OneWay flows get no reply.
	OneWay bool
	// Size is the payload of each datagram or request in bytes: 0 is 8, the
	// least for UDP. TCP requests are 65,536 at most.
	Size int
}

// A FlowsResult tells what was done.
type FlowsResult struct {
	Flows     int // distinct five-tuples that reached the server
	Datagrams int // UDP datagrams sent, repeated ones included
	Repeated  int // UDP datagrams sent again because one or its reply was lost
	Elapsed   time.Duration
}

// Bounds of a payload in bytes. A datagram begins with a number that stands for
// its flow.
const (
	leastPayload = 8
	mostPayload  = 1400
)

// complete fills in what is zero and checks the rest.
func (c FlowsConfig) complete() (FlowsConfig, error) {
	if c.Ports == 0 {
		c.Ports = 400
	}
	if c.Size == 0 {
		c.Size = leastPayload
	}
	if c.From.Port() == 0 {
		c.From = netip.AddrPortFrom(c.From.Addr(), 10000)
	}
	if c.To.Port() == 0 {
		c.To = netip.AddrPortFrom(c.To.Addr(), 20000)
	}
	if !c.To.Addr().IsValid() {
		return c, fmt.Errorf("%d flows: no address to send to", c.Count)
	}
	c.Clients = max(c.Clients, 1)
	if c.Count < 1 || c.Ports < 1 {
		return c, fmt.Errorf("%d flows to %d ports: at least 1 each", c.Count, c.Ports)
	}
	if c.Clients > c.Count || c.Clients > 1 && !c.From.Addr().IsValid() {
		return c, fmt.Errorf("%d flows from %d addresses from %v on: not possible", c.Count, c.Clients, c.From.Addr())
	}
	if c.Size < leastPayload || c.Size > mostPayload {
		return c, fmt.Errorf("%d flows of %d bytes: %d to %d are possible", c.Count, c.Size, leastPayload, mostPayload)
	}
	c.Ports = min(c.Ports, c.Count/c.Clients) // so that each client has some
	if _, err := portRange(c.To, c.Ports); err != nil {
		return c, fmt.Errorf("%d flows: server: %w", c.Count, err)
	}
	if _, err := portRange(c.From, (c.sources()+c.Clients-1)/c.Clients); err != nil {
		return c, fmt.Errorf("%d flows: client: %w", c.Count, err)
	}
	return c, nil
}

// sources is the number of pairs of a client's address and a port in use.
func (c FlowsConfig) sources() int { return (c.Count + c.Ports - 1) / c.Ports }

// source is the pair with a number.
func (c FlowsConfig) source(number int) netip.AddrPort {
	addr := c.From.Addr()
	if c.Clients > 1 {
		addr = addAddr(addr, number%c.Clients)
	}
	return netip.AddrPortFrom(addr, c.From.Port()+uint16(number/c.Clients))
}

// addAddr returns the address that is n after addr, in the last 32 bits.
func addAddr(addr netip.Addr, n int) netip.Addr {
	bytes := addr.AsSlice()
	last := bytes[len(bytes)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)+uint32(n))
	sum, _ := netip.AddrFromSlice(bytes) // of the length it had
	return sum
}

// flowMark begins the datagrams of flows that are numbered.
var flowMark = [4]byte{'f', 'l', 'o', 'w'}

// putFlow writes the number of a flow to the start of its datagram.
func putFlow(payload []byte, number int) {
	copy(payload, flowMark[:])
	binary.BigEndian.PutUint32(payload[4:], uint32(number))
}

// getFlow is the inverse of putFlow; ok is false for what putFlow did not write.
func getFlow(payload []byte) (number int, ok bool) {
	if len(payload) < leastPayload || [4]byte(payload) != flowMark {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(payload[4:])), true
}

// A flowSet is the set of flows of which a datagram has arrived. A nil one takes
// no notice. It may be used by many goroutines.
type flowSet struct {
	members []atomic.Bool
	count   atomic.Int64
}

func newFlowSet(size int) *flowSet { return &flowSet{members: make([]atomic.Bool, size)} }

func (s *flowSet) note(payload []byte) {
	if s == nil {
		return
	}
	number, ok := getFlow(payload)
	if ok && number < len(s.members) && !s.members[number].Swap(true) {
		s.count.Add(1)
	}
}

func (s *flowSet) has(number int) bool { return s.members[number].Load() }
