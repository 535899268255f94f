package main

import (
	"bytes"
	"flag"
	"fmt"
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
	u := func(n uint32) *uint32 { return &n }
	return []*flowdv1.Flow{
		{
			Protocol: 6, Orig: tuple("192.0.2.1", "198.51.100.2", 40000, 443), Reply: tuple("198.51.100.2", "203.0.113.9", 443, 40000),
			Id: 7, State: 1, Offload: 1, Mark: 0x10, Labels: []uint32{5, 64}, PacketsOrig: 10, PacketsReply: 20,
			BytesOrig: 1500, BytesReply: 3 << 30, StartNs: ago(26 * time.Hour), SeenNs: ago(1500 * time.Millisecond),
			LifetimeS: 7440, ExpiresS: u(7439),
		},
		{
			Protocol: 17, Orig: tuple("2001:db8::1", "2001:db8::53", 5353, 53), Reply: tuple("2001:db8::53", "2001:db8::1", 53, 5353),
			Id: 8, StartNs: ago(90 * time.Second), SeenNs: ago(0),
			LifetimeS: 86400, OwnLifetime: true, ExpiresS: u(86399), KernelExpiresS: u(28),
		},
		{
			Protocol: 1, Orig: tuple("192.0.2.1", "198.51.100.2", 77, 8<<8), Reply: tuple("198.51.100.2", "192.0.2.1", 77, 0),
			Id: 9, State: 3, Candidate: true, StartNs: ago(time.Hour), SeenNs: ago(-time.Second), // a clock ahead of ours
			LifetimeS: 5, ExpiresS: u(0),
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

var endings = [][2]string{{"evicted", "closed"}, {"expired", "half-open"}, {"recycled", "recycled"}}

func TestChanges(t *testing.T) {
	time.Local = time.UTC
	for _, format := range formats {
		var b bytes.Buffer
		for i, f := range samples() {
			c := &flowdv1.Change{Seq: uint64(i + 1), TimeNs: noon.UnixNano(), Event: "new", Flow: f}
			if i < len(endings) {
				c.Event, c.Reason = endings[i][0], endings[i][1]
				f.ExpiresS, f.KernelExpiresS = nil, nil
			}
			if err := printChange(&b, c, format); err != nil {
				t.Fatal(err)
			}
		}
		golden(t, "changes."+format, b.Bytes())
	}
}

func TestEvicted(t *testing.T) {
	time.Local = time.UTC
	res := &flowdv1.EvictFlowsResponse{Evicted: 2, Remaining: 3}
	for i, f := range samples()[:2] {
		f.ExpiresS, f.KernelExpiresS = nil, nil
		res.Ended = append(res.Ended, &flowdv1.Change{Seq: uint64(i + 1), TimeNs: noon.UnixNano(), Event: "evicted", Reason: "command", Flow: f})
	}
	for _, format := range formats {
		var b bytes.Buffer
		err := reportEvicted(&b, res, format)
		fmt.Fprintf(&b, "%v\n", err)
		golden(t, "evicted."+format, b.Bytes())
	}
}

func TestStatus(t *testing.T) {
	ok := &flowdv1.Status{
		Version: "1.0", Pid: 42, StartedNs: noon.Add(-time.Hour).UnixNano(), Kernel: "6.12", Network: "4026531840", Ready: true,
		Table: &flowdv1.Status_Table{
			Flows: 10, Offloaded: 5, HalfOpen: 2, Candidates: 1, Limit: 245760, KernelEntries: 12, KernelLimit: 262144, Created: 20, Offloads: 6,
			Ended: map[string]uint64{"idle": 3, "closed": 7}, Packets: 1000, OffloadedPackets: 950, WheelLagNs: 9e8,
		},
		Rates:  &flowdv1.Status_Rates{CreatedPerS: 1.25, OffloadsPerS: 0.5, EndedPerS: 99.6, PacketsPerS: 100, OffloadedPacketsPerS: 97},
		Path:   &flowdv1.Status_Path{Offload: "software", AfterPackets: 20, Devices: []string{"lan0", "wan0"}, Missing: []string{"late0"}, Tap: true, Repairs: 1, SlowPackets: 99, SlowBytes: 2048},
		Events: &flowdv1.Status_Events{Decoded: 100, Dumps: 3, DumpNs: 1234567, Sightings: 4},
	}
	full := &flowdv1.Status{
		Ready: true,
		Table: &flowdv1.Status_Table{
			Flows: 9900, HalfOpen: 5000, Limit: 10000, KernelEntries: 9901, KernelLimit: 262144, ShortenedPercent: 62, WheelLagNs: 1234567890,
			Created: 50000, Revived: 4, Ended: map[string]uint64{"recycled": 40000, "half-open": 100}, KernelEarlyDrops: 1,
		},
		Rates: &flowdv1.Status_Rates{CreatedPerS: 10000, EndedPerS: 9000, RecycledPerS: 8900},
		Path:  &flowdv1.Status_Path{Offload: "software", PerSource: 200, QuotaPackets: 17},
	}
	bad := &flowdv1.Status{
		Config: "/etc/flowd/flowd.toml", Path: &flowdv1.Status_Path{Offload: "software", Degraded: "the kernel has no flowtable"},
		Settings: []string{"nf_conntrack_acct not set to 1: permission denied"},
	}
	off := &flowdv1.Status{Path: &flowdv1.Status_Path{Offload: "off"}}
	var b bytes.Buffer
	for _, s := range []*flowdv1.Status{ok, full, bad, off} {
		if err := printStatus(&b, s, noon); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	golden(t, "status.txt", b.Bytes())
}
