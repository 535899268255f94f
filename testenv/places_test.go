package testenv

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestBlackhole: nothing comes back, with NAT and without, of TCP or UDP.
func TestBlackhole(t *testing.T) {
	Require(t, "conntrack", "nft")
	for _, option := range []Option{Track, NAT} {
		lab := Up(t, option)
		v4, v6 := lab.Blackhole(t)
		for _, path := range paths(lab) {
			to := netip.AddrPortFrom(v4, 80)
			if path.to.Is6() {
				to = netip.AddrPortFrom(v6, 80)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			conn, err := DialTCP(ctx, lab.Client, netip.AddrPort{}, to)
			cancel()
			if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
				t.Errorf("connect to %v: %v, %v", to, conn, err)
			}
			from := netip.AddrPortFrom(path.from, 1234)
			if err := Forge(lab.Client, Segment{From: from, To: to, Flags: SYN, Window: 1000}); err != nil {
				t.Fatal(err)
			}
			path.wantEntry(t, "tcp", from, "SYN_SENT", "[UNREPLIED]", "packets=1 ", "packets=0 ")
			udp, err := DialUDP(lab.Client, netip.AddrPort{}, to)
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			udp.Timeout = 100 * time.Millisecond
			if err := udp.Exchange(1, 1); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("udp to %v: %v", to, err)
			}
		}
	}
}

// TestCrowd: flows come from as many addresses as are asked for.
func TestCrowd(t *testing.T) {
	Require(t, "conntrack", "nft")
	for _, option := range []Option{Track, NAT} {
		lab := Up(t, option)
		lab.KeepEntries(t)
		v4, v6 := lab.Crowd(t)
		for _, way := range []struct{ from, to netip.Addr }{{v4, lab.ServerV4}, {v6, lab.ServerV6}} {
			config := FlowsConfig{
				Client: lab.Client, Server: lab.Server,
				From: netip.AddrPortFrom(way.from, 0), To: netip.AddrPortFrom(way.to, 0),
				Count: 1000, Clients: 300, Ports: 20,
			}
			if _, err := UDPFlows(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			config.Count = 300
			flows, err := OpenTCPFlows(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer flows.Close()
			clients := make(map[string]map[netip.Addr]int)
			for key := range lab.Router.Conntrack(t) {
				if clients[key.Protocol] == nil {
					clients[key.Protocol] = make(map[netip.Addr]int)
				}
				if key.Dst.Addr() == way.to {
					clients[key.Protocol][key.Src.Addr()]++
				}
			}
			if u, c := len(clients["udp"]), len(clients["tcp"]); u != 300 || c != 300 {
				t.Errorf("to %v: udp from %d addresses, tcp from %d, want 300", way.to, u, c)
			}
			if n := clients["udp"][way.from]; n != 6 {
				t.Errorf("to %v: %d flows from the first of 300, want 6 of 1,000 (two ports of three each)", way.to, n)
			}
		}
	}
}
