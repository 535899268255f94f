//go:build kernel && warp

package main

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"flowd/testenv"
)

// late is how much longer than it should a flow may be there.
const late = 2 * time.Second

// deaths is when the kernel let go of connections, by id.
type deaths struct {
	mu sync.Mutex
	at map[uint32]time.Time
}

var eventID = regexp.MustCompile(`\bid=(\d+)`)

// followDeaths asks the kernel itself, and not flowd.
func followDeaths(t *testing.T, space *testenv.Namespace) *deaths {
	t.Helper()
	d := &deaths{at: map[uint32]time.Time{}}
	ctx, stop := context.WithCancel(context.Background())
	cmd := space.Command(ctx, "conntrack", "-E", "-e", "DESTROY", "-o", "id")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); cmd.Wait() })
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := eventID.FindStringSubmatch(lines.Text()); m != nil {
				id, _ := strconv.ParseUint(m[1], 10, 32)
				d.mu.Lock()
				d.at[uint32(id)] = time.Now()
				d.mu.Unlock()
			}
		}
	}()
	return d
}

func (d *deaths) of(id uint32) (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.at[id]
	return at, ok
}

// story has what flowd says of flows, and the kernel's table, logged if the test fails.
func story(t *testing.T, d *daemon, lab *testenv.Lab) {
	t.Helper()
	watch := exec.Command(program(t, "flowctl"), "--socket", d.socket, "watch", "--since", "1", "-o", "wide")
	var seen syncBuffer
	watch.Stdout = &seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		watch.Process.Kill()
		watch.Wait()
		if t.Failed() {
			left, _ := lab.Router.Output("conntrack", "-L", "-o", "id")
			t.Logf("flowctl watch:\n%s\nconntrack -L:\n%s\n%s", &seen, left, d.ctl("status"))
		}
	})
}

// mortal is a flow, its last packet, and how long after it is to end.
type mortal struct {
	name string
	id   uint32
	last time.Time
	life time.Duration
}

// speak opens a flow that shows some packets and falls silent, with a lifetime of its
// own if one is given.
func speak(t *testing.T, d *daemon, lab *testenv.Lab, proto string, port uint16, offload bool, own, life time.Duration) mortal {
	t.Helper()
	c := converseAt(t, lab, proto, netip.AddrPortFrom(lab.ServerV4, port))
	exchanges, want := 2, "none"
	if offload {
		exchanges, want = 2*after, "software"
	}
	m := mortal{name: fmt.Sprintf("%s port %d, offload %s, own lifetime %v", proto, port, want, own), life: life}
	if err := c.Exchange(exchanges, 64); err != nil {
		t.Fatal(err)
	}
	m.last = time.Now()
	sel := []string{"-p", proto, "-s", lab.ClientV4.String(), "--sport", localPort(c), "-d", lab.ServerV4.String()}
	f, err := d.one(sel...)
	if err != nil || f.Offload != want {
		t.Fatalf("%s: %+v %v", m.name, f, err)
	}
	if own > 0 {
		d.ctl(append([]string{"flow", "set", "--lifetime", own.String(), "--dport", strconv.Itoa(f.Dport)}, sel...)...)
	}
	m.id = f.ID
	return m
}

