//go:build kernel

package nft

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Tests on kernels with flowtables, in virtual machines.

// bindsLater tells whether the kernel takes devices that do not exist yet.
func bindsLater() bool { return os.Getenv("FLOWD_KERNEL") == "sid" }

// changesTaps tells whether devices of a base chain can be removed one by one. No
// older kernel needs a tap.
func changesTaps() bool { return os.Getenv("FLOWD_KERNEL") != "6.1" }

func TestKernelListsTheText(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(goldens)) {
		t.Run(name, func(t *testing.T) {
			c, r := inNamespace(t), goldens[name]
			addDevices(t, r.devices()...)
			apply(t, c, r)
			whole(t, c, r)
			if got := listing(t); got != r.String() {
				t.Errorf("listed in another order:\n%s", got)
			}
		})
	}
}

func TestKernelLoadsTheText(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(goldens)) {
		t.Run(name, func(t *testing.T) {
			c, r := inNamespace(t), goldens[name]
			addDevices(t, r.devices()...)
			run(t, "nft", "-f", golden(name))
			if got := listing(t); got != r.String() {
				t.Errorf("listed:\n%s\nloaded:\n%s", got, r)
			}
			// Nft has put no stamps on the rules: it is not flowd's yet.
			if err := c.Check(r); err == nil {
				t.Error("Check finds nothing")
			}
			apply(t, c, r)
			whole(t, c, r)
		})
	}
}

// TestEachAfterEach: from any ruleset to any other, in place.
func TestEachAfterEach(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "lan1", "wan0", "lan0.10", "wl-ap_1", "en.p3s0f1np1v14")
	var rulesets []Ruleset
	for _, name := range slices.Sorted(maps.Keys(goldens)) {
		if r := goldens[name]; r.Tap == nil || r.Tap.Forward || !r.Offload || len(r.Devices) == 0 || changesTaps() {
			rulesets = append(rulesets, r)
		}
	}
	apply(t, c, Ruleset{})
	chain := handleOf(t, "chain forward")
	for i, a := range rulesets {
		for _, b := range rulesets[i:] {
			apply(t, c, b)
			whole(t, c, b)
			apply(t, c, a)
			if err := c.Check(a); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Fatalf("between\n%s\nand\n%s", a, b)
			}
		}
	}
	if got := handleOf(t, "chain forward"); got != chain {
		t.Errorf("chain forward has handle %s, had %s", got, chain)
	}
}

// TestOneDevice: one device comes or goes, all else stays.
func TestOneDevice(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "lan1", "wan0")
	r := Ruleset{Offload: true, Devices: []string{"lan0", "wan0"}}
	if changesTaps() {
		r.Tap = &Tap{Group: 9}
	}
	apply(t, c, r)
	objects := []string{"flowtable fastpath", "chain forward", "counter slow_path"}
	if r.Tap != nil {
		objects = append(objects, "chain tap")
	}
	before := map[string]string{}
	for _, o := range objects {
		before[o] = handleOf(t, o)
	}
	for _, devices := range [][]string{
		{"lan0", "wan0", "lan1"}, {"lan1", "wan0"}, {"wan0"}, {"lan0", "lan1"}, {"lan0", "wan0"},
	} {
		r.Devices = devices
		apply(t, c, r)
		whole(t, c, r)
		for _, o := range objects {
			if got := handleOf(t, o); got != before[o] {
				t.Errorf("%q: %s has handle %s, had %s", devices, o, got, before[o])
			}
		}
	}
}

// TestMissingDevice: it hinders nothing; kernels that bind later take its name.
func TestMissingDevice(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "wan0")
	r := Ruleset{Offload: true, Devices: []string{"wan0", "none0", "lan0", "none1"}}
	missing, err := c.Apply(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(r); err != nil {
		t.Errorf("Check: %v", err)
	}
	if bindsLater() {
		if len(missing) > 0 {
			t.Errorf("missing %q", missing)
		}
		whole(t, c, r)
		return
	}
	if want := []string{"none0", "none1"}; !slices.Equal(missing, want) {
		t.Errorf("missing %q, want %q", missing, want)
	}
	whole(t, c, Ruleset{Offload: true, Devices: []string{"lan0", "wan0"}})
	addDevices(t, "none1")
	if err := c.Check(r); err == nil || err.Error() != "table inet flowd: flowtable fastpath: device none1 is missing" {
		t.Errorf("Check: %v", err)
	}
	if missing, err = c.Apply(r); err != nil || !slices.Equal(missing, []string{"none0"}) {
		t.Errorf("missing %q, error %v", missing, err)
	}
}

