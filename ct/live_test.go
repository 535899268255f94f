package ct

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"flowd/flow"
	"flowd/testenv"

	"golang.org/x/sys/unix"
)

// TestDecodeLive has both decoders read what this kernel sends: events and dumps
// of all kinds of traffic, with NAT, zones, marks and labels, and, where the
// kernel has a flowtable, of offloaded flows.
func TestDecodeLive(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	conntrackOn(t, lab)
	lab.Router.Run(t, "nft", strings.Join([]string{
		"add table inet test",
		"add chain inet test zones { type filter hook prerouting priority raw; }",
		"add rule inet test zones udp dport 7000 ct zone set 5",
		"add rule inet test zones udp sport 7000 ct zone set 5",
		"add chain inet test marks { type filter hook forward priority 0; }",
		"add rule inet test marks meta mark set 0 ct mark set 0x1234 ct label set 5",
	}, "; "))
	offload := "add flowtable inet test f { hook ingress priority 0; devices = { lan0, wan0 }; counter; }; " +
		"add chain inet test off { type filter hook forward priority 10; }; add rule inet test off ct packets > 6 flow add @f"
	if _, err := lab.Router.Output("nft", offload); err != nil && os.Getenv("FLOWD_VM") != "" {
		t.Fatal(err)
	}
	sock := listenAll(t, lab.Router)
	mixedTraffic(t, lab)
	msgs := collect(t, sock)
	msgs = append(msgs, dumpAll(t, lab.Router)...)
	lab.Router.Run(t, "conntrack", "-F")
	msgs = append(msgs, collect(t, sock)...)
	for _, msg := range msgs {
		if _, ours, theirs := judge(t, msg); ours != nil || theirs != nil {
			t.Errorf("we say %v, ti-mo/conntrack %v\n%x", ours, theirs, msg)
		}
	}
	if len(msgs) < 20 {
		t.Errorf("only %d messages", len(msgs))
	}
	if *record != "" {
		var all []byte
		for _, msg := range msgs {
			all = append(all, msg...)
		}
		if err := os.WriteFile(*record, all, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// conntrackOn sets the namespace up as the daemon does.
func conntrackOn(t *testing.T, lab *testenv.Lab) {
	t.Helper()
	err := lab.Router.Do(func() error {
		for _, c := range Ensure(Needed) {
			if c.Err != nil {
				return c.Err
			}
		}
		if left := Ensure(Needed); len(left) != 0 {
			return fmt.Errorf("set, but not for good: %+v", left)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func listenAll(t *testing.T, space *testenv.Namespace) *socket {
	t.Helper()
	var sock *socket
	err := space.Do(func() (err error) {
		sock, err = openSocket(groupNew|groupUpdate|groupDestroy, 64, 32<<10, 8<<20)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sock.close)
	return sock
}

// mixedTraffic is one flow of each kind.
func mixedTraffic(t *testing.T, lab *testenv.Lab) {
	t.Helper()
	for _, server := range []netip.Addr{lab.ServerV4, lab.ServerV6} {
		lab.Client.Run(t, "ping", "-c", "1", server.String())
		at := netip.AddrPortFrom(server, 0)
		tcp, err := testenv.ServeTCP(lab.Server, testenv.TCPServerConfig{Addr: at, Mode: testenv.Echo})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tcp.Close() })
		for _, end := range []func(*testenv.TCPConn) error{(*testenv.TCPConn).Close, (*testenv.TCPConn).Reset, nil} {
			c, err := testenv.DialTCP(context.Background(), lab.Client, netip.AddrPort{}, tcp.Addr)
			if err == nil {
				err = c.Exchange(20, 100)
			}
			if err == nil && end != nil {
				err = end(c)
			} else if err == nil {
				t.Cleanup(func() { c.Reset() })
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		udp, err := testenv.ServeUDP(lab.Server, testenv.UDPServerConfig{Addr: netip.AddrPortFrom(server, 7000), Ports: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { udp.Close() })
		for port := uint16(7000); port < 7002; port++ {
			c, err := testenv.DialUDP(lab.Client, netip.AddrPort{}, netip.AddrPortFrom(server, port))
			if err == nil {
				err = c.Send(1, 100)
			}
			// In a zone of its own an answer finds no NAT: it may not arrive.
			if err == nil && port != 7000 {
				err = errors.Join(c.Receive(1), c.Exchange(20, 100))
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
}

// collect reads the events that are there, each a message of its own.
func collect(t *testing.T, sock *socket) [][]byte {
	t.Helper()
	var msgs [][]byte
	for {
		n, err := sock.read(false)
		if errors.Is(err, unix.EAGAIN) {
			return msgs
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			data, _ := sock.message(i)
			msgs = append(msgs, append([]byte(nil), data...))
		}
	}
}

func dumpAll(t *testing.T, space *testenv.Namespace) [][]byte {
	t.Helper()
	var sock *socket
	err := space.Do(func() (err error) {
		sock, err = openSocket(0, 8, 32<<10, 8<<20)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.close()
	var e encoder
	e.open(msgGet, unix.NLM_F_DUMP, 1, unix.AF_UNSPEC)
	e.close()
	if err := sock.send(e.buf); err != nil {
		t.Fatal(err)
	}
	var msgs [][]byte
	for done := false; !done; {
		n, err := sock.read(true)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			data, _ := sock.message(i)
			eachMessage(data, func(typ, _ uint16, _ uint32, msg []byte) error {
				if typ == unix.NLMSG_DONE {
					done = true
				} else {
					msgs = append(msgs, append([]byte(nil), msg...))
				}
				return nil
			})
		}
	}
	return msgs
}

// anHour is a life that no test sees the end of.
type anHour struct{}

func (anHour) Lifetime(flow.Proto, uint16, flow.State) int64 { return int64(time.Hour) }

// follower is a Reader with a table behind it, as the engine is.
type follower struct {
	reader *Reader
	table  *flow.Table
	synced chan uint32 // numbers of the dumps that came through whole
}

func follow(t *testing.T, space *testenv.Namespace, cfg ReaderConfig) *follower {
	t.Helper()
	f := &follower{table: flow.NewTable(anHour{}, flow.DefaultTimers), synced: make(chan uint32, 100)}
	err := space.Do(func() (err error) {
		f.reader, err = NewReader(cfg)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- f.reader.Run(ctx) }()
	go func() {
		for batch := range f.reader.Events() {
			for i := range batch {
				f.table.Apply(nil, &batch[i], time.Now().UnixNano())
				if batch[i].Kind == flow.SyncEnd && batch[i].Has&flow.Partial == 0 {
					f.synced <- batch[i].ID
				}
			}
			f.reader.Recycle(batch)
		}
		ended <- nil
	}()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("reader: %v", err)
			}
		}
	})
	return f
}

// refresh waits for a dump that begins now.
func (f *follower) refresh() {
	number := f.reader.Refresh()
	for <-f.synced < number {
	}
}
