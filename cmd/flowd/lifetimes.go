package main

import (
	"log/slog"
	"time"

	"flowd/ct"
	"flowd/engine"
	"flowd/flow"
	"flowd/nft"
	"flowd/policy"
)

// kernelReserve is the part of the kernel's table that flowd leaves free, one in so
// many, where that table is what limits it: the kernel refuses connections, or takes
// others that flowd would not choose, when it is full.
const kernelReserve = 16

// maxLimit is as many flows as a table can number, and more than any memory holds.
const maxLimit = 1 << 30

// judgedBy is what the configuration has flows judged by, in a kernel as it is set now.
func judgedBy(cfg policy.Config, log *slog.Logger) engine.Config {
	return engine.Config{Ageing: cfg.Ageing.Lifetimes(), Timers: kernelTimers(), Limit: limit(cfg.Flowtable.MaxFlows, log)}
}

// limit is how many flows there may be: what is wanted, but less than the kernel has
// room for.
func limit(wanted uint64, log *slog.Logger) int {
	wanted = min(wanted, maxLimit)
	most, err := ct.ReadSysctl("nf_conntrack_max")
	if err != nil || most <= 0 { // 0: the kernel has no limit
		return int(wanted)
	}
	room := most - most/kernelReserve
	if wanted == 0 {
		return room
	}
	if wanted > uint64(room) {
		log.Info("the kernel's connection table holds less than max_flows: as many are kept as it has room for",
			"max_flows", wanted, "kept", room, "net.netfilter.nf_conntrack_max", most)
		return room
	}
	return int(wanted)
}

// kernelTimers reads them; what the kernel does not have stays as it is by default.
func kernelTimers() flow.KernelTimers {
	k := flow.DefaultTimers
	for name, to := range map[string]*uint32{
		"nf_flowtable_tcp_timeout": &k.FlowTCP, "nf_flowtable_udp_timeout": &k.FlowUDP,
		"nf_conntrack_tcp_timeout_established": &k.Established, "nf_conntrack_udp_timeout_stream": &k.UDPStream,
		"nf_conntrack_udp_timeout": &k.UDP,
	} {
		if n, err := ct.ReadSysctl(name); err == nil && n >= 0 {
			*to = uint32(n)
		}
	}
	return k
}

// idleTimeouts are the namespace's own timeouts of idle connections as the policy has
// them.
func idleTimeouts(a policy.Ageing) []ct.Sysctl {
	l := a.Lifetimes()
	of := func(p flow.Proto) uint32 {
		return seconds(time.Duration(l.Lifetime(p, 0, flow.StateEstablished)))
	}
	return ct.Timeouts(of(flow.TCP), of(flow.UDP))
}

// timeouts are what the kernel is to age connections by that it does not offload: it
// then ends them by itself when their life is over, with or without flowd.
func timeouts(a policy.Ageing) *nft.Timeouts {
	t := &nft.Timeouts{
		UDP: nft.UDPTimeouts{Unreplied: seconds(min(a.Unreplied, a.Idle)), Replied: seconds(a.Idle)},
		TCP: nft.TCPTimeouts{
			Handshake: seconds(a.TCP.Handshake), Established: seconds(a.TCP.Established), HalfClosed: seconds(a.TCP.HalfClosed),
		},
	}
	for _, p := range a.Protocols {
		t.Ports = append(t.Ports, nft.PortTimeout{Proto: p.Protocol, Port: p.Port, Idle: seconds(p.Idle)})
	}
	return t
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

// returning is how much longer than the flowtable keeps a silent flow it must live, in
// seconds, to be offloaded: what it has left when it is taken out, for whatever reason,
// is its timeout less that of the flowtable (flow_offload_fixup_ct).
const returning = 5

// shortLived are the services whose flows live for no longer than the flowtable would
// keep them: there they would outlive it, and offload does little for them.
func shortLived(a policy.Ageing, k flow.KernelTimers) []nft.Service {
	kept := map[flow.Proto]uint32{flow.TCP: k.FlowTCP, flow.UDP: k.FlowUDP}
	named := []nft.Service{{Proto: flow.TCP}, {Proto: flow.UDP}}
	for _, p := range a.Protocols {
		named = append(named, nft.Service{Proto: p.Protocol, Port: p.Port})
	}
	l := a.Lifetimes()
	var services []nft.Service
	for _, s := range named {
		life := time.Duration(l.Lifetime(s.Proto, s.Port, flow.StateEstablished))
		if kept[s.Proto] > 0 && seconds(life) < kept[s.Proto]+returning {
			services = append(services, s)
		}
	}
	return services
}
