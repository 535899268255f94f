package flow

import "net/netip"

// Filter selects flows with conntrack(8)'s words. A nil or zero field selects
// everything.
//
// A Filter that names a whole tuple (protocol, both addresses and, where the
// protocol has them, both ports) finds the flow from either direction, as the
// packets look before or after translation. Any other looks at the original
// direction only, before and after translation, as conntrack(8) users expect of
// "-s ADDRESS".
type Filter struct {
	Proto            *Proto
	Src, Dst         netip.Prefix
	SrcPort, DstPort *uint16
	Zone             *uint16
	ID               *uint32
	State            *State
	Offload          *Offload
	Mark             *uint32
	MarkMask         uint32 // with Mark; 0 means all bits
}

// Match tells whether the filter selects the flow.
func (q *Filter) Match(f *Flow) bool {
	return q.matchFacts(f) && q.matchTuple(f)
}

func (q *Filter) matchFacts(f *Flow) bool {
	mask := q.MarkMask
	if mask == 0 {
		mask = ^uint32(0)
	}
	switch {
	case q.Proto != nil && f.Orig.Proto != *q.Proto,
		q.Zone != nil && f.Orig.Zone != *q.Zone,
		q.ID != nil && f.ID != *q.ID,
		q.State != nil && f.State != *q.State,
		q.Offload != nil && f.Offload() != *q.Offload,
		q.Mark != nil && f.Mark&mask != *q.Mark&mask:
		return false
	}
	return true
}

func (q *Filter) matchTuple(f *Flow) bool {
	if !q.Src.IsValid() && !q.Dst.IsValid() && q.SrcPort == nil && q.DstPort == nil {
		return true
	}
	translated := f.Reply.Reverse()
	if q.matchKey(&f.Orig) || q.matchKey(&translated) {
		return true
	}
	if _, whole := q.Key(); !whole {
		return false
	}
	back := f.Orig.Reverse()
	return q.matchKey(&f.Reply) || q.matchKey(&back)
}

func (q *Filter) matchKey(k *Key) bool {
	return (!q.Src.IsValid() || q.Src.Contains(k.SrcAddr())) &&
		(!q.Dst.IsValid() || q.Dst.Contains(k.DstAddr())) &&
		(q.SrcPort == nil || *q.SrcPort == k.SrcPort) &&
		(q.DstPort == nil || *q.DstPort == k.DstPort)
}

// Key returns the tuple that the filter names, when it names a whole one.
func (q *Filter) Key() (Key, bool) {
	if q.Proto == nil || !q.Src.IsSingleIP() || !q.Dst.IsSingleIP() {
		return Key{}, false
	}
	var sport, dport, zone uint16
	if q.Proto.HasPorts() {
		if q.SrcPort == nil || q.DstPort == nil {
			return Key{}, false
		}
		sport, dport = *q.SrcPort, *q.DstPort
	}
	if q.Zone != nil {
		zone = *q.Zone
	}
	k, err := MakeKey(*q.Proto, netip.AddrPortFrom(q.Src.Addr(), sport), netip.AddrPortFrom(q.Dst.Addr(), dport), zone)
	return k, err == nil
}
