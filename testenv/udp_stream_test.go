package testenv

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUDPStream(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		for _, silent := range []bool{false, true} {
			server, err := ServeUDP(path.lab.Server, UDPServerConfig{Addr: netip.AddrPortFrom(path.to, 0), Silent: silent})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			conn, err := DialUDP(path.lab.Client, netip.AddrPort{}, server.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			begin := time.Now()
			stream := conn.Stream(20*time.Millisecond, 10)
			Eventually(t, patience, func() error {
				if sent, received := stream.Sent(), stream.Received(); sent < 10 || !silent && received < 10 {
					return fmt.Errorf("%d sent, %d received, want 10", sent, received)
				}
				return nil
			})
			// Nine intervals; a ticker may make up for one that came late.
			if took := time.Since(begin); took < 150*time.Millisecond {
				t.Errorf("10 datagrams in %v, want 180 ms", took)
			}
			if err := stream.Stop(); err != nil {
				t.Error(err)
			}
			sent := stream.Sent()
			if silent {
				path.wantEntry(t, "udp", conn.Local, "[UNREPLIED]")
			}
			if received := stream.Received(); silent && received != 0 || received > sent {
				t.Errorf("%d sent, %d received", sent, received)
			}
			Eventually(t, patience, func() error {
				if n := int(server.Totals().Datagrams); n != sent {
					return fmt.Errorf("%d arrived, %d were sent", n, sent)
				}
				return nil
			})
			if err := stream.Stop(); err != nil || stream.Sent() != sent {
				t.Errorf("stopped twice: %v, %d sent, before %d", err, stream.Sent(), sent)
			}
		}
	})
}

func TestUDPStreamRefused(t *testing.T) {
	Require(t, "nft")
	lab := Up(t, Track)
	conn, err := DialUDP(lab.Client, netip.AddrPort{}, netip.AddrPortFrom(lab.ServerV4, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream := conn.Stream(time.Millisecond, 1)
	Eventually(t, patience, func() error {
		if stream.Sent() < 50 {
			return errors.New("too few")
		}
		return nil
	})
	if err := stream.Stop(); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
}