// TestDeviceReturns: a device that was removed and came back is a member again.
func TestDeviceReturns(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "wan0")
	r := Ruleset{Offload: true, Devices: []string{"lan0", "wan0"}}
	if changesTaps() {
		r.Tap = &Tap{}
	}
	apply(t, c, r)
	run(t, "ip", "link", "del", "wan0")
	if err := c.Check(r); err != nil {
		t.Errorf("Check without the device: %v", err)
	}
	addDevices(t, "wan0")
	err := c.Check(r)
	if bindsLater() != (err == nil) {
		t.Errorf("Check after it came back: %v", err)
	}
	apply(t, c, r)
	whole(t, c, r)
}

// TestRename: what the kernel makes of it, Apply puts right.
func TestRename(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "old0")
	r := Ruleset{Offload: true, Devices: []string{"lan0", "old0"}}
	apply(t, c, r)
	run(t, "ip", "link", "set", "old0", "name", "new0")
	r.Devices = []string{"lan0", "new0"}
	apply(t, c, r)
	whole(t, c, r)
}

// TestErrorNamesTheDevice: errors say what they are about, down to the device where
// the kernel tells, and a refused transaction leaves nothing.
func TestErrorNamesTheDevice(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "wan0")
	generation, err := c.generation()
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(table)
	b.addTable()
	b.addFlowtable([]string{"lan0", "wan0"})
	b.delFlowtableDevices([]string{"wan0", "none0"})
	err = c.commit(b, generation)
	want := "flowtable fastpath: no such file or directory"
	if os.Getenv("FLOWD_KERNEL") == "6.12" {
		want = "flowtable fastpath: device none0: no such file or directory"
	}
	if !errors.Is(err, unix.ENOENT) || err.Error() != want {
		t.Errorf("commit: %v, want %s", err, want)
	}
	if err := c.Check(Ruleset{}); !errors.Is(err, Damage("it is gone")) {
		t.Errorf("Check: %v", err)
	}
}

// TestOddNamesLoad: nft reads the names that it lists without quotes.
func TestOddNamesLoad(t *testing.T) {
	c := inNamespace(t)
	r := Ruleset{Offload: true, Devices: []string{"wan0", "6in4-wan", "a+b"}, Tap: &Tap{}}
	addDevices(t, r.Devices...)
	feed(t, r.String(), "nft", "-f", "-")
	loaded := listing(t)
	apply(t, c, r)
	if got := listing(t); got != loaded {
		t.Errorf("applied:\n%s\nloaded:\n%s", got, loaded)
	}
	if err := c.Check(r); err != nil {
		t.Error(err)
	}
}

