package nft

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowd/flow"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite testdata/*.nft")

// goldens are the rulesets whose text is kept in testdata, by file.
var goldens = map[string]Ruleset{
	"off":          {},
	"off-after":    {AfterPackets: 20, Devices: []string{"lan0", "wan0"}, Tap: &Tap{Group: 5}},
	"empty":        {Offload: true},
	"one":          {Offload: true, Devices: []string{"wan0"}},
	"two":          {Offload: true, Devices: []string{"lan0", "wan0"}, AfterPackets: 1},
	"duplicates":   {Offload: true, Devices: []string{"wan0", "lan0", "wan0", "lan1", "lan0"}},
	"after":        {Offload: true, Devices: []string{"lan0", "wan0"}, AfterPackets: 20},
	"after-many":   {Offload: true, Devices: []string{"lan0", "wan0"}, AfterPackets: 1 << 40},
	"names":        {Offload: true, Devices: []string{"lan0.10", "wl-ap_1", "en.p3s0f1np1v14"}},
	"tap-empty":    {Offload: true, Tap: &Tap{Group: 5}},
	"tap-one":      {Offload: true, Devices: []string{"wan0"}, Tap: &Tap{}},
	"tap-two":      {Offload: true, Devices: []string{"wan0", "lan0"}, AfterPackets: 3, Tap: &Tap{Group: 5}},
	"tap-max-name": {Offload: true, Devices: []string{"wl-ap_1", "en.p3s0f1np1v14"}, Tap: &Tap{Group: 1<<16 - 1}},
	"tap-forward":  {Offload: true, Devices: []string{"wan0", "lan0"}, Tap: &Tap{Group: 5, Forward: true}},

	"off-never":     {AfterPackets: 20, NeverOffload: services},
	"off-never-all": {NeverOffload: []Service{{Proto: flow.UDP}, {Proto: flow.TCP, Port: 22}, {Proto: flow.TCP}}},
	"off-quota":     {PerSource: 3},
	"off-timeouts":  {Timeouts: timeouts},
	"off-all":       {NeverOffload: services, PerSource: 1<<32 - 1, Timeouts: timeouts},
	"never-udp":     {Offload: true, Devices: []string{"lan0", "wan0"}, NeverOffload: []Service{{Proto: flow.UDP}}},
	"all-ingress": {
		Offload: true, Devices: []string{"lan0", "wan0"}, AfterPackets: 20, Tap: &Tap{Group: 5},
		NeverOffload: services, PerSource: 1000, Timeouts: timeouts,
	},
	"all-forward": {
		Offload: true, Devices: []string{"lan0", "wan0"}, AfterPackets: 20, Tap: &Tap{Group: 5, Forward: true},
		NeverOffload: []Service{{Proto: flow.UDP, Port: 53}}, PerSource: 500, Timeouts: shortTimeouts,
	},
}

// services and what follows are much of what a router may want.
var (
	services = []Service{
		{Proto: flow.UDP, Port: 123},
		{Proto: flow.UDP, Port: 53},
		{Proto: flow.TCP, Port: 53},
		{Proto: flow.UDP, Port: 53},
		{Proto: flow.GRE},
	}
	timeouts = &Timeouts{
		UDP: UDPTimeouts{Unreplied: 30, Replied: 180},
		TCP: TCPTimeouts{Handshake: 30, Established: 7440, HalfClosed: 900},
		Ports: []PortTimeout{
			{Proto: flow.UDP, Port: 500, Idle: 3600},
			{Proto: flow.UDP, Port: 53, Idle: 5},
			{Proto: flow.UDP, Port: 123, Idle: 5},
			{Proto: flow.UDP, Port: 53, Idle: 7},
			{Proto: flow.UDP, Port: 99, Idle: 180},
			{Proto: flow.TCP, Port: 22, Idle: 86400},
			{Proto: flow.TCP, Port: 23, Idle: 1<<32 - 1},
			{Proto: flow.GRE, Port: 1, Idle: 5},
		},
	}
	shortTimeouts = &Timeouts{
		UDP: UDPTimeouts{Unreplied: 10, Replied: 60},
		TCP: TCPTimeouts{Handshake: 120, HalfClosed: 60},
		Ports: []PortTimeout{
			{Proto: flow.UDP, Port: 53, Idle: 5},
			{Proto: flow.TCP, Idle: 180},
			{Proto: flow.UDP, Port: 1, Idle: 20},
			{Proto: flow.UDP, Port: 7, Idle: 20},
			{Proto: flow.UDP, Port: 9, Idle: 20},
			{Proto: flow.UDP, Port: 13, Idle: 20},
			{Proto: flow.UDP, Port: 17, Idle: 20},
			{Proto: flow.UDP, Port: 65535, Idle: 20},
			{Proto: flow.UDP, Port: 19, Idle: 0},
		},
	}
)

func golden(name string) string { return filepath.Join("testdata", name+".nft") }

func TestText(t *testing.T) {
	for name, r := range goldens {
		t.Run(name, func(t *testing.T) {
			got := r.String()
			if *update {
				if err := os.WriteFile(golden(name), []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden(name))
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant (go test -update rewrites it):\n%s", got, want)
			}
		})
	}
}

// TestTextFilesAreUsed finds golden files that nothing compares any more.
func TestTextFilesAreUsed(t *testing.T) {
	files, err := filepath.Glob(golden("*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(goldens) {
		t.Errorf("%d files %q for %d rulesets", len(files), files, len(goldens))
	}
}

// TestOddNames: nft lists these without quotes, but reads them only with.
func TestOddNames(t *testing.T) {
	got := Ruleset{Offload: true, Devices: []string{"wan0", "6in4-wan", "a+b"}}.String()
	if want := "\t\tdevices = { \"6in4-wan\", \"a+b\", wan0 }\n"; !strings.Contains(got, want) {
		t.Errorf("got:\n%s\nwant in it:\n%s", got, want)
	}
}

// TestStamps: rules of one text have one stamp, rules of different text different
// ones, and a stamp is found among any other user data.
func TestStamps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
		ra, rb := rule{ctPackets(a)}, rule{ctPackets(b)}
		if (ra.stamp() == rb.stamp()) != (a == b) {
			t.Fatalf("stamps %x and %x of %q and %q", ra.stamp(), rb.stamp(), ra, rb)
		}
		if ra.stamp() == (stamp{}) {
			t.Fatal("the zero stamp is for foreign rules")
		}
	})
}

func FuzzStampIn(f *testing.F) {
	s := rule{countIn(slowPath)}.stamp()
	f.Add([]byte{0, 2, 'x', 0})
	f.Add(append([]byte{0, 2, 'x', 0, stampType, byte(len(s))}, s[:]...))
	f.Add([]byte{stampType, 255, 1})
	f.Add(append([]byte{0, 255}, make([]byte, 255)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		other := []byte{0, 3, 'h', 'i', 0}
		own := append([]byte{stampType, byte(len(s))}, s[:]...)
		stampIn(data) // must not panic
		if got := stampIn(append(append(other, own...), data...)); got != s {
			t.Errorf("stamp %x, want %x", got, s)
		}
	})
}
