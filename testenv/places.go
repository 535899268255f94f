package testenv

import (
	"net/netip"
	"testing"
)

// Networks of a laboratory beyond those of its cables (RFC 2544 and RFC 5180:
// for measurements).
var (
	blackholeV4 = netip.MustParseAddr("198.18.0.1")
	blackholeV6 = netip.MustParseAddr("2001:2:0:1::1")
	crowdV4     = netip.MustParsePrefix("198.19.0.0/16")
	crowdV6     = netip.MustParsePrefix("2001:2:0:2::/64")
)

// Blackhole returns two addresses behind the server, to which the router has
// routes, and from which nothing ever comes back: no SYN/ACK, no RST, no ICMP
// error. The server drops what is sent to them.
func (l *Lab) Blackhole(t testing.TB) (v4, v6 netip.Addr) {
	t.Helper()
	for _, way := range []struct{ hole, server netip.Addr }{{blackholeV4, l.ServerV4}, {blackholeV6, l.ServerV6}} {
		l.Server.Run(t, "ip", "route", "replace", "blackhole", way.hole.String())
		l.Router.Run(t, "ip", "route", "replace", way.hole.String(), "via", way.server.String())
	}
	return blackholeV4, blackholeV6
}

// Crowd gives the client all addresses of two networks, to which the router has
// routes, and returns the first of each: for flows from many clients, see
// [FlowsConfig]. There are 65,535 of IPv4 from there on.
func (l *Lab) Crowd(t testing.TB) (v4, v6 netip.Addr) {
	t.Helper()
	// IPv6 lets a socket have addresses of its devices only, otherwise.
	if err := l.Client.SetSysctl("net.ipv6.ip_nonlocal_bind", "1"); err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		crowd  netip.Prefix
		client netip.Addr
	}{{crowdV4, l.ClientV4}, {crowdV6, l.ClientV6}} {
		l.Client.Run(t, "ip", "route", "replace", "local", way.crowd.String(), "dev", "lo")
		l.Router.Run(t, "ip", "route", "replace", way.crowd.String(), "via", way.client.String())
	}
	return crowdV4.Addr().Next(), crowdV6.Addr().Next()
}