// TestLongLifetimes has flows of all kinds fall silent, and the kernel say when each
// has ended.
func TestLongLifetimes(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, afterConfig+`
[[ageing.protocol]]
protocol = "udp"
port = 53
idle = "5s"
[[ageing.protocol]]
protocol = "udp"
idle = "300s"
[[ageing.protocol]]
protocol = "tcp"
idle = "300s"
`)
	ends := followDeaths(t, lab.Router)
	story(t, d, lab)
	var all []mortal
	for _, proto := range []string{"udp", "tcp"} {
		for i, offload := range []bool{false, true} {
			all = append(all,
				speak(t, d, lab, proto, uint16(7000+i), offload, 10*time.Second, 10*time.Second),
				speak(t, d, lab, proto, uint16(7010+i), offload, 300*time.Second, 300*time.Second))
		}
	}
	all = append(all, speak(t, d, lab, "udp", 53, false, 0, 5*time.Second))
	for _, proto := range []string{"udp", "tcp"} {
		all = append(all, speak(t, d, lab, proto, 5300, false, 0, 300*time.Second), speak(t, d, lab, proto, 5301, true, 0, 300*time.Second))
	}
	all = append(all, unanswered(t, d, lab)...)
	testenv.Eventually(t, 310*time.Second, func() error {
		for _, m := range all {
			if _, ok := ends.of(m.id); !ok {
				return fmt.Errorf("%s: not ended after %v", m.name, time.Since(m.last))
			}
		}
		return nil
	})
	for _, m := range all {
		at, _ := ends.of(m.id)
		lived := at.Sub(m.last)
		t.Logf("%-60s %v", m.name, lived)
		if lived < m.life-100*time.Millisecond || lived > m.life+late {
			t.Errorf("%s: ended %v after its last packet, want %v", m.name, lived, m.life)
		}
	}
}

// unanswered sends what nobody answers: one SYN and one datagram.
func unanswered(t *testing.T, d *daemon, lab *testenv.Lab) []mortal {
	t.Helper()
	nowhere, _ := lab.Blackhole(t)
	c, err := testenv.DialUDP(lab.Client, netip.AddrPort{}, netip.AddrPortFrom(nowhere, 9))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Send(1, 64); err != nil {
		t.Fatal(err)
	}
	err = testenv.Forge(lab.Client, testenv.Segment{
		From: netip.AddrPortFrom(lab.ClientV4, 4444), To: netip.AddrPortFrom(nowhere, 80), Seq: 1, Flags: testenv.SYN, Window: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := time.Now()
	var all []mortal
	for _, proto := range []string{"udp", "tcp"} {
		f, err := d.one("-p", proto, "-d", nowhere.String())
		if err != nil || f.State != "new" {
			t.Fatalf("%s: %+v %v", proto, f, err)
		}
		all = append(all, mortal{proto + " without answer", f.ID, sent, 30 * time.Second})
	}
	return all
}

// TestLongKeptAlive has flows show a packet shortly before their end, for a minute.
func TestLongKeptAlive(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, afterConfig+"[[ageing.protocol]]\nprotocol = \"udp\"\nport = 53\nidle = \"5s\"\n")
	ends := followDeaths(t, lab.Router)
	story(t, d, lab)
	ids := map[string]uint32{}
	for name, tc := range map[string]struct {
		port    uint16
		warm    int // exchanges before it goes slowly
		offload string
		own     bool
	}{
		"short by policy":           {53, 2 * after, "none", false},
		"short by command":          {6000, 1, "none", true},
		"short by command, offload": {6001, 2 * after, "software", true},
	} {
		c := converseAt(t, lab, "udp", netip.AddrPortFrom(lab.ServerV4, tc.port)).(*testenv.UDPConn)
		if err := c.Exchange(tc.warm, 64); err != nil {
			t.Fatal(err)
		}
		sel := []string{"-p", "udp", "-s", lab.ClientV4.String(), "--sport", localPort(c), "-d", lab.ServerV4.String(), "--dport", strconv.Itoa(int(tc.port))}
		if tc.own {
			d.ctl(append([]string{"flow", "set", "--lifetime", "5s"}, sel...)...)
		}
		f, err := d.one(sel...)
		if err != nil || f.Offload != tc.offload {
			t.Fatalf("%s: %+v %v", name, f, err)
		}
		ids[name] = f.ID
		stream := c.Stream(4*time.Second, 64)
		t.Cleanup(func() { stream.Stop() })
	}
	time.Sleep(time.Minute)
	for name, id := range ids {
		if at, ended := ends.of(id); ended {
			t.Errorf("%s: ended %v before the minute was over", name, time.Since(at))
		}
	}
}
