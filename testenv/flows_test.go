package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// conntrackCount returns how many entries the router has.
func conntrackCount(t *testing.T, lab *Lab) int {
	t.Helper()
	count, err := strconv.Atoi(strings.TrimSpace(lab.Router.Run(t, "conntrack", "-C")))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func TestUDPFlows(t *testing.T) {
	Require(t, "conntrack", "nft")
	for _, test := range []struct {
		options []Option
		count   int
		v6      bool
		oneWay  bool
		clients int
	}{
		{[]Option{Track}, 100_000, false, false, 0},
		{[]Option{Track}, 20_000, false, true, 0},
		{[]Option{Track}, 20_000, true, false, 0},
		{[]Option{NAT}, 20_000, false, false, 0},
		{[]Option{NAT}, 1, true, true, 0},
		{[]Option{NAT}, 50_000, false, false, 250},
		{[]Option{Track}, 50_000, true, true, 250},
	} {
		t.Run(fmt.Sprintf("%v/%d/v6=%t/oneway=%t/clients=%d", test.options, test.count, test.v6, test.oneWay, test.clients), func(t *testing.T) {
			lab := Up(t, test.options...)
			lab.KeepEntries(t)
			count := ConntrackRoom(t, test.count)
			to, from := lab.ServerV4, netip.Addr{}
			if test.v6 {
				to = lab.ServerV6
			}
			if test.clients > 0 {
				v4, v6 := lab.Crowd(t)
				if from = v4; test.v6 {
					from = v6
				}
			}
			result, err := UDPFlows(t.Context(), FlowsConfig{
				Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(to, 0),
				From: netip.AddrPortFrom(from, 0), Clients: test.clients,
				Count: count, OneWay: test.oneWay,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d flows in %v, %d datagrams repeated", result.Flows, result.Elapsed, result.Repeated)
			if result.Flows != count || result.Datagrams != count+result.Repeated {
				t.Errorf("result %+v, want %d flows", result, count)
			}
			if entries := conntrackCount(t, lab); entries != count {
				t.Errorf("%d entries, want %d", entries, count)
			}
		})
	}
}

func TestSendUDPFlows(t *testing.T) {
	Require(t, "conntrack", "nft")
	lab := Up(t, Track)
	to := netip.AddrPortFrom(lab.ServerV4, 7000)
	server, err := ServeUDP(lab.Server, UDPServerConfig{Addr: to, Ports: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	result, err := SendUDPFlows(t.Context(), FlowsConfig{
		Client: lab.Client, From: netip.AddrPortFrom(lab.ClientV4, 6000), To: to,
		Count: 95, Ports: 10, Size: 1000,
	})
	if err != nil || result.Flows != 95 {
		t.Fatalf("result %+v: %v", result, err)
	}
	if entries := conntrackCount(t, lab); entries != 95 {
		t.Errorf("%d entries, want 95", entries)
	}
	for sport, want := range map[string]int{"6000": 10, "6008": 10, "6009": 5, "6010": 0} {
		list := lab.Router.Run(t, "conntrack", "-L", "-p", "udp", "--sport", sport)
		if got := strings.Count(list, "\n"); got != want {
			t.Errorf("source port %s: %d flows, want %d", sport, got, want)
		}
	}
}

func TestTCPFlows(t *testing.T) {
	Require(t, "conntrack", "nft")
	lab := Up(t, NAT)
	lab.KeepEntries(t)
	count := ConntrackRoom(t, 2000)
	flows, err := OpenTCPFlows(t.Context(), FlowsConfig{
		Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(lab.ServerV4, 0),
		Count: count, Ports: 300,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer flows.Close()
	t.Logf("%d connections in %v", count, flows.Elapsed)
	wantState(t, lab, "ESTABLISHED", count)
	if err := flows.Each(func(c *TCPConn) error { return c.Exchange(1, 100) }); err != nil {
		t.Error(err)
	}
	if err := flows.Each((*TCPConn).Close); err != nil {
		t.Error(err)
	}
	wantState(t, lab, "TIME_WAIT", count)
	if err := flows.Close(); err != nil {
		t.Error(err)
	}
}

// wantState waits until the router has that many TCP entries, all in one state.
func wantState(t *testing.T, lab *Lab, state string, want int) {
	t.Helper()
	Eventually(t, patience, func() error {
		list := lab.Router.Run(t, "conntrack", "-L", "-p", "tcp")
		if got, all := strings.Count(list, " "+state+" "), strings.Count(list, "\n"); got != want || all != want {
			return fmt.Errorf("%d entries, %d of them %s, want %d", all, got, state, want)
		}
		return nil
	})
}

func TestFlowsConfig(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:0")
	for _, test := range []struct {
		config FlowsConfig
		want   string
	}{
		{FlowsConfig{Count: 1}, "no address"},
		{FlowsConfig{To: addr}, "0 flows to 400 ports"},
		{FlowsConfig{To: addr, Count: 1, Ports: -1}, "at least 1"},
		{FlowsConfig{To: addr, Count: 5, Clients: 5}, "from 5 addresses from invalid IP"},
		{FlowsConfig{To: addr, From: addr, Count: 5, Clients: 6}, "from 6 addresses"},
		{FlowsConfig{To: addr, Count: 1, Size: 7}, "8 to 1400"},
		{FlowsConfig{To: addr, Count: 1, Size: 1401}, "8 to 1400"},
		{FlowsConfig{To: netip.MustParseAddrPort("192.0.2.1:65500"), Count: 100}, "server: 100 ports from 192.0.2.1:65500"},
		{FlowsConfig{To: addr, Count: 100_000_000}, "client: 250000 ports"},
	} {
		if _, err := test.config.complete(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want %q", test.config, err, test.want)
		}
	}
}

func TestFlowsEnd(t *testing.T) {
	lab := Up(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	config := FlowsConfig{
		Client: lab.Client, Server: lab.Server,
		To: netip.AddrPortFrom(lab.ServerV4, 0), Count: 1000,
	}
	if _, err := UDPFlows(ctx, config); !errors.Is(err, cause) {
		t.Errorf("UDPFlows: %v, want the cause of the end", err)
	}
	if _, err := OpenTCPFlows(ctx, config); !errors.Is(err, cause) {
		t.Errorf("OpenTCPFlows: %v, want the cause of the end", err)
	}
}
