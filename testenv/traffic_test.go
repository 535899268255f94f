package testenv

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is for what the kernel does in a moment, on however busy a machine.
const patience = 30 * time.Second

// A path is where traffic of a test goes.
type path struct {
	name     string
	lab      *Lab
	from, to netip.Addr
	options  string // of conntrack -L
}

// paths are the ways from client to server in a laboratory.
func paths(lab *Lab) []path {
	return []path{
		{name: "v4", lab: lab, from: lab.ClientV4, to: lab.ServerV4, options: "-fipv4"},
		{name: "v6", lab: lab, from: lab.ClientV6, to: lab.ServerV6, options: "-fipv6"},
	}
}

// conntrack returns the router's entries of the path that conntrack -L lists
// with some more options.
func (p path) conntrack(t *testing.T, options ...string) []string {
	t.Helper()
	args := append([]string{"-L", p.options}, options...)
	return strings.Split(strings.TrimSpace(p.lab.Router.Run(t, "conntrack", args...)), "\n")
}

// wantEntry waits for the one entry of a connection to hold all the words.
func (p path) wantEntry(t *testing.T, protocol string, from netip.AddrPort, words ...string) {
	t.Helper()
	Eventually(t, patience, func() error {
		entries := p.conntrack(t, "-p", protocol, "--sport", fmt.Sprint(from.Port()))
		for _, word := range words {
			if len(entries) != 1 || !strings.Contains(entries[0], word) {
				return fmt.Errorf("want %q in one entry: %q", word, entries)
			}
		}
		return nil
	})
}

// eachPath runs a test on every path through a router, with NAT and without.
func eachPath(t *testing.T, test func(*testing.T, path)) {
	Require(t, "conntrack", "nft")
	for name, options := range map[string][]Option{"plain": {Track}, "nat": {NAT, Firewall}} {
		lab := Up(t, options...)
		lab.KeepEntries(t)
		for _, path := range paths(lab) {
			t.Run(name+"/"+path.name, func(t *testing.T) { test(t, path) })
		}
	}
}

// serveTCP starts a server that ends with the test.
func (p path) serveTCP(t *testing.T, config TCPServerConfig) *TCPServer {
	t.Helper()
	config.Addr = netip.AddrPortFrom(p.to, 0)
	server, err := ServeTCP(p.lab.Server, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
	})
	return server
}

func (p path) dialTCP(t *testing.T, to netip.AddrPort) *TCPConn {
	t.Helper()
	conn, err := DialTCP(t.Context(), p.lab.Client, netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Abandon() })
	if conn.Local.Addr() != p.from || conn.Remote != to {
		t.Errorf("connection %v->%v, want %v->%v", conn.Local, conn.Remote, p.from, to)
	}
	return conn
}

func TestTCPModes(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		for mode, drive := range map[Mode]func(*TCPConn) error{
			Echo:   func(c *TCPConn) error { return c.Exchange(100, 1000) },
			Sink:   func(c *TCPConn) error { return c.Write(1_000_000) },
			Source: func(c *TCPConn) error { return c.Read(1_000_000) },
		} {
			server := path.serveTCP(t, TCPServerConfig{Mode: mode})
			conn := path.dialTCP(t, server.Addr)
			path.wantEntry(t, "tcp", conn.Local, "ESTABLISHED", "[ASSURED]", "packets=")
			if err := drive(conn); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
			if err := conn.Close(); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
			path.wantEntry(t, "tcp", conn.Local, "TIME_WAIT")
			wantTotals(t, mode, server.Totals())
		}
	})
}

func wantTotals(t *testing.T, mode Mode, totals Totals) {
	t.Helper()
	sent := totals.SentBytes
	if mode == Source { // sends as much as it gets rid of
		totals.SentBytes = min(sent, 1_000_000)
	}
	want := map[Mode]Totals{
		Echo:   {Connections: 1, ReceivedBytes: 100_000, SentBytes: 100_000},
		Sink:   {Connections: 1, ReceivedBytes: 1_000_000},
		Source: {Connections: 1, SentBytes: 1_000_000},
	}[mode]
	if totals != want {
		t.Errorf("%s: totals %+v (sent %d), want %+v", mode, totals, sent, want)
	}
}

func TestTCPHalfClose(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		server := path.serveTCP(t, TCPServerConfig{Mode: Echo, HoldOpen: true})
		conn := path.dialTCP(t, server.Addr)
		if err := conn.Exchange(1, 10); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		path.wantEntry(t, "tcp", conn.Local, "CLOSE_WAIT")
		conn.Timeout = time.Millisecond
		if err := conn.Read(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read from a server that holds open: %v", err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		conn.Timeout = patience
		if err := conn.Read(1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read from a closed server: %v", err)
		}
		path.wantEntry(t, "tcp", conn.Local, "TIME_WAIT")
	})
}

func TestTCPReset(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		conn := path.dialTCP(t, path.serveTCP(t, TCPServerConfig{Mode: Echo}).Addr)
		if err := conn.Exchange(1, 10); err != nil {
			t.Fatal(err)
		}
		if err := conn.Reset(); err != nil {
			t.Fatal(err)
		}
		path.wantEntry(t, "tcp", conn.Local, " CLOSE ")
	})
}

// TestTCPSourcePort: one five-tuple may be used again and again.
func TestTCPSourcePort(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		server := path.serveTCP(t, TCPServerConfig{Mode: Echo})
		from := netip.AddrPortFrom(path.from, 4321)
		for range 3 {
			conn, err := DialTCP(t.Context(), path.lab.Client, from, server.Addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Exchange(1, 10); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			path.wantEntry(t, "tcp", from, "TIME_WAIT")
		}
	})
}

