package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowd/testenv"
)

// connection names one flow. The id alone does not: it is a hash of 32 bits, of
// which 100,000 flows have the same one more often than not.
type connection struct {
	id              uint32
	proto, src, dst string
	sport, dport    int
}

// entry is what conntrack(8) says of one flow besides.
type entry struct {
	packets, bytes [2]uint64
	mark           uint32
}

// conntrackXML is "conntrack -L -o xml,id", as far as it matters here.
type conntrackXML struct {
	Flows []struct {
		Meta []struct {
			Direction string `xml:"direction,attr"`
			Layer3    struct {
				Src string `xml:"src"`
				Dst string `xml:"dst"`
			} `xml:"layer3"`
			Layer4 struct {
				Proto string `xml:"protoname,attr"`
				Sport int    `xml:"sport"`
				Dport int    `xml:"dport"`
			} `xml:"layer4"`
			Counters struct {
				Packets uint64 `xml:"packets"`
				Bytes   uint64 `xml:"bytes"`
			} `xml:"counters"`
			ID   uint32 `xml:"id"`
			Mark uint32 `xml:"mark"`
		} `xml:"meta"`
	} `xml:"flow"`
}

// conntrack returns the kernel's entries of both families.
func conntrack(t testing.TB, space *testenv.Namespace) map[connection]entry {
	t.Helper()
	entries := map[connection]entry{}
	for _, family := range []string{"ipv4", "ipv6"} {
		var doc conntrackXML
		out := space.Run(t, "conntrack", "-L", "-f", family, "-o", "xml,id")
		if strings.TrimSpace(out) == "" {
			continue // it prints nothing at all where there are no entries
		}
		if err := xml.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("conntrack -L: %v\n%.300s", err, out)
		}
		for _, f := range doc.Flows {
			var c connection
			var e entry
			for _, m := range f.Meta {
				switch m.Direction {
				case "original":
					c.proto, c.src, c.dst = m.Layer4.Proto, m.Layer3.Src, m.Layer3.Dst
					c.sport, c.dport = m.Layer4.Sport, m.Layer4.Dport
					e.packets[0], e.bytes[0] = m.Counters.Packets, m.Counters.Bytes
				case "reply":
					e.packets[1], e.bytes[1] = m.Counters.Packets, m.Counters.Bytes
				case "independent":
					c.id, e.mark = m.ID, m.Mark
				}
			}
			entries[c] = e
		}
	}
	return entries
}

// entries returns what flowctl lists in the same terms.
func (d *daemon) entries(args ...string) map[connection]entry {
	d.t.Helper()
	entries := map[connection]entry{}
	for _, f := range d.flows(args...) {
		entries[connection{f.ID, f.Protocol, f.Src, f.Dst, f.Sport, f.Dport}] = entry{f.Packets, f.Bytes, f.Mark}
	}
	return entries
}

// agree compares the two, entry by entry, and tells the first few differences.
func agree(ours, kernel map[connection]entry) error {
	if maps.Equal(ours, kernel) {
		return nil
	}
	var diff []string
	for c, k := range kernel {
		if o, ok := ours[c]; (o != k || !ok) && len(diff) < 5 {
			diff = append(diff, fmt.Sprintf("%+v: flowctl %+v (listed: %v), conntrack %+v", c, o, ok, k))
		}
	}
	for c, o := range ours {
		if _, ok := kernel[c]; !ok && len(diff) < 5 {
			diff = append(diff, fmt.Sprintf("%+v: flowctl %+v, conntrack has none", c, o))
		}
	}
	return fmt.Errorf("flowctl lists %d flows, conntrack %d:\n%s", len(ours), len(kernel), strings.Join(diff, "\n"))
}

