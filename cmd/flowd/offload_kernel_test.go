//go:build kernel

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"flowd/testenv"
)

// TestOffloads holds the main job, for every combination of protocol, family and
// NAT: the flow is offloaded once it has passed the threshold and not before, its
// counters are the kernel's, and evicting it removes exactly it, from conntrack
// and from the flowtable.
func TestOffloads(t *testing.T) {
	for _, nat := range []bool{false, true} {
		var opts []testenv.Option
		if nat {
			opts = append(opts, testenv.NAT)
		}
		t.Run(fmt.Sprintf("nat=%v", nat), func(t *testing.T) {
			lab := testenv.Up(t, opts...)
			d := start(t, lab.Router, afterConfig)
			for _, proto := range []string{"tcp", "udp"} {
				for _, server := range []netip.Addr{lab.ServerV4, lab.ServerV6} {
					t.Run(fmt.Sprintf("%s/%v", proto, server), func(t *testing.T) {
						offloads(t, lab, d, proto, server)
					})
				}
			}
		})
	}
}

func offloads(t *testing.T, lab *testenv.Lab, d *daemon, proto string, server netip.Addr) {
	d.t = t
	target, other := converse(t, lab, proto, server), converse(t, lab, proto, server)
	for _, c := range []conversation{target, other} {
		if err := c.Exchange(1, 64); err != nil {
			t.Fatal(err)
		}
	}
	select1 := []string{"-p", proto, "-d", server.String(), "--sport", localPort(target)}
	select2 := []string{"-p", proto, "-d", server.String(), "--sport", localPort(other)}
	if f, err := d.one(select1...); err != nil || f.Offload != "none" {
		t.Errorf("below the threshold: %+v %v", f, err)
	}
	for _, c := range []conversation{target, other} {
		if err := c.Exchange(after, 64); err != nil {
			t.Fatal(err)
		}
	}
	// The listing reads the kernel: the very first one must show it.
	for _, sel := range [][]string{select1, select2} {
		if f, err := d.one(sel...); err != nil || f.Offload != "software" || f.State != "established" {
			t.Fatalf("not offloaded: %+v %v", f, err)
		}
	}
	// Flows of other subtests may be on their way out.
	kernel := conntrack(t, lab.Router)
	for c, e := range d.entries("-p", proto, "-d", server.String(), "--state", "established") {
		if kernel[c] != e {
			t.Errorf("%+v: flowctl %+v, conntrack %+v", c, e, kernel[c])
		}
	}

	// Offloaded packets do not pass the forward chain; evicted, the next one does.
	slow := slowPackets(t, d)
	if err := target.Exchange(5, 64); err != nil {
		t.Fatal(err)
	}
	if n := slowPackets(t, d) - slow; n != 0 {
		t.Errorf("%d of 10 packets of an offloaded flow took the slow path", n)
	}
	evictsOne(t, lab, d, target, select1, select2)
}

// evictsOne evicts the flow of target, which select1 selects, and sees that it is
// gone from conntrack and from the flowtable, and that of select2 as it was.
func evictsOne(t *testing.T, lab *testenv.Lab, d *daemon, target conversation, select1, select2 []string) {
	t.Helper()
	f, err := d.one(select1...)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := d.one(select2...)
	if err != nil {
		t.Fatal(err)
	}
	ended := parseFlows(t, d.ctl(append([]string{"flow", "evict", "-o", "json"}, select1...)...))
	if len(ended) != 1 || ended[0].ID != f.ID || ended[0].Reason != "command" || ended[0].Packets != f.Packets {
		t.Errorf("evicted %+v, not %+v", ended, f)
	}
	left := ids(conntrack(t, lab.Router))
	if left[f.ID] {
		t.Errorf("conntrack still has %d", f.ID)
	}
	if !left[kept.ID] {
		t.Errorf("conntrack has lost %d, which was not to be evicted", kept.ID)
	}
	begun := time.Now()
	testenv.Eventually(t, patience, func() error {
		slow := slowPackets(t, d)
		if err := target.Exchange(1, 64); err != nil {
			return err
		}
		if slowPackets(t, d) == slow {
			return errors.New("its packets still take the flowtable")
		}
		return nil
	})
	t.Logf("gone from the flowtable after %v", time.Since(begun))
	if f, err := d.one(select2...); err != nil || f.ID != kept.ID || f.Offload != "software" {
		t.Errorf("the other flow is not as it was: %+v %v", f, err)
	}
}

// slowPackets is how many packets the forward chain has seen.
func slowPackets(t *testing.T, d *daemon) uint64 {
	t.Helper()
	out := d.ctl("status")
	for line := range strings.Lines(out) {
		var n uint64
		if _, err := fmt.Sscanf(line, "slow path %d packets", &n); err == nil {
			return n
		}
	}
	t.Fatalf("flowctl status does not tell of the slow path:\n%s", out)
	return 0
}

