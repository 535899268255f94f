package api

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"flowd/api/flowdv1"
	"flowd/flow"
)

// clock is a moment of the table's time, and what it is behind the wall clock, in
// ns: not 0 if that was set since the daemon started.
type clock struct{ now, shift int64 }

// toFlow writes a flow as it travels.
func toFlow(f *flow.Flow, c clock) *flowdv1.Flow {
	m := &flowdv1.Flow{
		Protocol: uint32(f.Orig.Proto), Orig: toTuple(&f.Orig), Reply: toTuple(&f.Reply),
		Id: f.ID, State: flowdv1.State(f.State), Offload: flowdv1.Offload(f.Offload()),
		Candidate: f.Candidate, Mark: f.Mark, Labels: toLabels(&f.Labels),
		PacketsOrig: f.Packets[0], PacketsReply: f.Packets[1],
		BytesOrig: f.Bytes[0], BytesReply: f.Bytes[1],
		StartNs: f.Start, SeenNs: f.Seen + c.shift,
		TcpState: uint32(f.TCP), Status: uint32(f.Status),
		LifetimeS: wholeSeconds(f.Lifetime + second/2), OwnLifetime: f.Own,
	}
	left := wholeSeconds(f.Seen + f.Lifetime - c.now + second - 1)
	m.ExpiresS = &left
	if f.Expires != 0 {
		left := wholeSeconds(int64(f.Expires)*second - c.now + second - 1)
		m.KernelExpiresS = &left
	}
	return m
}

// second is one in the table's time.
const second = int64(1e9)

// wholeSeconds rounds a time span in ns down, and one before 0 to 0.
func wholeSeconds(ns int64) uint32 { return uint32(min(max(0, ns/second), math.MaxUint32)) }

func toTuple(k *flow.Key) *flowdv1.Tuple {
	return &flowdv1.Tuple{
		Src: k.SrcAddr().AsSlice(), Dst: k.DstAddr().AsSlice(),
		Sport: uint32(k.SrcPort), Dport: uint32(k.DstPort), Zone: uint32(k.Zone),
	}
}

func toLabels(bits *[16]byte) []uint32 {
	var labels []uint32
	for i, b := range bits {
		for n := range 8 {
			if b&(1<<n) != 0 {
				labels = append(labels, uint32(i*8+n))
			}
		}
	}
	return labels
}

func toChange(c *flow.Change, shift int64) *flowdv1.Change {
	m := &flowdv1.Change{
		Seq: c.Seq, TimeNs: c.Time + shift, Event: c.Kind.String(), Reason: c.Reason.String(),
		Flow: toFlow(&c.Flow, clock{c.Time, shift}),
	}
	if c.Kind.Ends() {
		m.Flow.ExpiresS, m.Flow.KernelExpiresS = nil, nil
	}
	return m
}

// fromFilter checks a filter and returns it as the table understands it.
func fromFilter(m *flowdv1.Filter) (*flow.Filter, error) {
	if m == nil {
		return &flow.Filter{}, nil
	}
	q := &flow.Filter{ID: m.Id, Mark: m.Mark, MarkMask: m.MarkMask}
	var errs [9]error
	q.Proto, errs[0] = narrow[flow.Proto]("protocol", m.Protocol, math.MaxUint8)
	q.Src, errs[1] = fromPrefix("src", m.Src)
	q.Dst, errs[2] = fromPrefix("dst", m.Dst)
	q.SrcPort, errs[3] = narrow[uint16]("sport", m.Sport, math.MaxUint16)
	q.DstPort, errs[4] = narrow[uint16]("dport", m.Dport, math.MaxUint16)
	q.Zone, errs[5] = narrow[uint16]("zone", m.Zone, math.MaxUint16)
	q.State, errs[6] = narrow[flow.State]("state", m.State, flowdv1.State(flow.StateClosed))
	q.Offload, errs[7] = narrow[flow.Offload]("offload", m.Offload, flowdv1.Offload(flow.OffloadHardware))
	if q.Src.IsValid() && q.Dst.IsValid() && q.Src.Addr().Is4() != q.Dst.Addr().Is4() {
		errs[2] = fmt.Errorf("src %v and dst %v: IPv4 and IPv6 mixed", q.Src, q.Dst)
	}
	if m.Mark == nil && m.MarkMask != 0 {
		errs[8] = fmt.Errorf("mark_mask %#x: no mark that it could be of", m.MarkMask)
	}
	return q, errors.Join(errs[:]...)
}

// narrow converts an optional number of the wire to the type that the table has.
func narrow[To ~uint8 | ~uint16, From ~uint32 | ~int32](name string, v *From, limit From) (*To, error) {
	if v == nil {
		return nil, nil
	}
	if *v < 0 || *v > limit {
		return nil, fmt.Errorf("%s %d: not from 0 to %d", name, *v, limit)
	}
	to := To(*v)
	return &to, nil
}

// fromPrefix reads an address or a prefix.
func fromPrefix(name, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s %q: neither an address nor a prefix such as 192.0.2.0/24", name, s)
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}
