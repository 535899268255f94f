package flow

// Ageing says how long, in ns, a flow may show no packet, by how far it has come.
// port is the destination's of the original direction, 0 where there is none.
type Ageing interface {
	Lifetime(p Proto, port uint16, s State) int64
}

// KernelTimers are the kernel's own times, in seconds, of the network namespace:
// files below /proc/sys/net/netfilter.
type KernelTimers struct {
	// FlowTCP and FlowUDP are how long the flowtable keeps a flow that shows no
	// packet, before it hands it back to conntrack: nf_flowtable_tcp_timeout and
	// nf_flowtable_udp_timeout.
	FlowTCP, FlowUDP uint32
	// What conntrack gives a flow then, less the above, is the namespace's timeout
	// and not that of a timeout object (flow_offload_fixup_ct):
	// nf_conntrack_tcp_timeout_established and nf_conntrack_udp_timeout_stream.
	Established, UDPStream uint32
	// UDP is what it gives a UDP flow before it is assured: nf_conntrack_udp_timeout.
	UDP uint32
}

// DefaultTimers are the kernel's defaults.
var DefaultTimers = KernelTimers{FlowTCP: 30, FlowUDP: 30, Established: 432000, UDPStream: 120, UDP: 30}

// SetAgeing has lifetimes be others from now on, for the flows there are too.
func (t *Table) SetAgeing(a Ageing, k KernelTimers) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ageing, t.timers, t.rearm = a, k, 0
}

// SetLifetime gives a flow a lifetime of its own, in seconds; 0 gives it back to
// the policy. It reports whether the flow is there still. The lifetime holds while
// the flow is established or half-closed, and where it is shorter also before.
func (t *Table) SetLifetime(h Handle, seconds uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.holds(h) {
		return false
	}
	r := t.slab.at(h.slot)
	r.life = seconds
	if at := t.look(r); r.reason == ReasonNone && !r.bits.has(asked|adjusted) || int32(t.tickAt(at)-r.armed) < 0 {
		t.arm(h.slot, at)
	}
	return true
}

// readjust goes on with having the flows there are looked at in time for
// lifetimes that have become shorter.
func (t *Table) readjust(max int) {
	end := min(t.slab.next, t.rearm+uint32(max))
	for ; t.rearm < end; t.rearm++ {
		if t.slab.used(t.rearm) {
			t.hasten(t.rearm)
		}
	}
}
