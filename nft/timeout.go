package nft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"flowd/flow"
)

// Timeouts is how long the kernel itself keeps connections that are silent, on the
// slow path: an offloaded connection does not age by them, neither in the flowtable
// nor after it. All are whole seconds, of which the kernel gets at most maxTimeout;
// 0 leaves what it is set to (net.netfilter.nf_conntrack_*_timeout_*).
//
// A connection gets its timeouts with its first packet
// (nft_ct.c, nft_ct_timeout_obj_eval), from an object that carries the values in its
// name, since the kernel cannot change those of an object. When values change, the
// objects that are no longer wanted go in the same transaction. The connections that
// have them fall back to the kernel's settings with their next packet
// (nf_ct_untimeout, which walks the whole table of connections), and newer kernels
// drop what waits in the namespace's NFQUEUEs (commit 36eae0956f65, "netfilter:
// nft_ct: drop pending enqueued packets on removal", in the stable kernels of 2026).
type Timeouts struct {
	UDP   UDPTimeouts   // of each UDP connection that Ports does not name
	TCP   TCPTimeouts   // of each TCP connection that Ports does not name
	Ports []PortTimeout // exceptions; of two for one port the first counts
}

// UDPTimeouts are UDP's: until there was a reply and the connection is 2 seconds old,
// and with the packets from then on (nf_conntrack_proto_udp.c,
// nf_conntrack_udp_packet). A question and its answer leave Unreplied in force.
type UDPTimeouts struct{ Unreplied, Replied uint32 }

// TCPTimeouts are TCP's, by the kernel's states (nf_conntrack_tcp.h). Those after the
// second FIN or a RST stay the kernel's.
type TCPTimeouts struct {
	Handshake   uint32 // SYN_SENT, SYN_RECV, SYN_SENT2
	Established uint32 // ESTABLISHED
	HalfClosed  uint32 // FIN_WAIT, CLOSE_WAIT: one side has closed
}

// A PortTimeout is how long a connection to one port may be silent: for UDP both
// timeouts, yet no longer without reply than any other; for TCP that of established
// connections.
type PortTimeout struct {
	Proto flow.Proto // TCP or UDP; others are ignored
	Port  uint16     // destination in the original direction, before NAT; 0: each that is not named
	Idle  uint32     // 0: ignored
}

// maxTimeout is what fits the kernel's clock of 1000 ticks a second, compared as a
// signed 32-bit number (nf_conntrack.h, nf_ct_is_expired): 24 days.
const maxTimeout = 1<<31/1000 - 1

// A timeout is one wanted object, and the connections that get it.
type timeout struct {
	name   string
	proto  flow.Proto
	values []value  // those above 0
	ports  []uint16 // sorted; empty: all that no object before it took
}

// A value is the timeout of one state of a connection.
type value struct {
	state   uint16 // CTA_TIMEOUT_*
	text    string // of the state
	usual   uint32 // what nft takes for the default, and does not list
	seconds uint32
}

// all returns the wanted objects in the order in which they are looked for: for each
// protocol those of single ports, then that of the others.
func (t *Timeouts) all() []timeout {
	if t == nil {
		return nil
	}
	return append(t.of(flow.UDP), t.of(flow.TCP)...)
}

func (t *Timeouts) of(p flow.Proto) []timeout {
	usual := t.object(p, 0)
	named := map[uint16]bool{}
	ports := map[uint32][]uint16{} // by idle time
	for _, e := range t.Ports {
		if e.Proto != p || e.Idle == 0 || named[e.Port] {
			continue
		}
		named[e.Port] = true
		if e.Port == 0 {
			usual = t.object(p, e.Idle)
		} else {
			idle := min(e.Idle, maxTimeout)
			ports[idle] = append(ports[idle], e.Port)
		}
	}
	var all []timeout
	for _, idle := range slices.Sorted(maps.Keys(ports)) {
		if o := t.object(p, idle); o.name != usual.name {
			o.ports = slices.Sorted(slices.Values(ports[idle]))
			all = append(all, o)
		}
	}
	if len(usual.values) > 0 {
		all = append(all, usual)
	}
	return all
}

// object returns the object for connections that may be idle for so long, or for
// those that have no time of their own: 0.
func (t *Timeouts) object(p flow.Proto, idle uint32) timeout {
	o := timeout{proto: p}
	if p == flow.UDP {
		unreplied, replied := seconds(t.UDP.Unreplied), seconds(cmp.Or(idle, t.UDP.Replied))
		if idle > 0 && (unreplied == 0 || unreplied > replied) {
			unreplied = replied
		}
		o.name = fmt.Sprintf("udp_%ds_%ds", unreplied, replied)
		if unreplied == replied {
			o.name = fmt.Sprintf("udp_%ds", replied)
		}
		// uapi/linux/netfilter/nfnetlink_cttimeout.h; nftables, src/rule.c,
		// udp_dflt_timeout.
		o.values = []value{{1, "unreplied", 30, unreplied}, {2, "replied", 120, replied}}
	} else {
		handshake, half := seconds(t.TCP.Handshake), seconds(t.TCP.HalfClosed)
		established := seconds(cmp.Or(idle, t.TCP.Established))
		o.name = fmt.Sprintf("tcp_%ds_%ds_%ds", handshake, established, half)
		o.values = []value{ // tcp_dflt_timeout
			{1, "syn_sent", 120, handshake},
			{2, "syn_recv", 60, handshake},
			{3, "established", 432000, established},
			{4, "fin_wait", 120, half},
			{5, "close_wait", 60, half},
			{9, "syn_sent2", 120, handshake},
		}
	}
	o.values = slices.DeleteFunc(o.values, func(v value) bool { return v.seconds == 0 })
	return o
}

// seconds returns what the kernel is sent for n.
func seconds(n uint32) uint32 { return min(n, maxTimeout) }

// id is the object's identity in the table.
func (t timeout) id() objectID { return objectID{objectTimeout, t.name} }

// fits tells whether the object that the kernel has is as wanted. It has a value for
// each state.
func (t timeout) fits(have objectState) bool {
	return have.proto == t.proto && !slices.ContainsFunc(t.values, func(v value) bool {
		return have.values[v.state] != v.seconds
	})
}

// rule returns the rule that gives the object to its connections.
func (t timeout) rule() rule {
	r := rule{l4proto(t.proto)}
	if len(t.ports) == 0 {
		return append(r, setTimeout(t.name))
	}
	return append(r, toPorts(t.name), setTimeout(t.name), verdict(returns, ""))
}

// shown returns the values that nft lists. If all are those that it takes for the
// defaults it lists none, and cannot read that: then they are all shown.
func (t timeout) shown() []value {
	shown := slices.DeleteFunc(slices.Clone(t.values), func(v value) bool { return v.seconds == v.usual })
	if len(shown) == 0 {
		return t.values
	}
	return shown
}
