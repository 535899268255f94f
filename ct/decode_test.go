package ct

import (
	"encoding/binary"
	"flag"
	"net/netip"
	"os"
	"testing"

	"flowd/flow"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// recorded holds messages as a kernel sent them: each is a whole netlink message,
// which begins with its length. The test with build tag kernel records it anew.
const recorded = "testdata/messages.bin"

var record = flag.String("record", "", "file to write the kernel's messages to")

func readRecorded(t testing.TB) [][]byte {
	t.Helper()
	data, err := os.ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	var msgs [][]byte
	for len(data) >= nlmsgHdrLen {
		n := int(binary.NativeEndian.Uint32(data))
		if n < nlmsgHdrLen || n > len(data) {
			t.Fatalf("%s: cut off after %d messages", recorded, len(msgs))
		}
		msgs = append(msgs, data[:n:n])
		data = data[n:]
	}
	return msgs
}

// judge has ti-mo/conntrack decode the same message. Where both accept it they
// must agree on every field; ok tells whether both accept.
func judge(t testing.TB, msg []byte) (ev flow.Event, ours, theirs error) {
	t.Helper()
	ours = decode(&ev, msg)
	var e conntrack.Event
	if len(msg) < nlmsgHdrLen {
		return ev, ours, unix.EINVAL
	}
	ne := binary.NativeEndian
	theirs = e.Unmarshal(netlink.Message{
		Header: netlink.Header{Length: ne.Uint32(msg), Type: netlink.HeaderType(ne.Uint16(msg[4:])), Flags: netlink.HeaderFlags(ne.Uint16(msg[6:]))},
		Data:   msg[nlmsgHdrLen:],
	})
	if ours == nil && theirs == nil {
		compare(t, &ev, &e)
	}
	return ev, ours, theirs
}

func compare(t testing.TB, ev *flow.Event, e *conntrack.Event) {
	t.Helper()
	f := e.Flow
	check := func(field string, ours, theirs any) {
		if ours != theirs {
			t.Errorf("%s: %v, but ti-mo/conntrack reads %v", field, ours, theirs)
		}
	}
	kinds := map[flow.Kind]string{flow.New: "New", flow.Update: "Update", flow.Destroy: "Destroy"}
	check("kind", kinds[ev.Kind], map[uint8]string{1: "New", 2: "Update", 3: "Destroy"}[uint8(e.Type)])
	check("id", ev.ID, f.ID)
	check("status", uint32(ev.Status), uint32(f.Status))
	check("mark", ev.Mark, f.Mark)
	check("timeout", ev.Timeout, f.Timeout)
	check("packets", ev.Packets, [2]uint64{f.CountersOrig.Packets, f.CountersReply.Packets})
	check("bytes", ev.Bytes, [2]uint64{f.CountersOrig.Bytes, f.CountersReply.Bytes})
	check("labels", ev.Has&flow.HasLabels != 0, f.Labels != nil)
	if len(f.Labels) == len(ev.Labels) {
		check("label bits", ev.Labels, [16]byte(f.Labels))
	}
	if ev.Has&flow.HasStart != 0 {
		check("start", ev.Start, f.Timestamp.Start.UnixNano())
	}
	if ev.Has&flow.HasStop != 0 {
		check("stop", ev.Stop, f.Timestamp.Stop.UnixNano())
	}
	check("TCP state there", ev.Has&flow.HasTCP != 0, f.ProtoInfo.TCP != nil)
	if f.ProtoInfo.TCP != nil {
		check("TCP state", uint8(ev.TCP), f.ProtoInfo.TCP.State)
	}
	compareTuple(t, "original", &ev.Orig, f.Zone, &f.TupleOrig)
	if ev.Has&flow.HasReply != 0 {
		compareTuple(t, "reply", &ev.Reply, f.Zone, &f.TupleReply)
	}
}

func compareTuple(t testing.TB, dir string, k *flow.Key, zone uint16, tuple *conntrack.Tuple) {
	t.Helper()
	want := flow.Key{Proto: flow.Proto(tuple.Proto.Protocol), Zone: zone, Family: k.Family}
	if tuple.Zone != 0 {
		want.Zone = tuple.Zone
	}
	put := func(dst *[16]byte, a netip.Addr) {
		if a.IsValid() {
			copy(dst[:], a.AsSlice())
		}
	}
	put(&want.Src, tuple.IP.SourceAddress)
	put(&want.Dst, tuple.IP.DestinationAddress)
	want.SrcPort, want.DstPort = tuple.Proto.SourcePort, tuple.Proto.DestinationPort
	if p := tuple.Proto; p.ICMPv4 || p.ICMPv6 {
		want.SrcPort, want.DstPort = p.ICMPID, uint16(p.ICMPType)<<8|uint16(p.ICMPCode)
	}
	if *k != want {
		t.Errorf("%s tuple: %v, but ti-mo/conntrack reads %v", dir, k, want)
	}
}

// TestDecodeRecorded holds the decoder against messages of three kernels.
func TestDecodeRecorded(t *testing.T) {
	seen := map[string]int{}
	for i, msg := range readRecorded(t) {
		ev, ours, theirs := judge(t, msg)
		if ours != nil || theirs != nil {
			t.Errorf("message %d: we say %v, ti-mo/conntrack %v\n%x", i, ours, theirs, msg)
			continue
		}
		note := func(what string, there bool) {
			if there {
				seen[what]++
			}
		}
		note("new", ev.Kind == flow.New)
		note("update", ev.Kind == flow.Update)
		note("destroy", ev.Kind == flow.Destroy)
		note("IPv6", ev.Orig.Family == flow.IPv6)
		note("TCP", ev.Orig.Proto == flow.TCP)
		note("UDP", ev.Orig.Proto == flow.UDP)
		note("ICMP", ev.Orig.Proto == flow.ICMP)
		note("ICMPv6", ev.Orig.Proto == flow.ICMPv6)
		note("offloaded", ev.Status&flow.StatusOffload != 0)
		note("without timeout", ev.Has&flow.HasTimeout == 0)
		note("without TCP state", ev.Orig.Proto == flow.TCP && ev.Has&flow.HasTCP == 0)
		note("counters", ev.Has&flow.HasCounters != 0)
		note("start", ev.Has&flow.HasStart != 0)
		note("stop", ev.Has&flow.HasStop != 0)
		note("mark", ev.Has&flow.HasMark != 0)
		note("labels", ev.Has&flow.HasLabels != 0)
		note("zone", ev.Orig.Zone != 0)
		note("NAT", ev.Has&flow.HasReply != 0 && ev.Reply != ev.Orig.Reverse())
	}
	for _, what := range []string{
		"new", "update", "destroy", "IPv6", "TCP", "UDP", "ICMP", "ICMPv6", "offloaded", "without timeout",
		"without TCP state", "counters", "start", "stop", "mark", "labels", "zone", "NAT",
	} {
		if seen[what] == 0 {
			t.Errorf("the record has no message with %s: it does not test what it should", what)
		}
	}
}

// TestDecodeGenerated holds the decoder against messages that a kernel could send.
func TestDecodeGenerated(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		msg := generate(rt)
		_, ours, theirs := judge(t, msg)
		if ours != nil || theirs != nil {
			rt.Fatalf("we say %v, ti-mo/conntrack %v\n%x", ours, theirs, msg)
		}
		if t.Failed() {
			rt.Fatalf("disagreement on\n%x", msg)
		}
	})
}

