//go:build kernel

package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"testing"

	"flowd/testenv"
)

// afterConfig has flows offloaded early.
var afterConfig = fmt.Sprintf("[flowtable]\nafter = { packets = %d }\n", after)

// conversation is one flow of either protocol.
type conversation interface {
	Exchange(count, size int) error
}

// converse opens a flow towards an echo server of its own, at any port.
func converse(t *testing.T, lab *testenv.Lab, proto string, server netip.Addr) conversation {
	t.Helper()
	return converseAt(t, lab, proto, netip.AddrPortFrom(server, 0))
}

func converseAt(t *testing.T, lab *testenv.Lab, proto string, at netip.AddrPort) conversation {
	t.Helper()
	if proto == "udp" {
		s, err := testenv.ServeUDP(lab.Server, testenv.UDPServerConfig{Addr: at})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		c, err := testenv.DialUDP(lab.Client, netip.AddrPort{}, s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	s, err := testenv.ServeTCP(lab.Server, testenv.TCPServerConfig{Addr: at, Mode: testenv.Echo})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := testenv.DialTCP(context.Background(), lab.Client, netip.AddrPort{}, s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Reset() })
	return c
}

func localPort(c conversation) string {
	switch c := c.(type) {
	case *testenv.TCPConn:
		return strconv.Itoa(int(c.Local.Port()))
	case *testenv.UDPConn:
		return strconv.Itoa(int(c.Local.Port()))
	}
	return ""
}
