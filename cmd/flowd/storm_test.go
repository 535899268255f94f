//go:build !kernel

package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flowd/testenv"

	"golang.org/x/sync/errgroup"
)

// TestStormAgreesWithTheKernel has flows come and go in every way at once, and then
// compares the table with the kernel's, entry by entry.
func TestStormAgreesWithTheKernel(t *testing.T) {
	lab := testenv.Up(t)
	d := start(t, lab.Router, `[ageing]
unreplied = "2s"
[ageing.tcp]
closing = "1s"
[[ageing.protocol]]
protocol = "udp"
port = 20001
idle = "3s"
`)
	const flows = 20_000
	if room := testenv.ConntrackRoom(t, 4*flows); room < 4*flows {
		t.Fatalf("the kernel has room for %d flows", room)
	}
	to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(lab.ServerV4, port) }
	ctx := context.Background()
	var group errgroup.Group
	udp := func(from, port uint16, oneWay bool) func() error {
		return func() error {
			_, err := testenv.UDPFlows(ctx, testenv.FlowsConfig{
				Client: lab.Client, Server: lab.Server, OneWay: oneWay, Count: flows,
				From: netip.AddrPortFrom(lab.ClientV4, from), To: to(port),
			})
			return err
		}
	}
	group.Go(udp(10000, 20000, false))
	group.Go(udp(20000, 30000, true))
	group.Go(func() error {
		ok, failed, err := testenv.ReuseTCP(ctx, testenv.ReuseConfig{
			Client: lab.Client, Server: lab.Server, Count: 300, From: netip.AddrPortFrom(lab.ClientV4, 4000), To: to(5000),
		})
		if failed > 0 {
			return fmt.Errorf("%d of %d connections failed: %w", failed, ok+failed, err)
		}
		return nil
	})
	group.Go(func() error {
		for port := 20002; port < 20020; port++ {
			// Nothing to delete is not a failure here.
			lab.Router.Output("conntrack", "-D", "-p", "udp", "--dport", fmt.Sprint(port))
			d.try("flow", "evict", "-p", "udp", "--dport", fmt.Sprint(port+20))
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, patience, func() error {
		if n := len(d.flows("-p", "udp", "--dport", "20001")) + len(d.flows("--state", "new")) + len(d.flows("-p", "tcp")); n > 0 {
			return fmt.Errorf("%d flows are there that should have ended", n)
		}
		return agree(d.entries(), conntrack(t, lab.Router))
	})
	d.balances()
	if s := d.table(); s.ended("idle") == 0 || s.ended("half-open") < flows || s.ended("command") == 0 || s.ended("kernel") == 0 {
		t.Errorf("reasons: %+v", s)
	}
	if log := d.log.String(); strings.Contains(log, "level=ERROR") {
		t.Error(log)
	}
}
