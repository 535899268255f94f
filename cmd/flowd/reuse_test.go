package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"flowd/testenv"
)

// reuse says how the test is done.
type reuse struct {
	connections int           // one after the other
	apart       int           // some more, each about when its predecessor is evicted
	closing     time.Duration // of flowd
}

// reuseHere is reuse on this kernel. One with a flowtable tells of FIN and RST up to
// 100 ms late, and an emulated one takes some 30 ms for a connection.
func reuseHere() reuse {
	if os.Getenv("FLOWD_VM") != "" {
		return reuse{1500, 10, 2 * time.Second}
	}
	return reuse{10_000, 200, 20 * time.Millisecond}
}

// TestReuseOfOneTuple makes connections on one and the same tuple, as fast as it goes,
// and some so that each begins about when the one before is evicted. None may be hit:
// each is one flow from its first packet to its last.
func TestReuseOfOneTuple(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	here := reuseHere()
	d := start(t, lab.Router, fmt.Sprintf("[flowtable]\nafter = { packets = %d }\n[ageing.tcp]\nclosing = %q\n", after, here.closing))
	watch := exec.Command(program(t, "flowctl"), "--socket", d.socket, "watch", "-o", "json", "--since", "1")
	var seen syncBuffer
	watch.Stdout = &seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		watch.Process.Kill()
		watch.Wait()
		if t.Failed() {
			out := seen.String()
			t.Logf("the last changes:\n%s", out[max(0, len(out)-20_000):])
		}
	}()
	total := 0
	connect := func(n int, ending testenv.Ending) {
		total += n
		ok, failed, err := testenv.ReuseTCP(context.Background(), testenv.ReuseConfig{
			Client: lab.Client, Server: lab.Server, Count: n, Ending: ending,
			From: netip.AddrPortFrom(lab.ClientV4, 4000), To: netip.AddrPortFrom(lab.ServerV4, 5000),
		})
		if failed > 0 || ok != n {
			t.Fatalf("%s closes: %d went well, %d did not: %v", ending, ok, failed, err)
		}
	}
	begin := time.Now()
	for _, ending := range []testenv.Ending{testenv.ClientReset, testenv.ServerFirst, testenv.ClientFirst} {
		connect(here.connections/3, ending)
	}
	t.Logf("%d connections in %v", total, time.Since(begin))
	for i := range here.apart {
		time.Sleep(here.closing + time.Duration(i%20)*time.Millisecond)
		connect(1, testenv.ClientFirst)
	}
	testenv.Eventually(t, patience, func() error {
		if s := d.table(); s.Flows != 0 {
			return fmt.Errorf("%d flows are left", s.Flows)
		}
		return nil
	})
	d.balances()
	for _, f := range parseFlows(t, seen.String()) {
		// Without an answer it is a SYN that came to nothing; from the server, what it
		// sends again after a RST that conntrack did not translate. Conntrack may go on
		// with the entry of the last connection: then two are one flow.
		if f.Reason != "" && f.Sport == 4000 && f.Packets[0] < 25 && f.Packets[1] > 0 {
			t.Errorf("part of a connection: %+v", f)
		}
	}
	if s := d.table(); s.Created < uint64(total)*8/10 {
		t.Errorf("%d connections: %+v", total, s)
	}
}
