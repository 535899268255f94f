package flow

import (
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func TestMakeKey(t *testing.T) {
	for _, tc := range []struct {
		name, src, dst string
		family         Family
		wantSrc        string
	}{
		{"IPv4", "192.0.2.1:1000", "198.51.100.2:53", IPv4, "192.0.2.1"},
		{"IPv6", "[2001:db8::1]:1000", "[2001:db8::2]:53", IPv6, "2001:db8::1"},
		{"IPv4 mapped into IPv6", "[::ffff:192.0.2.1]:1000", "198.51.100.2:53", IPv4, "192.0.2.1"},
		{"scope is no part of a tuple", "[fe80::1%lan0]:1000", "[fe80::2]:53", IPv6, "fe80::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := MakeKey(UDP, netip.MustParseAddrPort(tc.src), netip.MustParseAddrPort(tc.dst), 7)
			if err != nil {
				t.Fatal(err)
			}
			if k.Family != tc.family || k.SrcAddr().String() != tc.wantSrc {
				t.Errorf("family %d source %v, want %d and %s", k.Family, k.SrcAddr(), tc.family, tc.wantSrc)
			}
			if k.SrcPort != 1000 || k.DstPort != 53 || k.Zone != 7 || k.Proto != UDP {
				t.Errorf("ports %d %d zone %d protocol %v, want 1000 53 7 udp", k.SrcPort, k.DstPort, k.Zone, k.Proto)
			}
		})
	}
}

func TestMakeKeyRefuses(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	for _, tc := range []struct {
		src, dst netip.AddrPort
		want     string
	}{
		{v4, v6, "tuple 192.0.2.1:1 > [2001:db8::1]:1: IPv4 and IPv6 mixed"},
		{v6, v4, "tuple [2001:db8::1]:1 > 192.0.2.1:1: IPv4 and IPv6 mixed"},
		{netip.AddrPort{}, v4, "address missing"},
		{v4, netip.AddrPort{}, "address missing"},
	} {
		k, err := MakeKey(TCP, tc.src, tc.dst, 0)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("MakeKey(%v, %v): error %v, want %q", tc.src, tc.dst, err, tc.want)
		}
		if k != (Key{}) {
			t.Errorf("MakeKey(%v, %v) returns a key along with its error", tc.src, tc.dst)
		}
	}
}

// anyKey draws keys of every family, every protocol and every type of ICMP.
func anyKey() *rapid.Generator[Key] {
	return rapid.Custom(func(t *rapid.T) Key {
		k := Key{
			SrcPort: rapid.Uint16().Draw(t, "sport"), DstPort: rapid.Uint16().Draw(t, "dport"),
			Zone: rapid.Uint16().Draw(t, "zone"), Family: rapid.SampledFrom([]Family{IPv4, IPv6}).Draw(t, "family"),
			Proto: Proto(rapid.Uint8().Draw(t, "protocol")),
		}
		if rapid.Bool().Draw(t, "icmp") {
			k.Proto = rapid.SampledFrom([]Proto{ICMP, ICMPv6}).Draw(t, "icmp version")
		}
		n := 16
		if k.Family == IPv4 {
			n = 4
		}
		copy(k.Src[:], rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "src"))
		copy(k.Dst[:], rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "dst"))
		return k
	})
}

func TestReverseTwiceIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := anyKey().Draw(t, "key")
		r := k.Reverse()
		if r.Src != k.Dst || r.Dst != k.Src || r.Zone != k.Zone || r.Proto != k.Proto || r.Family != k.Family {
			t.Fatalf("%v reversed is %v", k, r)
		}
		if back := r.Reverse(); back != k {
			t.Fatalf("%v reversed twice is %v", k, back)
		}
	})
}

func TestReversePorts(t *testing.T) {
	k := key(t, TCP, "192.0.2.1:1000", "198.51.100.2:443")
	if got, want := k.Reverse(), key(t, TCP, "198.51.100.2:443", "192.0.2.1:1000"); got != want {
		t.Errorf("reverse of %v is %v, want %v", k, got, want)
	}
}