func makeFlows(t *testing.T, lab *testenv.Lab, count int) {
	t.Helper()
	res, err := testenv.UDPFlows(context.Background(), testenv.FlowsConfig{
		Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(lab.ServerV4, 0), Count: count,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d flows in %v", res.Flows, res.Elapsed)
}

// TestFindsFlowsAfterCrash kills the daemon under traffic: its ruleset goes on
// serving, no connection notices, and the next daemon has all flows again.
func TestFindsFlowsAfterCrash(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, "")
	server, err := testenv.ServeTCP(lab.Server, testenv.TCPServerConfig{Addr: netip.AddrPortFrom(lab.ServerV4, 0), Mode: testenv.Echo})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var conns []*testenv.TCPConn
	for range 20 {
		c, err := testenv.DialTCP(context.Background(), lab.Client, netip.AddrPort{}, server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Reset()
		conns = append(conns, c)
	}
	exchange := func() {
		t.Helper()
		for _, c := range conns {
			if err := c.Exchange(30, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	exchange()
	testenv.Eventually(t, 5*time.Second, func() error { return agree(d.entries(), conntrack(t, lab.Router)) })
	before := ids(d.entries())
	d.kill()
	exchange()
	d = start(t, lab.Router, "")
	exchange()
	testenv.Eventually(t, 5*time.Second, func() error { return agree(d.entries(), conntrack(t, lab.Router)) })
	if after := ids(d.entries()); !maps.Equal(before, after) {
		t.Errorf("other flows than before: %v, were %v", after, before)
	}
}

func ids(entries map[connection]entry) map[uint32]bool {
	set := map[uint32]bool{}
	for c := range entries {
		set[c.id] = true
	}
	return set
}

// TestEvictsExactlyOne ends one of two flows that differ in a port alone, by its
// reply tuple, and sees the reason in the end-of-flow record.
func TestEvictsExactlyOne(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, "")
	makeFlows(t, lab, 2)
	var flows []seenFlow
	testenv.Eventually(t, 5*time.Second, func() error {
		if flows = d.flows("-p", "udp"); len(flows) != 2 {
			return fmt.Errorf("%d flows, not 2", len(flows))
		}
		return nil
	})
	gone, stays := flows[0], flows[1]
	r := gone.Reply
	ended := parseFlows(t, d.ctl("flow", "evict", "-o", "json", "-p", "udp",
		"-s", r.Src, "--sport", strconv.Itoa(r.Sport), "-d", r.Dst, "--dport", strconv.Itoa(r.Dport)))
	if len(ended) != 1 || ended[0].ID != gone.ID || ended[0].Event != "evicted" || ended[0].Reason != "command" {
		t.Errorf("evicted %+v, not %+v", ended, gone)
	}
	if got := conntrack(t, lab.Router); len(got) != 1 || !ids(got)[stays.ID] {
		t.Errorf("the kernel has %+v, not just %d", got, stays.ID)
	}
	if _, diag, code := d.try("flow", "evict", "-p", "udp", "--id", strconv.Itoa(int(gone.ID))); code != 3 || !strings.Contains(diag, "no flow matches") {
		t.Errorf("evicting it again: exit code %d, %q", code, diag)
	}
}

// inSeconds is a ruleset as nft 1.0.6 lists it: later ones write timeouts as 2h4m,
// which that one cannot read.
func inSeconds(ruleset string) string {
	return regexp.MustCompile(`\b(\d+[hms])+\b`).ReplaceAllStringFunc(ruleset, func(span string) string {
		d, err := time.ParseDuration(span)
		if err != nil || d < time.Second {
			return span
		}
		return strconv.Itoa(int(d.Seconds()))
	})
}

// TestRestoresRuleset has another program flush all rules.
func TestRestoresRuleset(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, "")
	before := lab.Router.Run(t, "nft", "-s", "list", "table", "inet", "flowd")
	if got := d.ctl("ruleset"); got != inSeconds(before) {
		t.Errorf("flowctl ruleset prints\n%s\nbut the kernel has\n%s", got, before)
	}
	lab.Router.Run(t, "nft", "flush", "ruleset")
	flushed := time.Now()
	testenv.Eventually(t, waitReady, func() error {
		after, err := lab.Router.Output("nft", "-s", "list", "table", "inet", "flowd")
		if err == nil && after != before {
			err = fmt.Errorf("restored as\n%s", after)
		}
		return err
	})
	t.Logf("restored after %v", time.Since(flushed))
	if n := strings.Count(d.log.String(), "another program changed flowd's ruleset"); n != 1 {
		t.Errorf("reported %d times, not once:\n%s", n, d.log)
	}
	if !strings.Contains(d.log.String(), "program=nft") {
		t.Errorf("the report does not name the program:\n%s", d.log)
	}
	if tables := lab.Router.Run(t, "nft", "list", "tables"); strings.TrimSpace(tables) != "table inet flowd" {
		t.Errorf("tables: %q: flowd restored what is not its own", tables)
	}
}
