package nft

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowd/flow"
	"flowd/testenv"
)

// Ports of the laboratory's server. It answers at no others.
var (
	udpPorts = []uint16{53, 99, 500}
	tcpPorts = []uint16{22, 80}
)

// inRouter makes a laboratory with a server that answers, and opens a Conn in its
// router.
func inRouter(t *testing.T) (*testenv.Lab, *Conn) {
	t.Helper()
	lab := testenv.Up(t)
	var c *Conn
	err := lab.Router.Do(func() (err error) {
		c, err = Open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for _, server := range []netip.Addr{lab.ServerV4, lab.ServerV6} {
		for _, port := range udpPorts {
			s, err := testenv.ServeUDP(lab.Server, testenv.UDPServerConfig{Addr: netip.AddrPortFrom(server, port)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
		}
		for _, port := range tcpPorts {
			s, err := testenv.ServeTCP(lab.Server, testenv.TCPServerConfig{Mode: testenv.Echo, Addr: netip.AddrPortFrom(server, port)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
		}
	}
	return lab, c
}

// dial opens a socket of the client.
func dial(t *testing.T, lab *testenv.Lab, server netip.Addr, port uint16) *testenv.UDPConn {
	t.Helper()
	conn, err := testenv.DialUDP(lab.Client, netip.AddrPort{}, netip.AddrPortFrom(server, port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Timeout = time.Second
	t.Cleanup(func() { conn.Close() })
	return conn
}

// talk has the client and the server exchange datagrams by a new connection.
func talk(t *testing.T, lab *testenv.Lab, server netip.Addr, port uint16, count int) *testenv.UDPConn {
	t.Helper()
	conn := dial(t, lab, server, port)
	if err := conn.Exchange(count, 10); err != nil {
		t.Fatal(err)
	}
	return conn
}

// dialTCP opens a connection of the client.
func dialTCP(t *testing.T, lab *testenv.Lab, server netip.Addr, port uint16) *testenv.TCPConn {
	t.Helper()
	conn, err := testenv.DialTCP(t.Context(), lab.Client, netip.AddrPort{}, netip.AddrPortFrom(server, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// nobody is an address beside the server's that nobody has.
func nobody(server netip.Addr) netip.Addr {
	a := server.AsSlice()
	a[len(a)-1] = 99
	addr, _ := netip.AddrFromSlice(a)
	return addr
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// entry returns the line of conntrack(8) about the connection from the client to an
// address and port, as soon as there is one.
func entry(t *testing.T, lab *testenv.Lab, server netip.Addr, port uint16) string {
	t.Helper()
	var entry string
	testenv.Eventually(t, 10*time.Second, func() error {
		list := lab.Router.Run(t, "conntrack", "-L", "-f", family(server))
		for line := range strings.Lines(list) {
			original, _, _ := strings.Cut(line+" src=", " src="+server.String()) // begins the reply
			if strings.Contains(original, fmt.Sprintf(" dport=%d ", port)) && strings.Contains(original, " dst="+server.String()+" ") {
				entry = line
				return nil
			}
		}
		return fmt.Errorf("no connection to %v, port %d, in\n%s", server, port, list)
	})
	return entry
}

var entryTimeout = regexp.MustCompile(`^\w+ +\d+ (\d+) `)

// wantTimeout fails the test unless the connection is kept for so many seconds, less
// what a slow machine takes to look, or soon is: while data of TCP is unacknowledged
// it has another timeout.
func wantTimeout(t *testing.T, lab *testenv.Lab, server netip.Addr, port uint16, want int) {
	t.Helper()
	if err := testenv.Poll(2*time.Second, func() error {
		line := entry(t, lab, server, port)
		match := entryTimeout.FindStringSubmatch(line)
		if match == nil {
			return fmt.Errorf("no timeout in %q", line)
		}
		if got, err := strconv.Atoi(match[1]); err != nil || got > want || got < want-min(want/2, 15) {
			return fmt.Errorf("timeout %d, want %d: %s", got, want, line)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// streams is a little more than the 2 seconds that a UDP connection is old before the
// kernel gives it the timeout of those that were answered (nf_conntrack_proto_udp.c,
// nf_conntrack_udp_packet).
const streams = 2200 * time.Millisecond

// TestTimeoutsOfConnections: each connection gets those of its port, from its first
// packet on.
func TestTimeoutsOfConnections(t *testing.T) {
	lab, c := inRouter(t)
	apply(t, c, Ruleset{PerSource: 100, Timeouts: &Timeouts{
		UDP: UDPTimeouts{Unreplied: 40, Replied: 200},
		TCP: TCPTimeouts{Handshake: 25, Established: 7440, HalfClosed: 900},
		Ports: []PortTimeout{
			{Proto: flow.UDP, Port: 53, Idle: 5},
			{Proto: flow.UDP, Port: 500, Idle: 3600},
			{Proto: flow.TCP, Port: 22, Idle: 600},
		},
	}})
	servers := []netip.Addr{lab.ServerV4, lab.ServerV6}
	var conns []*testenv.UDPConn
	for _, server := range servers {
		for port, idle := range map[uint16]int{53: 5, 500: 40, 99: 40} {
			conns = append(conns, talk(t, lab, server, port, 3))
			wantTimeout(t, lab, server, port, idle)
			if err := dial(t, lab, nobody(server), port).Send(1, 10); err != nil {
				t.Fatal(err)
			}
			wantTimeout(t, lab, nobody(server), port, idle)
		}
	}
	time.Sleep(streams)
	for _, conn := range conns {
		if err := conn.Exchange(2, 10); err != nil {
			t.Fatal(err)
		}
	}
	for _, server := range servers {
		for port, idle := range map[uint16]int{53: 5, 500: 3600, 99: 200} {
			wantTimeout(t, lab, server, port, idle)
		}
	}
	for port, idle := range map[uint16]int{22: 600, 80: 7440} {
		conn := dialTCP(t, lab, lab.ServerV4, port)
		if err := conn.Exchange(3, 10); err != nil {
			t.Fatal(err)
		}
		wantTimeout(t, lab, lab.ServerV4, port, idle)
	}
}

// TestTimeoutsChange: other values are for new connections; older ones go back to the
// kernel's, all of whose own are kept by a ruleset with the same.
func TestTimeoutsChange(t *testing.T) {
	lab, c := inRouter(t)
	timeouts := func(dns uint32) Ruleset {
		return Ruleset{Timeouts: &Timeouts{
			UDP:   UDPTimeouts{Unreplied: 30, Replied: 1000},
			Ports: []PortTimeout{{Proto: flow.UDP, Port: 53, Idle: dns}},
		}}
	}
	apply(t, c, timeouts(300))
	dns, other := talk(t, lab, lab.ServerV4, 53, 3), talk(t, lab, lab.ServerV4, 99, 3)
	again := timeouts(300)
	again.PerSource = 9
	apply(t, c, again)
	apply(t, c, timeouts(600))
	// The kernel takes the timeout back after the transaction, in a work queue.
	time.Sleep(streams)
	for _, conn := range []*testenv.UDPConn{dns, other} {
		if err := conn.Exchange(1, 10); err != nil {
			t.Fatal(err)
		}
	}
	wantTimeout(t, lab, lab.ServerV4, 53, 120) // udp_timeout_stream
	wantTimeout(t, lab, lab.ServerV4, 99, 1000)
	dns = talk(t, lab, lab.ServerV6, 53, 3)
	time.Sleep(streams)
	if err := dns.Exchange(1, 10); err != nil {
		t.Fatal(err)
	}
	wantTimeout(t, lab, lab.ServerV6, 53, 600)
	apply(t, c, Ruleset{})
	if err := c.Check(Ruleset{}); err != nil {
		t.Error(err)
	}
}

// refused tells whether a new connection gets no answer.
func refused(t *testing.T, lab *testenv.Lab, server netip.Addr) bool {
	t.Helper()
	return dial(t, lab, server, 99).Exchange(1, 10) != nil
}

func overQuotaCount(t *testing.T, c *Conn) uint64 {
	t.Helper()
	n, err := c.Quota()
	if err != nil {
		t.Fatal(err)
	}
	return n.Packets
}

// TestPerSource: the connection beyond the number is refused, until one ends or the
// number grows, whatever the others send.
func TestPerSource(t *testing.T) {
	lab, c := inRouter(t)
	r := Ruleset{PerSource: 3}
	apply(t, c, r)
	for _, server := range []netip.Addr{lab.ServerV4, lab.ServerV6} {
		before := overQuotaCount(t, c)
		// One that is never answered has every packet in state new.
		if err := dial(t, lab, nobody(server), 1).Send(200, 10); err != nil {
			t.Fatal(err)
		}
		talk(t, lab, server, 53, 5)
		held := talk(t, lab, server, 99, 5)
		apply(t, c, r) // changes nothing
		if !refused(t, lab, server) {
			t.Errorf("%v: a fourth connection", server)
		}
		if n := overQuotaCount(t, c); n != before+1 {
			t.Errorf("%v: counted %d, had %d", server, n, before)
		}
		if err := held.Exchange(20, 10); err != nil {
			t.Errorf("%v: one of the three: %v", server, err)
		}
		lab.Router.Run(t, "conntrack", "-D", "-f", family(server), "-p", "udp", "--dport", "53")
		testenv.Eventually(t, 10*time.Second, func() error {
			if refused(t, lab, server) {
				return fmt.Errorf("%v: nothing new though one has ended", server)
			}
			return nil
		})
	}
	r.PerSource = 4 // begins anew
	apply(t, c, r)
	if err := c.Check(r); err != nil {
		t.Error(err)
	}
	for range 4 {
		talk(t, lab, lab.ServerV4, 99, 1)
	}
	if !refused(t, lab, lab.ServerV4) {
		t.Error("a fifth connection")
	}
	apply(t, c, Ruleset{})
	if refused(t, lab, lab.ServerV4) || overQuotaCount(t, c) != 0 {
		t.Error("refused, or counted, without a quota")
	}
}

// TestNeverOffload: what would be offloaded, and what is where the kernel can, is
// none of these services', in either direction.
func TestNeverOffload(t *testing.T) {
	lab, c := inRouter(t)
	r := Ruleset{NeverOffload: []Service{{Proto: flow.UDP, Port: 53}, {Proto: flow.UDP, Port: 500}, {Proto: flow.TCP, Port: 99}}}
	apply(t, c, r)
	offloadables := func() uint64 {
		n, err := c.count(offloadable)
		if err != nil {
			t.Fatal(err)
		}
		return n.Packets
	}
	talk(t, lab, lab.ServerV4, 53, 10)
	talk(t, lab, lab.ServerV6, 500, 10)
	if n := offloadables(); n != 0 {
		t.Errorf("%d packets are said to be offloadable", n)
	}
	talk(t, lab, lab.ServerV4, 99, 10)
	if n := offloadables(); n != 19 { // all but the first
		t.Errorf("%d packets are said to be offloadable, not 19", n)
	}
	if os.Getenv("FLOWD_VM") == "" {
		return // this kernel may have no flowtable
	}
	r.Offload, r.Devices = true, lab.Devices
	apply(t, c, r)
	lab.Router.Run(t, "conntrack", "-F")
	for _, server := range []netip.Addr{lab.ServerV4, lab.ServerV6} {
		for _, port := range udpPorts {
			talk(t, lab, server, port, 10)
			line := entry(t, lab, server, port)
			if got := strings.Contains(line, "OFFLOAD"); got != (port == 99) {
				t.Errorf("offloaded: %v: %s", got, line)
			}
		}
	}
}