func TestReverseICMP(t *testing.T) {
	for _, tc := range []struct {
		proto     Proto
		typ, want uint16
	}{
		{ICMP, 8, 0},
		{ICMP, 0, 8},
		{ICMP, 13, 14},
		{ICMP, 14, 13},
		{ICMP, 15, 16},
		{ICMP, 16, 15},
		{ICMP, 17, 18},
		{ICMP, 18, 17},
		{ICMP, 3, 3},
		{ICMPv6, 128, 129},
		{ICMPv6, 129, 128},
		{ICMPv6, 139, 140},
		{ICMPv6, 140, 139},
		{ICMPv6, 130, 130}, // multicast listeners are not tracked
		{ICMPv6, 8, 8},     // an IPv4 type is none of IPv6
	} {
		k := key(t, tc.proto, "192.0.2.1:77", "198.51.100.2:0")
		k.DstPort = tc.typ<<8 | 5
		r := k.Reverse()
		if r.DstPort>>8 != tc.want || r.DstPort&0xff != 5 || r.SrcPort != 77 {
			t.Errorf("%v type %d: answer has type %d code %d id %d, want type %d code 5 id 77",
				tc.proto, tc.typ, r.DstPort>>8, r.DstPort&0xff, r.SrcPort, tc.want)
		}
	}
}

func TestKeyString(t *testing.T) {
	zoned := key(t, UDP, "192.0.2.1:1000", "198.51.100.2:53")
	zoned.Zone = 9
	ping := key(t, ICMP, "192.0.2.1:77", "198.51.100.2:0")
	ping.DstPort = 8<<8 | 1
	for _, tc := range []struct {
		k    Key
		want string
	}{
		{key(t, TCP, "192.0.2.1:1000", "198.51.100.2:443"), "tcp src=192.0.2.1 dst=198.51.100.2 sport=1000 dport=443"},
		{key(t, TCP, "[2001:db8::1]:1", "[2001:db8::2]:2"), "tcp src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2"},
		{zoned, "udp src=192.0.2.1 dst=198.51.100.2 sport=1000 dport=53 zone=9"},
		{ping, "icmp src=192.0.2.1 dst=198.51.100.2 type=8 code=1 id=77"},
		{key(t, GRE, "192.0.2.1:10", "198.51.100.2:255"), "gre src=192.0.2.1 dst=198.51.100.2 srckey=0xa dstkey=0xff"},
		{key(t, 50, "192.0.2.1:0", "198.51.100.2:0"), "esp src=192.0.2.1 dst=198.51.100.2"},
		{key(t, 200, "192.0.2.1:0", "198.51.100.2:0"), "200 src=192.0.2.1 dst=198.51.100.2"},
	} {
		if got := tc.k.String(); got != tc.want {
			t.Errorf("String is %q, want %q", got, tc.want)
		}
	}
}

// The index hashes keys as they lie in memory, and the table's memory is known
// by these sizes.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Key{}); n != 40 {
		t.Errorf("a Key has %d bytes, want 40: it has padding, or has grown", n)
	}
	if n := unsafe.Sizeof(record{}); n != 176 {
		t.Errorf("a record has %d bytes, want 176", n)
	}
}

func TestProto(t *testing.T) {
	for n := range 256 {
		p := Proto(n)
		got, err := ParseProto(strings.ToUpper(p.String()))
		if err != nil || got != p {
			t.Errorf("protocol %d is written %q and read as %d, %v", n, p, got, err)
		}
	}
	for text, want := range map[string]Proto{"6": TCP, "017": UDP, "icmpv6": ICMPv6, "esp": 50, "255": 255} {
		if got, err := ParseProto(text); err != nil || got != want {
			t.Errorf("ParseProto(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "256", "-1", "tcp ", "nonsense", "0x6", "+6"} {
		if got, err := ParseProto(text); err == nil {
			t.Errorf("ParseProto(%q) = %d, want an error", text, got)
		}
	}
}

func TestHasPorts(t *testing.T) {
	for n := range 256 {
		p := Proto(n)
		want := p == TCP || p == UDP || p == DCCP || p == SCTP || p == UDPLite
		if p.HasPorts() != want {
			t.Errorf("%v has ports: %v, want %v", p, !want, want)
		}
	}
}
