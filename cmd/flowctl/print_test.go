package main

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"testing"
	"time"

	"flowd/api/flowdv1"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// golden compares with testdata/NAME.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func tuple(src, dst string, sport, dport uint32) *flowdv1.Tuple {
	return &flowdv1.Tuple{
		Src: netip.MustParseAddr(src).AsSlice(), Dst: netip.MustParseAddr(dst).AsSlice(), Sport: sport, Dport: dport,
	}
}

// samples is one flow of each kind.
func samples() []*flowdv1.Flow {
	ago := func(d time.Duration) int64 { return noon.Add(-d).UnixNano() }
	expires := uint32(86399)
	return []*flowdv1.Flow{
		{
			Protocol: 6, Orig: tuple("192.0.2.1", "198.51.100.2", 40000, 443), Reply: tuple("198.51.100.2", "203.0.113.9", 443, 40000),
			Id: 7, State: 1, Offload: 1, Mark: 0x10, Labels: []uint32{5, 64}, PacketsOrig: 10, PacketsReply: 20,
			BytesOrig: 1500, BytesReply: 3 << 30, StartNs: ago(26 * time.Hour), SeenNs: ago(1500 * time.Millisecond),
		},
		{
			Protocol: 17, Orig: tuple("2001:db8::1", "2001:db8::53", 5353, 53), Reply: tuple("2001:db8::53", "2001:db8::1", 53, 5353),
			Id: 8, StartNs: ago(90 * time.Second), SeenNs: ago(0), ExpiresS: &expires,
		},
		{
			Protocol: 1, Orig: tuple("192.0.2.1", "198.51.100.2", 77, 8<<8), Reply: tuple("198.51.100.2", "192.0.2.1", 77, 0),
			Id: 9, State: 3, Candidate: true, StartNs: ago(time.Hour), SeenNs: ago(-time.Second), // a clock ahead of ours
		},
		{Protocol: 47, Orig: tuple("192.0.2.1", "198.51.100.2", 1, 2), Reply: tuple("198.51.100.2", "192.0.2.1", 2, 1), Id: 10, Offload: 2},
		{Protocol: 99, Orig: tuple("192.0.2.1", "198.51.100.2", 0, 0), Reply: tuple("198.51.100.2", "192.0.2.1", 0, 0), Id: 4294967295},
	}
}

func TestFlows(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			var b bytes.Buffer
			p := newFlowPrinter(&b, format)
			p.now = func() time.Time { return noon }
			all := samples()
			// In two batches, as they come from the daemon: columns only widen.
			for _, batch := range [][]*flowdv1.Flow{all[:1], all[1:], nil} {
				if err := p.print(batch); err != nil {
					t.Fatal(err)
				}
			}
			golden(t, "flows."+format, b.Bytes())
		})
	}
}

func TestChanges(t *testing.T) {
	time.Local = time.UTC
	for _, format := range formats {
		var b bytes.Buffer
		for i, f := range samples() {
			c := &flowdv1.Change{Seq: uint64(i + 1), TimeNs: noon.UnixNano(), Event: "new", Flow: f}
			if i == 0 {
				c.Event, c.Reason = "evicted", "closed"
			}
			if err := printChange(&b, c, format); err != nil {
				t.Fatal(err)
			}
		}
		golden(t, "changes."+format, b.Bytes())
	}
}

func TestStatus(t *testing.T) {
	ok := &flowdv1.Status{
		Version: "1.0", Pid: 42, StartedNs: noon.Add(-time.Hour).UnixNano(), Kernel: "6.12", Network: "4026531840", Ready: true,
		Table:  &flowdv1.Status_Table{Flows: 10, Offloaded: 5, KernelLimit: 262144, Created: 20, Offloads: 6, Ended: map[string]uint64{"idle": 3, "closed": 7}},
		Path:   &flowdv1.Status_Path{Offload: "software", AfterPackets: 20, Devices: []string{"lan0", "wan0"}, Missing: []string{"late0"}, Tap: true, Repairs: 1, SlowPackets: 99, SlowBytes: 2048},
		Events: &flowdv1.Status_Events{Decoded: 100, Dumps: 3, DumpNs: 1234567, Sightings: 4},
	}
	bad := &flowdv1.Status{
		Config: "/etc/flowd/flowd.toml", Path: &flowdv1.Status_Path{Offload: "software", Degraded: "the kernel has no flowtable"},
		Settings: []string{"nf_conntrack_acct not set to 1: permission denied"},
	}
	off := &flowdv1.Status{Path: &flowdv1.Status_Path{Offload: "off"}}
	var b bytes.Buffer
	for _, s := range []*flowdv1.Status{ok, bad, off} {
		if err := printStatus(&b, s, noon); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	golden(t, "status.txt", b.Bytes())
}
