package nft

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// offloadless are the goldens that need no flowtable, which the kernel of a
// development machine may lack.
var offloadless = []string{
	"off", "off-after", "off-never", "off-never-all", "off-quota", "off-timeouts", "off-all",
}

func TestApplyWithoutOffload(t *testing.T) {
	for _, name := range offloadless {
		t.Run(name, func(t *testing.T) {
			c := inNamespace(t)
			apply(t, c, goldens[name])
			whole(t, c, goldens[name])
			if got := listing(t); got != goldens[name].String() {
				t.Errorf("listed in another order:\n%s", got)
			}
		})
	}
}

func TestTextLoadsWithoutOffload(t *testing.T) {
	for _, name := range offloadless {
		t.Run(name, func(t *testing.T) {
			inNamespace(t)
			want := goldens[name].String()
			feed(t, want, "nft", "-f", "-")
			if got := listing(t); got != want {
				t.Errorf("listed:\n%s\nloaded:\n%s", got, want)
			}
		})
	}
}

// TestApplyInPlace: repeating keeps the chain, the counter and its value.
func TestApplyInPlace(t *testing.T) {
	c := inNamespace(t)
	r := Ruleset{}
	apply(t, c, r)
	chain, counter := handleOf(t, "chain forward"), handleOf(t, "counter slow_path")
	for n := range uint64(20) {
		r.AfterPackets = n
		apply(t, c, r)
		whole(t, c, r)
	}
	if got := handleOf(t, "chain forward"); got != chain {
		t.Errorf("chain forward has handle %s, had %s", got, chain)
	}
	if got := handleOf(t, "counter slow_path"); got != counter {
		t.Errorf("counter slow_path has handle %s, had %s", got, counter)
	}
}

// TestApplyRepairs: whatever is done to the table, Check tells and Apply repairs.
func TestApplyRepairs(t *testing.T) {
	for _, damage := range []struct{ name, commands, words string }{
		{"table deleted", "delete table inet flowd", "it is gone"},
		{"all flushed", "flush ruleset", "it is gone"},
		{"table dormant", "table inet flowd { flags dormant; }", "it is dormant"},
		{"rules flushed", "flush chain inet flowd forward", `chain forward: rule 1 is missing or changed: counter name "slow_path"`},
		{"rule deleted", "delete rule inet flowd forward handle $2", "chain forward: rule 2 is missing or changed: ct state established"},
		{"rule replaced", "replace rule inet flowd forward handle $2 accept", "chain forward: rule 2 is missing or changed"},
		{"rule inserted", "insert rule inet flowd forward drop", "chain forward: a foreign rule stands before rule 1"},
		{"rule between", "add rule inet flowd forward handle $1 accept", "chain forward: a foreign rule stands before rule 2"},
		{"rule added", "add rule inet flowd forward drop comment \"f\"", "chain forward: a foreign rule stands after rule 2"},
		{"chain deleted", "flush chain inet flowd forward; delete chain inet flowd forward", "chain forward is missing"},
		{"policy", "chain inet flowd forward { policy drop; }", "chain forward has policy drop instead of accept"},
		{"chain moved", "flush chain inet flowd forward; delete chain inet flowd forward; " +
			"add chain inet flowd forward { type filter hook forward priority 0; }", "chain forward has priority 0 instead of 300"},
		{"other hook", "delete chain inet flowd forward; " +
			"add chain inet flowd forward { type filter hook input priority 300; }", "chain forward has hook number 1 instead of forward"},
		{"no hook", "delete chain inet flowd forward; add chain inet flowd forward", "chain forward has no hook"},
		{"other type", "delete chain inet flowd forward; " +
			"add chain inet flowd forward { type nat hook output priority 300; }", "chain forward is of type nat instead of filter"},
		{"counter deleted", "flush chain inet flowd forward; delete counter inet flowd offloadable", "counter offloadable is missing"},
		{"foreign chain", "add chain inet flowd mine; add rule inet flowd mine accept", "chain mine is not flowd's"},
		{"foreign set", "add set inet flowd s { type ipv4_addr; }", "set s should not be there"},
		{"foreign map", "add chain inet flowd mine; add map inet flowd m { type ipv4_addr : verdict; elements = { 192.0.2.1 : jump mine }; }", "set m should not be there"},
		{"foreign counter", "add counter inet flowd c", "counter c should not be there"},
		{"foreign quota", "add quota inet flowd slow_path { 1 mbytes }", "object slow_path should not be there"},
	} {
		t.Run(damage.name, func(t *testing.T) {
			c := inNamespace(t)
			r := Ruleset{AfterPackets: 7}
			apply(t, c, r)
			commands := strings.NewReplacer(
				"$1", handleOf(t, "counter name"),
				"$2", handleOf(t, "ct state"),
			).Replace(damage.commands)
			feed(t, commands+"\n", "nft", "-f", "-")

			err := c.Check(r)
			if want := "table inet flowd: " + damage.words; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Check: %v, want %s", err, want)
			}
			if _, ok := errors.AsType[Damage](err); !ok {
				t.Errorf("Check: %T is no Damage", err)
			}
			apply(t, c, r)
			whole(t, c, r)
		})
	}
}