// TestApplyRepairsFlowtable: damage that only a flowtable can take.
func TestApplyRepairsFlowtable(t *testing.T) {
	const empty = "flush chain inet flowd forward; "
	for _, damage := range []struct{ name, commands, words string }{
		{"device removed", "delete flowtable inet flowd fastpath { hook ingress priority 0; devices = { lan0 }; }", "flowtable fastpath: device lan0 is missing"},
		{"device added", "add flowtable inet flowd fastpath { hook ingress priority 0; devices = { lan1 }; counter; }", "flowtable fastpath: device lan1 should not be there"},
		{"counter flag", "add flowtable inet flowd fastpath { hook ingress priority 0; devices = { lan0 }; }", "flowtable fastpath has flags 0x0 instead of 0x2"},
		{"deleted", empty + "delete flowtable inet flowd fastpath", "flowtable fastpath is missing"},
		{"priority", empty + "delete flowtable inet flowd fastpath; add flowtable inet flowd fastpath " +
			"{ hook ingress priority 10; devices = { lan0, wan0 }; counter; }", "flowtable fastpath has priority 10 instead of 0"},
		{"foreign", "add flowtable inet flowd other { hook ingress priority 5; devices = { lan1 }; }", "flowtable other is not flowd's"},
		{"tap rule", "flush chain inet flowd tap", "chain tap: rule 1 is missing or changed: tcp flags fin,rst log group 3"},
		{"tap deleted", "flush chain inet flowd tap; delete chain inet flowd tap", "chain tap is missing"},
		{"tap moved", "delete chain inet flowd tap; add chain inet flowd tap " +
			"{ type filter hook ingress devices = { lan0, wan0 } priority 10; }", "chain tap has priority 10 instead of -10"},
		{"tap device", "delete chain inet flowd tap; add chain inet flowd tap " +
			"{ type filter hook ingress devices = { lan0 } priority -10; }", "chain tap: device wan0 is missing"},
		{"unwanted counter", "add counter inet flowd offloadable", "counter offloadable should not be there"},
		{"all flushed", "flush ruleset", "it is gone"},
	} {
		if damage.name == "tap device" && !changesTaps() {
			continue
		}
		t.Run(damage.name, func(t *testing.T) {
			c := inNamespace(t)
			addDevices(t, "lan0", "lan1", "wan0")
			r := Ruleset{Offload: true, Devices: []string{"lan0", "wan0"}, Tap: &Tap{Group: 3}}
			apply(t, c, r)
			// One command after the other: some undo what others refer to.
			for command := range strings.SplitSeq(strings.ReplaceAll(damage.commands, "; add", "\nadd"), "\n") {
				feed(t, command+"\n", "nft", "-f", "-")
			}
			err := c.Check(r)
			if want := "table inet flowd: " + damage.words; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Check: %v, want %s", err, want)
			}
			apply(t, c, r)
			whole(t, c, r)
		})
	}
}

// TestApplyManyTimes: nothing gathers.
func TestApplyManyTimes(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "wan0")
	r := goldens["tap-two"]
	apply(t, c, r)
	before := handleOf(t, "flowtable fastpath")
	for range 200 {
		apply(t, c, r)
	}
	whole(t, c, r)
	if got := handleOf(t, "flowtable fastpath"); got != before {
		t.Errorf("flowtable has handle %s, had %s", got, before)
	}
	s, err := c.look()
	if err != nil {
		t.Fatal(err)
	}
	if s.use != 4 { // counter, flowtable, two chains
		t.Errorf("the table counts %d objects", s.use)
	}
}

// TestDevicesComeAndGo: Apply finds its way while devices vanish and return.
func TestDevicesComeAndGo(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "wan0")
	r := Ruleset{Offload: true, Devices: []string{"lan0", "wan0", "ppp0"}}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	ready := make(chan struct{})
	go func() { stopped <- flap(c.netns, "ppp0", ready, stop) }()
	<-ready
	for n := range 100 {
		if _, err := c.Apply(r); err != nil {
			t.Errorf("Apply %d: %v", n, err)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	apply(t, c, Ruleset{Offload: true, Devices: []string{"lan0", "wan0"}})
	whole(t, c, Ruleset{Offload: true, Devices: []string{"lan0", "wan0"}})
}

// TestManyDevices: more than one message may name, and most of them leave at once.
func TestManyDevices(t *testing.T) {
	c := inNamespace(t)
	features, err := c.Probe()
	if err != nil {
		t.Fatal(err)
	}
	r := Ruleset{Offload: true}
	if features.ClosingState {
		r.Tap = &Tap{Group: 1}
	}
	for n := range maxDevices + 44 {
		r.Devices = append(r.Devices, fmt.Sprintf("dev%03d", n))
	}
	addDevices(t, r.Devices...)
	apply(t, c, r)
	whole(t, c, r)
	r.Devices = r.Devices[:20]
	apply(t, c, r)
	whole(t, c, r)
}

func BenchmarkApplyOffload(b *testing.B) {
	c := inNamespace(b)
	addDevices(b, "lan0", "wan0")
	r := goldens["tap-two"]
	apply(b, c, r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Apply(r); err != nil {
			b.Fatal(err)
		}
	}
}
