package api

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/protobuf/proto"
)

// A flow's every field travels.
func TestToFlow(t *testing.T) {
	f := flow.Flow{
		Orig: tuple(flow.TCP, "10.0.0.5:1000", "192.0.2.1:80", 3), Reply: tuple(flow.TCP, "172.16.0.9:8080", "192.0.2.254:2000", 4),
		Labels: [16]byte{0: 0x81, 15: 0x80}, Packets: [2]uint64{1, 2}, Bytes: [2]uint64{3, 4}, Start: 5, Seen: 90e9 + 6, ID: 7,
		Status: flow.StatusOffload | flow.StatusHWOffload, Mark: 8, Expires: 109, TCP: flow.TCPFinWait,
		State: flow.StateClosing, Candidate: true, Lifetime: 12.5e9, Own: true,
	}
	want := &flowdv1.Flow{
		Protocol: 6,
		Orig:     &flowdv1.Tuple{Src: []byte{10, 0, 0, 5}, Dst: []byte{192, 0, 2, 1}, Sport: 1000, Dport: 80, Zone: 3},
		Reply:    &flowdv1.Tuple{Src: []byte{172, 16, 0, 9}, Dst: []byte{192, 0, 2, 254}, Sport: 8080, Dport: 2000, Zone: 4},
		Id:       7, State: flowdv1.State_STATE_CLOSING, Offload: flowdv1.Offload_OFFLOAD_HARDWARE, Candidate: true,
		Mark: 8, Labels: []uint32{0, 7, 127}, PacketsOrig: 1, PacketsReply: 2, BytesOrig: 3, BytesReply: 4,
		StartNs: 5, SeenNs: 90e9 + 6, ExpiresS: proto.Uint32(3), LifetimeS: 13, OwnLifetime: true, KernelExpiresS: proto.Uint32(9),
		TcpState: 4, Status: 0xc000,
	}
	got := toFlow(&f, clock{now: 100e9})
	if !proto.Equal(got, want) {
		t.Errorf("travels as\n%v, want\n%v", got, want)
	}
	reflected := got.ProtoReflect()
	fields := reflected.Descriptor().Fields()
	for i := range fields.Len() {
		if !reflected.Has(fields.Get(i)) {
			t.Errorf("field %s is not filled in", fields.Get(i).Name())
		}
	}
}

// What is left of a flow's life is rounded up, and given while it lives.
func TestToFlowExpires(t *testing.T) {
	for _, tc := range []struct {
		lifetime, seen, now int64
		want                uint32
	}{
		{180e9, 100e9, 100e9, 180},
		{180e9, 100e9, 100e9 + 1, 180},
		{180e9, 100e9, 101e9, 179},
		{180e9, 100e9, 280e9 - 1, 1},
		{180e9, 100e9, 280e9, 0},
		{180e9, 100e9, 300e9, 0},
		{180e9, 101e9, 100e9, 181},
	} {
		got := toFlow(&flow.Flow{Lifetime: tc.lifetime, Seen: tc.seen}, clock{now: tc.now, shift: 5e9})
		if got.ExpiresS == nil || *got.ExpiresS != tc.want || got.LifetimeS != uint32(tc.lifetime/1e9) {
			t.Errorf("%+v: expires in %v of %d s", tc, got.ExpiresS, got.LifetimeS)
		}
		ended := toChange(&flow.Change{Kind: flow.Recycled, Time: tc.now, Flow: flow.Flow{Seen: tc.seen, Expires: 1}}, 0).Flow
		if ended.ExpiresS != nil || ended.KernelExpiresS != nil {
			t.Errorf("%+v: has ended, and expires in %v, in the kernel in %v", tc, ended.ExpiresS, ended.KernelExpiresS)
		}
	}
}

