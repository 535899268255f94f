package flow

import (
	"net/netip"
	"testing"
)

// natFlow is a connection from a client, which a router masquerades, to a
// service that it redirects to a server: every address is translated.
//
//	client 10.0.0.5:1000 > public 192.0.2.1:80, as the router gets it
//	router 192.0.2.254:2000 > server 172.16.0.9:8080, as it sends it on
func natFlow(t testing.TB) Flow {
	return Flow{
		Orig:  key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80"),
		Reply: key(t, TCP, "172.16.0.9:8080", "192.0.2.254:2000"),
		ID:    5, Mark: 0x80001234, State: StateEstablished, Status: StatusOffload,
	}
}

// tuple makes the filter that names a whole tuple, or with "" less of it.
func tuple(proto *Proto, src, dst string, sport, dport uint16) Filter {
	q := Filter{Proto: proto}
	if src != "" {
		q.Src = netip.MustParsePrefix(src)
	}
	if dst != "" {
		q.Dst = netip.MustParsePrefix(dst)
	}
	if sport != 0 {
		q.SrcPort = &sport
	}
	if dport != 0 {
		q.DstPort = &dport
	}
	return q
}

func TestFilterTuple(t *testing.T) {
	f := natFlow(t)
	tcp, udp := ptr(TCP), ptr(UDP)
	for _, tc := range []struct {
		name string
		q    Filter
		want bool
	}{
		{"original before translation", tuple(tcp, "10.0.0.5/32", "192.0.2.1/32", 1000, 80), true},
		{"original after translation", tuple(tcp, "192.0.2.254/32", "172.16.0.9/32", 2000, 8080), true},
		{"reply before translation", tuple(tcp, "172.16.0.9/32", "192.0.2.254/32", 8080, 2000), true},
		{"reply after translation", tuple(tcp, "192.0.2.1/32", "10.0.0.5/32", 80, 1000), true},
		{"whole, of another protocol", tuple(udp, "10.0.0.5/32", "192.0.2.1/32", 1000, 80), false},
		{"whole, of another port", tuple(tcp, "10.0.0.5/32", "192.0.2.1/32", 1000, 81), false},
		{"whole, before and after mixed", tuple(tcp, "10.0.0.5/32", "172.16.0.9/32", 1000, 8080), false},

		{"client", tuple(nil, "10.0.0.5/32", "", 0, 0), true},
		{"client's network", tuple(nil, "10.0.0.0/8", "", 0, 0), true},
		{"another network", tuple(nil, "11.0.0.0/8", "", 0, 0), false},
		{"client after translation", tuple(nil, "192.0.2.254/32", "", 0, 0), true},
		{"service", tuple(nil, "", "192.0.2.1/32", 0, 80), true},
		{"server", tuple(nil, "", "172.16.0.9/32", 0, 8080), true},
		{"server as source", tuple(nil, "172.16.0.9/32", "", 0, 0), false},
		{"service as source", tuple(nil, "192.0.2.1/32", "", 0, 0), false},
		{"client as destination", tuple(nil, "", "10.0.0.5/32", 0, 0), false},
		{"service's port", tuple(nil, "", "", 0, 80), true},
		{"service's port as source", tuple(nil, "", "", 80, 0), false},
		{"no protocol: not whole, no reply", tuple(nil, "172.16.0.9/32", "192.0.2.254/32", 8080, 2000), false},
		{"network: not whole, no reply", tuple(tcp, "172.16.0.0/16", "192.0.2.254/32", 8080, 2000), false},
		{"no source port: not whole, no reply", tuple(tcp, "172.16.0.9/32", "192.0.2.254/32", 0, 2000), false},
		{"IPv6", tuple(nil, "::/0", "", 0, 0), false},
		{"all of IPv4", tuple(nil, "0.0.0.0/0", "", 0, 0), true},
	} {
		if got := tc.q.Match(&f); got != tc.want {
			t.Errorf("%s: match %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestFilterFacts(t *testing.T) {
	f := natFlow(t)
	f.Orig.Zone = 3
	for _, tc := range []struct {
		name string
		q    Filter
		want bool
	}{
		{"empty", Filter{}, true},
		{"mask without mark", Filter{MarkMask: 1}, true},
		{"protocol", Filter{Proto: ptr(TCP)}, true},
		{"other protocol", Filter{Proto: ptr(UDP)}, false},
		{"zone", Filter{Zone: ptr(uint16(3))}, true},
		{"zone 0 is a zone", Filter{Zone: ptr(uint16(0))}, false},
		{"id", Filter{ID: ptr(uint32(5))}, true},
		{"other id", Filter{ID: ptr(uint32(6))}, false},
		{"state", Filter{State: ptr(StateEstablished)}, true},
		{"state new is a state", Filter{State: ptr(StateNew)}, false},
		{"offload", Filter{Offload: ptr(OffloadSoftware)}, true},
		{"offload none is a path", Filter{Offload: ptr(OffloadNone)}, false},
		{"offload hardware", Filter{Offload: ptr(OffloadHardware)}, false},
		{"mark", Filter{Mark: ptr(uint32(0x80001234))}, true},
		{"mark of which some bits agree", Filter{Mark: ptr(uint32(0x1234))}, false},
		{"mark 0 is a mark", Filter{Mark: ptr(uint32(0))}, false},
		{"mark under mask", Filter{Mark: ptr(uint32(0x30)), MarkMask: 0xf0}, true},
		{"bits of mark outside the mask", Filter{Mark: ptr(uint32(0xff30)), MarkMask: 0xf0}, true},
		{"mark differs under mask", Filter{Mark: ptr(uint32(0x40)), MarkMask: 0xf0}, false},
		{"one of two facts", Filter{ID: ptr(uint32(5)), Mark: ptr(uint32(1))}, false},
	} {
		if got := tc.q.Match(&f); got != tc.want {
			t.Errorf("%s: match %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestFilterKey(t *testing.T) {
	q := tuple(ptr(TCP), "10.0.0.5/32", "192.0.2.1/32", 1000, 80)
	q.Zone = ptr(uint16(4))
	want := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	want.Zone = 4
	if got, whole := q.Key(); !whole || got != want {
		t.Errorf("Key is %v, %v; want %v", got, whole, want)
	}
	for name, q := range map[string]Filter{
		"empty":               {},
		"no protocol":         tuple(nil, "10.0.0.5/32", "192.0.2.1/32", 1000, 80),
		"no source":           tuple(ptr(TCP), "", "192.0.2.1/32", 1000, 80),
		"prefix":              tuple(ptr(TCP), "10.0.0.4/31", "192.0.2.1/32", 1000, 80),
		"no source port":      tuple(ptr(TCP), "10.0.0.5/32", "192.0.2.1/32", 0, 80),
		"no destination port": tuple(ptr(TCP), "10.0.0.5/32", "192.0.2.1/32", 1000, 0),
		"families mixed":      tuple(ptr(TCP), "10.0.0.5/32", "2001:db8::1/128", 1000, 80),
	} {
		if k, whole := q.Key(); whole {
			t.Errorf("%s: whole tuple %v, want none", name, k)
		}
	}
	q = tuple(ptr(ICMP), "10.0.0.5/32", "192.0.2.1/32", 0, 0)
	if _, whole := q.Key(); !whole {
		t.Error("a protocol without ports needs none to be whole")
	}
}
