package ct

import (
	"context"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"flowd/flow"
	"flowd/testenv"
)

// The headers of RFC 791, 8200 and 9293, by hand: source 192.0.2.1 or 2001:db8::1,
// port 1000, destination 198.51.100.2 or 2001:db8::2, port 80.
const (
	header4 = "4500002800000000400600" + "00" + "c0000201" + "c6336402"
	header6 = "6000000000140640" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002"
	ports   = "03e80050" + "00000000" + "00000000" + "50"
)

func TestSighting(t *testing.T) {
	key4, _ := flow.MakeKey(flow.TCP, netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("198.51.100.2:80"), 0)
	key6, _ := flow.MakeKey(flow.TCP, netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:80"), 0)
	options := "46" + header4[2:] + "01010101" // a longer header, RFC 791 section 3.1
	for _, tc := range []struct {
		name, packet string
		kind         flow.Kind // 0: no sighting
		key          flow.Key
	}{
		{"FIN", header4 + ports + "11", flow.FIN, key4},
		{"RST", header4 + ports + "14", flow.RST, key4},
		{"both", header4 + ports + "05", flow.RST, key4},
		{"IPv6", header6 + ports + "01", flow.FIN, key6},
		{"IPv4 with options", options + ports + "01", flow.FIN, key4},
		{"neither", header4 + ports + "10", 0, flow.Key{}},
		{"a later fragment", header4[:12] + "0001" + header4[16:] + ports + "01", 0, flow.Key{}},
		{"UDP", header4[:18] + "11" + header4[20:] + ports + "01", 0, flow.Key{}},
		{"IPv6 with an extension header", header6[:12] + "00" + header6[14:] + ports + "01", 0, flow.Key{}},
		{"cut off", header4 + ports, 0, flow.Key{}},
		{"no header", "45", 0, flow.Key{}},
		{"nothing", "", 0, flow.Key{}},
	} {
		packet, err := hex.DecodeString(tc.packet)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		ev, ok := sighting(packet)
		if ok != (tc.kind != 0) || ok && (ev.Kind != tc.kind || ev.Orig != tc.key) {
			t.Errorf("%s: %v %+v", tc.name, ok, ev)
		}
	}
}

func FuzzSighting(f *testing.F) {
	for _, s := range []string{header4 + ports + "11", header6 + ports + "04"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, packet []byte) { sighting(packet) })
}

// TestTap sees a FIN and a RST that pass a router, is refused a group that is
// taken, and ends while more arrive.
func TestTap(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	lab.Router.Run(t, "nft", "add table inet test; add chain inet test tap { type filter hook prerouting priority 0; }; "+
		"add rule inet test tap ip saddr "+lab.ClientV4.String()+" tcp flags & (fin | rst) != 0 log group 4711 snaplen 64 queue-threshold 64")
	for range 5 {
		var tap *Tap
		if err := lab.Router.Do(func() (err error) {
			tap, err = NewTap(4711)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := lab.Router.Do(func() error {
			_, err := NewTap(4711)
			return err
		}); err == nil {
			t.Error("one group for two taps")
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- tap.Run(ctx) }()
		send := func(flags testenv.TCPFlags) {
			t.Helper()
			if err := testenv.Forge(lab.Client, testenv.Segment{
				From: netip.AddrPortFrom(lab.ClientV4, 1000), To: netip.AddrPortFrom(lab.ServerV4, 80), Flags: flags,
			}); err != nil {
				t.Fatal(err)
			}
		}
		send(testenv.FIN | testenv.ACK)
		send(testenv.RST)
		for _, kind := range []flow.Kind{flow.FIN, flow.RST} {
			select {
			case events := <-tap.Events():
				if len(events) != 1 || events[0].Kind != kind || events[0].Orig.SrcPort != 1000 || events[0].Orig.DstPort != 80 {
					t.Errorf("%+v, not %v", events, kind)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nothing seen")
			}
		}
		for range 200 {
			send(testenv.RST)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