func TestToFlowKernelExpires(t *testing.T) {
	for _, tc := range []struct {
		expires uint32
		now     int64
		want    *uint32
	}{
		{0, 100e9, nil},
		{100, 100e9, proto.Uint32(0)},
		{99, 100e9, proto.Uint32(0)},
		{101, 100e9, proto.Uint32(1)},
		{math.MaxUint32, 0, proto.Uint32(math.MaxUint32)},
	} {
		got := toFlow(&flow.Flow{Expires: tc.expires}, clock{now: tc.now}).KernelExpiresS
		if (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want {
			t.Errorf("expires at %d, now %d: %v, want %v", tc.expires, tc.now, got, tc.want)
		}
	}
}

func TestToTupleIPv6(t *testing.T) {
	k := tuple(flow.TCP, "[2001:db8::1]:1", "[2001:db8::2]:2", 0)
	if m := toTuple(&k); len(m.Src) != 16 || m.Src[0] != 0x20 || m.Dst[15] != 2 {
		t.Errorf("tuple %v", m)
	}
}

func TestToChange(t *testing.T) {
	c := flow.Change{Seq: 3, Time: 4, Kind: flow.Evicted, Reason: flow.ReasonReset, Flow: flow.Flow{ID: 5}}
	if m := toChange(&c, 0); m.Seq != 3 || m.TimeNs != 4 || m.Event != "evicted" || m.Reason != "reset" || m.Flow.GetId() != 5 {
		t.Errorf("change %v", m)
	}
}

// The numbers of the wire are those of the table, and the names too.
func TestEnumsAgree(t *testing.T) {
	for n, name := range flowdv1.State_name {
		if want := "STATE_" + strings.ToUpper(flow.State(n).String()); name != want {
			t.Errorf("state %d is %s, want %s", n, name, want)
		}
	}
	for n, name := range flowdv1.Offload_name {
		if want := "OFFLOAD_" + strings.ToUpper(flow.Offload(n).String()); name != want {
			t.Errorf("offload %d is %s, want %s", n, name, want)
		}
	}
	if len(flowdv1.State_name) != int(flow.StateClosed)+1 || len(flowdv1.Offload_name) != int(flow.OffloadHardware)+1 {
		t.Error("the table has more states or paths than the wire")
	}
}

func TestFromFilterAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1/32",
		"192.0.2.1/24":          "192.0.2.0/24",
		"2001:db8::1":           "2001:db8::1/128",
		"2001:db8::1/32":        "2001:db8::/32",
		"fe80::1%lan0":          "fe80::1/128",
		"::ffff:192.0.2.1":      "192.0.2.1/32",
		"::ffff:192.0.2.77/120": "192.0.2.0/24",
		"::/0":                  "::/0",
	} {
		q, err := fromFilter(&flowdv1.Filter{Src: in, Dst: in})
		if err != nil || q.Src.String() != want || q.Dst != q.Src {
			t.Errorf("%q is read as %v and %v, %v; want %v", in, q.Src, q.Dst, err, want)
		}
	}
}

// The largest values are values.
func TestFromFilterLimits(t *testing.T) {
	q, err := fromFilter(&flowdv1.Filter{
		Protocol: proto.Uint32(255), Sport: proto.Uint32(65535), Dport: proto.Uint32(0), Zone: proto.Uint32(65535),
		State: flowdv1.State_STATE_CLOSED.Enum(), Offload: flowdv1.Offload_OFFLOAD_HARDWARE.Enum(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *q.Proto != 255 || *q.SrcPort != 65535 || *q.DstPort != 0 || *q.Zone != 65535 ||
		*q.State != flow.StateClosed || *q.Offload != flow.OffloadHardware {
		t.Errorf("understood as %+v", q)
	}
}

// FuzzFromFilter: a filter is refused, or means what it says.
func FuzzFromFilter(f *testing.F) {
	for _, q := range []*flowdv1.Filter{
		{},
		named(tuple(flow.TCP, "10.0.0.9:9", "192.0.2.9:9", 0)),
		{Src: "2001:db8::/32", Zone: proto.Uint32(5), Id: proto.Uint32(6), Mark: proto.Uint32(7), MarkMask: 8},
		{State: flowdv1.State_STATE_CLOSED.Enum(), Offload: flowdv1.Offload_OFFLOAD_HARDWARE.Enum()},
		{Protocol: proto.Uint32(256), Sport: proto.Uint32(65536), State: flowdv1.State(-5).Enum()},
	} {
		wire, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	sample := flow.Flow{Orig: tuple(flow.TCP, "10.0.0.9:9", "192.0.2.9:9", 0), Reply: tuple(flow.TCP, "192.0.2.9:9", "10.0.0.9:9", 0)}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := &flowdv1.Filter{}
		if proto.Unmarshal(wire, m) != nil {
			return
		}
		q, err := fromFilter(m)
		if err != nil {
			return
		}
		if !same(m.Protocol, q.Proto) || !same(m.Sport, q.SrcPort) || !same(m.Dport, q.DstPort) || !same(m.Zone, q.Zone) ||
			!same(m.State, q.State) || !same(m.Offload, q.Offload) || !same(m.Id, q.ID) || !same(m.Mark, q.Mark) || m.MarkMask != q.MarkMask {
			t.Errorf("%v is understood as %+v", m, q)
		}
		for text, p := range map[string]netip.Prefix{m.Src: q.Src, m.Dst: q.Dst} {
			if (text != "") != p.IsValid() || p.IsValid() && p != p.Masked() {
				t.Errorf("%q is understood as %v", text, p)
			}
		}
		q.Match(&sample)
		if k, whole := q.Key(); whole && (k.SrcAddr() != q.Src.Addr() || k.DstAddr() != q.Dst.Addr()) {
			t.Errorf("%v names %v", m, k)
		}
	})
}

// same tells whether two optional numbers are the same one.
func same[A, B ~uint8 | ~uint16 | ~uint32 | ~int32](a *A, b *B) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return int64(*a) == int64(*b)
}

func TestLabels(t *testing.T) {
	for n := range uint32(128) {
		var bits [16]byte
		bits[n/8] = 1 << (n % 8)
		if got := toLabels(&bits); !slices.Equal(got, []uint32{n}) {
			t.Errorf("label %d travels as %v", n, got)
		}
	}
}