// TestCountingFlows: a rule that asks for a flow's packets has the kernel count
// them.
func TestCountingFlows(t *testing.T) {
	c := inNamespace(t)
	apply(t, c, Ruleset{})
	const setting = "/proc/sys/net/netfilter/nf_conntrack_acct"
	if err := os.WriteFile(setting, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	apply(t, c, Ruleset{AfterPackets: 2})
	if got, err := os.ReadFile(setting); err != nil || strings.TrimSpace(string(got)) != "1" {
		t.Errorf("nf_conntrack_acct is %q (%v)", got, err)
	}
}

// TestSlowPath: without traffic, and without a table, nothing was counted.
func TestSlowPath(t *testing.T) {
	c := inNamespace(t)
	for range 2 {
		if n, err := c.SlowPath(); err != nil || n != (Count{}) {
			t.Errorf("SlowPath: %v, %v", n, err)
		}
		apply(t, c, Ruleset{})
	}
}

// TestApplyAtOnce: of two that apply at the same time each waits for the other.
func TestApplyAtOnce(t *testing.T) {
	c := inNamespace(t)
	d, err := OpenAt(c.netns)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var both sync.WaitGroup
	for n, conn := range []*Conn{c, d} {
		both.Go(func() {
			for range 50 {
				if _, err := conn.Apply(Ruleset{AfterPackets: uint64(n)}); err != nil && !errors.Is(err, unix.ERESTART) && !errors.Is(err, unix.EINTR) {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
	if err := c.Check(Ruleset{}); err != nil { // both want the same
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	c := inNamespace(t)
	const foreign = "table ip foreign {\n\tchain flowd {\n\t\taccept\n\t}\n}\n"
	feed(t, foreign, "nft", "-f", "-")
	apply(t, c, Ruleset{})
	for range 2 { // the second time there is nothing to remove
		if err := c.Remove(); err != nil {
			t.Fatal(err)
		}
		if got := run(t, "nft", "-s", "list", "ruleset"); got != foreign {
			t.Errorf("after Remove:\n%s\nwant:\n%s", got, foreign)
		}
	}
}

// TestForeignTablesStay: neither Apply nor Check minds other tables.
func TestForeignTablesStay(t *testing.T) {
	c := inNamespace(t)
	feed(t, "table ip flowd { chain forward { type filter hook forward priority 300; }; }\n"+
		"table inet other { counter slow_path { }; chain forward { drop; }; }\n", "nft", "-f", "-")
	before := run(t, "nft", "-a", "list", "ruleset")
	apply(t, c, Ruleset{})
	apply(t, c, Ruleset{AfterPackets: 9})
	whole(t, c, Ruleset{AfterPackets: 9})
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if after := run(t, "nft", "-a", "list", "ruleset"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestWithoutCapability: each use says which capability is missing.
func TestWithoutCapability(t *testing.T) {
	c := inNamespace(t)
	apply(t, c, Ruleset{})
	dropCapability(t, unix.CAP_NET_ADMIN)
	unprivileged, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unprivileged.Close()
	_, applyErr := unprivileged.Apply(Ruleset{})
	_, probeErr := unprivileged.Probe()
	for what, err := range map[string]error{
		"Apply":  applyErr,
		"Probe":  probeErr,
		"Check":  unprivileged.Check(Ruleset{}),
		"Remove": unprivileged.Remove(),
		"Watch":  unprivileged.Watch(t.Context(), func(Generation) {}),
	} {
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := unprivileged.Devices(nil, nil); err != nil {
		t.Errorf("Devices needs no capability: %v", err)
	}
}

// TestOwnedTable: a table that belongs to a living process is left alone.
func TestOwnedTable(t *testing.T) {
	c := inNamespace(t)
	owner := startNft(t)
	owner("add table inet flowd { flags owner; }")
	_, err := c.Apply(Ruleset{})
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "belongs to another process") {
		t.Errorf("Apply: %v", err)
	}
}

// TestProbeLeavesNoTrace: not even a generation.
func TestProbeLeavesNoTrace(t *testing.T) {
	c := inNamespace(t)
	before, err := c.generation()
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Probe()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f)
	if !f.IngressInet {
		t.Error("every kernel that the tests run on has inet ingress chains")
	}
	if host := strings.TrimSpace(run(t, "uname", "-r")); f.Release != host {
		t.Errorf("release %q, uname says %q", f.Release, host)
	}
	if !f.Timeouts || !f.ConnLimit {
		t.Error("every kernel that the tests run on has timeouts and counts connections")
	}
	if os.Getenv("FLOWD_VM") != "" && !(f.Flowtable && f.LogGroup) {
		t.Errorf("the kernels of the VM have flowtables and log groups: %+v", f)
	}
	after, err := c.generation()
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, "nft", "list", "ruleset"); got != "" || before != after {
		t.Errorf("generations %d and %d, ruleset %q", before, after, got)
	}
}

func TestClosingState(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-50-cloud-amd64": false, "6.12.107+deb13-cloud-amd64": false, "6.13.12": false,
		"6.14.0": true, "6.18.44-x": true, "7.2.13+deb14-cloud-amd64": true, "7.0-rc1": true,
		"5.15.0": false, "odd": false,
	} {
		if got := closingState(release); got != want {
			t.Errorf("%s: %v", release, got)
		}
	}
}

// BenchmarkApply is one Apply over the same ruleset: a look, one transaction, and
// the grace periods that the kernel waits for.
func BenchmarkApply(b *testing.B) {
	c := inNamespace(b)
	r := Ruleset{AfterPackets: 20}
	apply(b, c, r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Apply(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	c := inNamespace(b)
	r := Ruleset{AfterPackets: 20}
	apply(b, c, r)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Check(r); err != nil {
			b.Fatal(err)
		}
	}
}