// TestNeverOffloadsWhatAFirewallDrops has a firewall drop a flow that flowd would
// have offloaded, in the middle of its life.
func TestNeverOffloadsWhatAFirewallDrops(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	d := start(t, lab.Router, afterConfig)
	c := converse(t, lab, "udp", lab.ServerV4).(*testenv.UDPConn)
	if err := c.Exchange(2, 64); err != nil {
		t.Fatal(err)
	}
	// firewalld's chains have filter + 10.
	lab.Router.Run(t, "nft", "add table inet fw; add chain inet fw forward { type filter hook forward priority filter + 10; }; "+
		"add rule inet fw forward udp sport "+localPort(c)+" drop")
	if err := c.Send(5*after, 64); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, patience, func() error {
		f, err := d.one("-p", "udp", "--sport", localPort(c))
		if err == nil && f.Packets[0] < 5*after {
			err = fmt.Errorf("not all packets are there yet: %+v", f)
		}
		return err
	})
	if f, err := d.one("-p", "udp", "--sport", localPort(c)); err != nil || f.Offload != "none" {
		t.Errorf("%+v %v", f, err)
	}
}

// TestCrashUnderIperf kills the daemon, with no chance to clean up, under load.
func TestCrashUnderIperf(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	testenv.Require(t, "iperf3")
	d := start(t, lab.Router, afterConfig)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	server := lab.Server.Command(ctx, "iperf3", "-s", "-1")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); server.Wait() })
	client := make(chan error, 1)
	testenv.Eventually(t, patience, func() error {
		return lab.Server.Command(ctx, "sh", "-c", "ss -ltn | grep -q :5201").Run()
	})
	go func() {
		out, err := lab.Client.Command(ctx, "iperf3", "-c", lab.ServerV4.String(), "-P", "4", "-t", "20").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		client <- err
	}()
	streams := []string{"-p", "tcp", "--dport", "5201", "--offload", "software"}
	offloaded := func() error {
		// The control connection may have shown enough packets too.
		if n := len(d.flows(streams...)); n < 4 {
			return fmt.Errorf("%d of 4 streams offloaded", n)
		}
		return nil
	}
	testenv.Eventually(t, patience, offloaded)
	before := ids(d.entries("-p", "tcp", "--dport", "5201"))
	d.kill()
	d = start(t, lab.Router, afterConfig)
	if err := offloaded(); err != nil {
		t.Error(err)
	}
	for id := range before {
		if !ids(d.entries("-p", "tcp", "--dport", "5201"))[id] {
			t.Errorf("flow %d was not found again", id)
		}
	}
	if err := <-client; err != nil {
		t.Errorf("iperf3: %v", err)
	}
}

// TestEvictsClosed closes offloaded connections and expects them to be gone from
// conntrack soon after the closing time, on every kernel.
func TestEvictsClosed(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, afterConfig+"[ageing.tcp]\nclosing = \"2s\"\n")
	for _, end := range []struct {
		name, reason string
		close        func(*testenv.TCPConn) error
	}{
		{"FIN both ways", "closed", (*testenv.TCPConn).Close},
		{"RST", "reset", (*testenv.TCPConn).Reset},
	} {
		t.Run(end.name, func(t *testing.T) {
			d.t = t
			watch := exec.Command(program(t, "flowctl"), "--socket", d.socket, "watch", "-o", "json")
			var seen syncBuffer
			watch.Stdout = &seen
			if err := watch.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { watch.Process.Kill(); watch.Wait() })
			c := converse(t, lab, "tcp", lab.ServerV4).(*testenv.TCPConn)
			if err := c.Exchange(after, 64); err != nil {
				t.Fatal(err)
			}
			sel := []string{"-p", "tcp", "--sport", localPort(c)}
			if f, err := d.one(sel...); err != nil || f.Offload != "software" {
				t.Fatalf("not offloaded: %+v %v", f, err)
			}
			begun := time.Now()
			if err := end.close(c); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, patience, func() error {
				f, err := d.one(sel...)
				if err == nil && f.Evict != "candidate" {
					err = fmt.Errorf("no candidate: %+v", f)
				}
				return err
			})
			testenv.Eventually(t, patience, func() error {
				if n := len(conntrack(t, lab.Router)); n != 0 {
					return fmt.Errorf("conntrack still has %d entries", n)
				}
				return nil
			})
			t.Logf("gone from conntrack after %v, of which 2s are the closing time", time.Since(begun))
			testenv.Eventually(t, patience, func() error {
				flows := parseFlows(t, seen.String())
				if len(flows) == 0 || flows[len(flows)-1].Event != "evicted" || flows[len(flows)-1].Reason != end.reason {
					return fmt.Errorf("no end with reason %s: %s", end.reason, &seen)
				}
				return nil
			})
		})
	}
}
