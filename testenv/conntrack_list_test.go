package testenv

import (
	"net/netip"
	"testing"
	"time"
)

func TestParseEntry(t *testing.T) {
	tuple := func(protocol, src, dst string) Tuple {
		return Tuple{protocol, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)}
	}
	for _, test := range []struct {
		line string
		want Entry
	}{
		{
			"ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.2 dst=198.51.100.2 sport=56326 dport=5201 packets=7 bytes=536 " +
				"src=198.51.100.2 dst=198.51.100.1 sport=5201 dport=56326 packets=8 bytes=376 [ASSURED] mark=5 delta-time=1 " +
				"[start=Sat Nov 21 10:53:08 2026] use=1 id=1630113718\n",
			Entry{
				ID: 1630113718, Timeout: 431999 * time.Second, State: "ESTABLISHED", Assured: true, Mark: 5,
				Original: tuple("tcp", "192.0.2.2:56326", "198.51.100.2:5201"),
				Reply:    tuple("tcp", "198.51.100.2:5201", "198.51.100.1:56326"),
				Packets:  [2]uint64{7, 8}, Bytes: [2]uint64{536, 376},
				Start: time.Date(2026, 11, 21, 10, 53, 8, 0, time.Local),
			},
		},
		{
			"ipv6     10 udp      17 src=2001:db8:1::2 dst=2001:db8:2::2 sport=1 dport=2 packets=3 bytes=4 " +
				"src=2001:db8:2::2 dst=2001:db8:1::2 sport=2 dport=1 packets=0 bytes=0 [HW_OFFLOAD] [ASSURED] mark=0 use=2 id=7",
			Entry{
				ID: 7, Assured: true, HWOffload: true,
				Original: tuple("udp", "[2001:db8:1::2]:1", "[2001:db8:2::2]:2"),
				Reply:    tuple("udp", "[2001:db8:2::2]:2", "[2001:db8:1::2]:1"),
				Packets:  [2]uint64{3, 0}, Bytes: [2]uint64{4, 0},
			},
		},
		{
			"ipv4     2 icmp     1 29 src=192.0.2.2 dst=198.51.100.2 type=8 code=0 id=16880 [UNREPLIED] " +
				"src=198.51.100.2 dst=192.0.2.2 type=0 code=0 id=16880 mark=0 use=1 id=21 [OFFLOAD]",
			Entry{
				ID: 21, Timeout: 29 * time.Second, Unreplied: true, Offload: true,
				Original: tuple("icmp", "192.0.2.2:0", "198.51.100.2:0"),
				Reply:    tuple("icmp", "198.51.100.2:0", "192.0.2.2:0"),
			},
		},
	} {
		got, err := ParseEntry(test.line)
		if err != nil || got != test.want {
			t.Errorf("%s: %v\n%+v, want\n%+v", test.line, err, got, test.want)
		}
		if got.Key() != (EntryKey{test.want.ID, test.want.Original}) {
			t.Errorf("key %+v", got.Key())
		}
	}
	for _, line := range []string{
		"", "conntrack v1.4.8", "ipv4 2 udp 17 29 src=192.0.2.2 dst=192.0.2.3 id=1",
		"ipv4 2 udp 17 29 src=x dst=192.0.2.3 id=1", "ipv4 2 udp 17 29 src=192.0.2.2 dst=192.0.2.3 sport=70000",
		"ipv4 2 udp 17 29 src=::1 dst=::1 src=::1 dst=::1 src=::1 id=1", "ipv4 2 udp 17 29 src=::1 dst=::1 src=::1 dst=::1 mark=-1 id=1",
		"ipv4 2 udp 17 29 src=::1 dst=::1 src=::1 dst=::1 [start=soon] id=1",
	} {
		if e, err := ParseEntry(line); err == nil {
			t.Errorf("%q: %+v, no error", line, e)
		}
	}
}

// TestConntrack sees one connection of each family, and the same entries again
// as long as nothing happens.
func TestConntrack(t *testing.T) {
	Require(t, "conntrack", "nft")
	lab := Up(t, NAT)
	if err := lab.Router.SetSysctl("net.netfilter.nf_conntrack_timestamp", "1"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, path := range paths(lab) {
		path.dialTCP(t, path.serveTCP(t, TCPServerConfig{Mode: Echo}).Addr)
	}
	first := lab.Router.Conntrack(t)
	if len(first) != 2 {
		t.Fatalf("entries %+v, want 2", first)
	}
	for key, e := range first {
		nat := netip.AddrPortFrom(lab.WANV4, 0).Addr()
		if key.Src.Addr().Is6() {
			nat = lab.WANV6
		}
		if e.State != "ESTABLISHED" || !e.Assured || e.Reply.Dst.Addr() != nat || e.Reply.Src != e.Original.Dst ||
			e.Packets[0] < 2 || e.Packets[1] < 1 || e.Timeout < time.Hour || e.Offload {
			t.Errorf("entry %+v", e)
		}
		if e.Start.Before(begin.Add(-2*time.Second)) || e.Start.After(time.Now()) {
			t.Errorf("began at %v, want some time after %v", e.Start, begin)
		}
	}
	for key, again := range lab.Router.Conntrack(t) {
		if again.ID != first[key].ID || again.Original != first[key].Original || again.Start != first[key].Start {
			t.Errorf("entry %+v, before %+v", again, first[key])
		}
	}
}
