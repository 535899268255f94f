package main

import (
	"encoding/json"
	"io"
	"net/netip"
	"time"

	"flowd/api/flowdv1"
	"flowd/flow"
)

// flowJSON is a flow as one JSON object: units stand in the names, and what the
// kernel does not give is absent.
type flowJSON struct {
	Protocol  string    `json:"protocol"`
	tupleJSON           // original direction
	Reply     tupleJSON `json:"reply"`
	Zone      uint32    `json:"zone"`
	ID        uint32    `json:"id"`
	State     string    `json:"state"`
	Offload   string    `json:"offload"`
	Evict     string    `json:"evict"`
	Mark      uint32    `json:"mark"`
	Labels    []uint32  `json:"labels"`
	Packets   [2]uint64 `json:"packets"` // original, reply
	Bytes     [2]uint64 `json:"bytes"`
	AgeS      float64   `json:"age_s"`
	IdleS     float64   `json:"idle_s"`
	ExpiresS  *uint32   `json:"expires_s,omitempty"` // not of one that has ended
	LifetimeS uint32    `json:"lifetime_s"`
	Own       bool      `json:"own_lifetime,omitempty"`

	KernelExpiresS *uint32 `json:"kernel_expires_s,omitempty"`
}

// tupleJSON has ports, or what the protocol has in their place.
type tupleJSON struct {
	Src    string  `json:"src"`
	Sport  *uint32 `json:"sport,omitempty"`
	Dst    string  `json:"dst"`
	Dport  *uint32 `json:"dport,omitempty"`
	Type   *uint32 `json:"icmp_type,omitempty"`
	Code   *uint32 `json:"icmp_code,omitempty"`
	ICMPID *uint32 `json:"icmp_id,omitempty"`
	SrcKey *uint32 `json:"srckey,omitempty"`
	DstKey *uint32 `json:"dstkey,omitempty"`
}

// changeJSON is a change: what happened, and the flow as it was then.
type changeJSON struct {
	Event  string `json:"event"`
	Seq    uint64 `json:"seq"`
	Time   string `json:"time"` // RFC 3339, with fractions of a second
	Reason string `json:"reason,omitempty"`
	flowJSON
}

func newFlowJSON(f *flowdv1.Flow, now time.Time) flowJSON {
	proto := flow.Proto(f.Protocol)
	j := flowJSON{
		Protocol: proto.String(), tupleJSON: newTupleJSON(proto, f.Orig), Reply: newTupleJSON(proto, f.Reply),
		Zone: f.Orig.GetZone(), ID: f.Id,
		State: flow.State(f.State).String(), Offload: flow.Offload(f.Offload).String(),
		Mark: f.Mark, Labels: f.Labels,
		Packets: [2]uint64{f.PacketsOrig, f.PacketsReply}, Bytes: [2]uint64{f.BytesOrig, f.BytesReply},
		AgeS: seconds(f.StartNs, now), IdleS: seconds(f.SeenNs, now), ExpiresS: f.ExpiresS,
		LifetimeS: f.LifetimeS, Own: f.OwnLifetime, KernelExpiresS: f.KernelExpiresS,
	}
	if j.Labels == nil {
		j.Labels = []uint32{}
	}
	if f.Candidate {
		j.Evict = "candidate"
	}
	return j
}

func newTupleJSON(p flow.Proto, t *flowdv1.Tuple) tupleJSON {
	j := tupleJSON{Src: address(t.GetSrc()), Dst: address(t.GetDst())}
	sport, dport := t.GetSport(), t.GetDport()
	switch {
	case p.HasPorts():
		j.Sport, j.Dport = &sport, &dport
	case p == flow.ICMP || p == flow.ICMPv6:
		typ, code := dport>>8, dport&0xff
		j.Type, j.Code, j.ICMPID = &typ, &code, &sport
	case p == flow.GRE:
		j.SrcKey, j.DstKey = &sport, &dport
	}
	return j
}

func newChangeJSON(c *flowdv1.Change) changeJSON {
	at := time.Unix(0, c.TimeNs)
	return changeJSON{
		Event: c.Event, Seq: c.Seq, Time: at.UTC().Format(time.RFC3339Nano), Reason: c.Reason,
		flowJSON: newFlowJSON(c.Flow, at),
	}
}

func address(b []byte) string {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return ""
	}
	return a.String()
}

// seconds is the time from a moment in ns since the epoch until now, to the
// millisecond; nothing where the moment is not known, and never less than that:
// clocks of two sources differ.
func seconds(since int64, now time.Time) float64 {
	if since == 0 {
		return 0
	}
	return float64(max(0, now.UnixNano()-since)/1e6) / 1e3
}

// printJSON writes one object a line.
func printJSON(w io.Writer, v any) error {
	return json.NewEncoder(w).Encode(v)
}