// TestForgeReset: only a RST with the right sequence number does anything.
func TestForgeReset(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		conn := path.dialTCP(t, path.serveTCP(t, TCPServerConfig{Mode: Echo}).Addr)
		if err := conn.Exchange(1, 10); err != nil {
			t.Fatal(err)
		}
		send, receive, err := conn.Sequence()
		if err != nil {
			t.Fatal(err)
		}
		reset := Segment{From: conn.Local, To: conn.Remote, Flags: RST, Seq: send - 1<<30}
		if err := Forge(path.lab.Client, reset); err != nil {
			t.Fatal(err)
		}
		if err := conn.Exchange(1, 10); err != nil {
			t.Errorf("after a RST out of the window: %v", err)
		}
		path.wantEntry(t, "tcp", conn.Local, "ESTABLISHED")
		reset.Seq = send + 10
		reset.Flags, reset.Ack = RST|ACK, receive+10
		if err := Forge(path.lab.Client, reset); err != nil {
			t.Fatal(err)
		}
		path.wantEntry(t, "tcp", conn.Local, " CLOSE ")
		if err := conn.Exchange(1, 10); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("after a RST in the window: %v", err)
		}
	})
}

// TestForgeFin: a forged FIN closes the side that it claims to come from.
func TestForgeFin(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		server := path.serveTCP(t, TCPServerConfig{Mode: Echo, HoldOpen: true})
		conn := path.dialTCP(t, server.Addr)
		if err := conn.Exchange(1, 10); err != nil {
			t.Fatal(err)
		}
		send, receive, err := conn.Sequence()
		if err != nil {
			t.Fatal(err)
		}
		if err := Forge(path.lab.Client, Segment{
			From: conn.Local, To: conn.Remote,
			Flags: FIN | ACK, Seq: send, Ack: receive, Window: 1000,
		}); err != nil {
			t.Fatal(err)
		}
		path.wantEntry(t, "tcp", conn.Local, "CLOSE_WAIT")
	})
}

func TestUDPExchange(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		server, err := ServeUDP(path.lab.Server, UDPServerConfig{Addr: netip.AddrPortFrom(path.to, 0)})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		from := netip.AddrPortFrom(path.from, 5353)
		conn, err := DialUDP(path.lab.Client, from, server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if conn.Local != from || conn.Remote != server.Addr {
			t.Errorf("socket %v->%v", conn.Local, conn.Remote)
		}
		if err := conn.Exchange(7, 100); err != nil {
			t.Fatal(err)
		}
		entry := path.conntrack(t, "-p", "udp", "--sport", "5353")
		if len(entry) != 1 || strings.Count(entry[0], "packets=7 ") != 2 {
			t.Errorf("entry %q, want 7 packets each way", entry)
		}
		want := Totals{Datagrams: 7, Replies: 7, ReceivedBytes: 700, SentBytes: 700}
		if totals := server.Totals(); totals != want {
			t.Errorf("totals %+v, want %+v", totals, want)
		}
	})
}

func TestUDPOneWay(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		server, err := ServeUDP(path.lab.Server, UDPServerConfig{Addr: netip.AddrPortFrom(path.to, 0), Silent: true})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		conn, err := DialUDP(path.lab.Client, netip.AddrPort{}, server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Send(5, 1); err != nil {
			t.Fatal(err)
		}
		path.wantEntry(t, "udp", conn.Local, "[UNREPLIED]", "packets=5 ", "packets=0 ")
		conn.Timeout = time.Millisecond
		if err := conn.Receive(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("receive from a silent server: %v", err)
		}
		Eventually(t, patience, func() error {
			if totals := server.Totals(); totals != (Totals{Datagrams: 5, ReceivedBytes: 5}) {
				return fmt.Errorf("totals %+v", totals)
			}
			return nil
		})
	})
}

// TestFirewall: what the firewall drops gets no further and leaves no entry.
func TestFirewall(t *testing.T) {
	Require(t, "conntrack", "nft")
	lab := Up(t, Firewall)
	for _, path := range paths(lab) {
		to := netip.AddrPortFrom(path.to, DroppedPort)
		server, err := ServeTCP(lab.Server, TCPServerConfig{Addr: to, Mode: Echo})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		port := netip.AddrPortFrom(path.from, 1234)
		if err := Forge(lab.Client, Segment{From: port, To: to, Flags: SYN, Window: 1000}); err != nil {
			t.Fatal(err)
		}
		// From the server's side nothing is let in, whatever the port.
		if err := Forge(lab.Server, Segment{From: to, To: port, Flags: SYN, Window: 1000}); err != nil {
			t.Fatal(err)
		}
		if totals := server.Totals(); totals.Connections != 0 {
			t.Errorf("%v was reached", to)
		}
	}
	Eventually(t, patience, func() error {
		rules := lab.Router.Run(t, "nft", "list", "chain", "inet", "lab", "forward")
		for _, rule := range []string{"tcp dport 9999 counter packets 2 ", "\t\tcounter packets 2 "} {
			if !strings.Contains(rules, rule) {
				return fmt.Errorf("want %q:\n%s", rule, rules)
			}
		}
		return nil
	})
	if entries := lab.Router.Run(t, "conntrack", "-L", "-p", "tcp"); entries != "" {
		t.Errorf("entries of dropped connections: %s", entries)
	}
}