// FuzzDecode looks for a panic, for memory kept, and for disagreement.
func FuzzDecode(f *testing.F) {
	for _, msg := range readRecorded(f) {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) > nlmsgHdrLen+nfgenmsgLen && notTheKernels(msg[nlmsgHdrLen+nfgenmsgLen:], 4) {
			var ev flow.Event
			decode(&ev, msg) // there is no right reading to agree on
			return
		}
		judge(t, msg)
	})
}

// notTheKernels tells whether the attributes, at any depth, have what no kernel
// sends and decoders may read as they like: one type twice, fields
// of ICMP beside ports or in another protocol, or a type above 255, which the judge takes for another.
func notTheKernels(data []byte, depth int) bool {
	a := attrs{rest: data}
	seen := map[uint16]bool{}
	var first byte // of the protocol's number, in the nest that has one
	for a.next() {
		if a.typ > 255 || seen[a.typ] || depth > 0 && notTheKernels(a.data, depth-1) {
			return true
		}
		seen[a.typ] = true
		if a.typ == ctaProtoNum && len(a.data) > 0 {
			first = a.data[0]
		}
	}
	ports := seen[ctaProtoSrcPort] || seen[ctaProtoDstPort]
	icmp := seen[ctaProtoICMPID] || seen[ctaProtoICMPType] || seen[ctaProtoICMPCode]
	icmpv6 := seen[ctaProtoICMPv6ID] || seen[ctaProtoICMPv6Type] || seen[ctaProtoICMPv6Code]
	proto := flow.Proto(first)
	return depth == 2 && (icmp && proto != flow.ICMP || icmpv6 && proto != flow.ICMPv6 ||
		ports && (proto == flow.ICMP || proto == flow.ICMPv6))
}

func TestDecodeRefuses(t *testing.T) {
	good := readRecorded(t)[0]
	for name, msg := range map[string][]byte{
		"nothing":         nil,
		"a header only":   good[:nlmsgHdrLen],
		"no tuple":        good[:nlmsgHdrLen+nfgenmsgLen],
		"a cut attribute": good[:len(good)-5],
		"another family":  mutate(good, nlmsgHdrLen, unix.AF_BRIDGE),
		"another message": mutate(good, 4, 9),
	} {
		var ev flow.Event
		if err := decode(&ev, msg); err == nil {
			t.Errorf("%s: accepted as %+v", name, ev)
		}
	}
}

func mutate(msg []byte, at int, b byte) []byte {
	m := append([]byte(nil), msg...)
	m[at] = b
	return m
}

func TestDecodeAllocatesNothing(t *testing.T) {
	msgs := readRecorded(t)
	var ev flow.Event
	if n := testing.AllocsPerRun(100, func() {
		for _, m := range msgs {
			if decode(&ev, m) != nil {
				t.Fatal("recorded message refused")
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	msgs := readRecorded(b)
	var ev flow.Event
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := decode(&ev, msgs[i%len(msgs)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeTiMo is the same with the library that judges us.
func BenchmarkDecodeTiMo(b *testing.B) {
	msgs := readRecorded(b)
	ne := binary.NativeEndian
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		msg := msgs[i%len(msgs)]
		var e conntrack.Event
		if err := e.Unmarshal(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(ne.Uint16(msg[4:])), Flags: netlink.HeaderFlags(ne.Uint16(msg[6:]))},
			Data:   msg[nlmsgHdrLen:],
		}); err != nil {
			b.Fatal(err)
		}
	}
}
