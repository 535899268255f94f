package nft

import (
	"errors"
	"strings"
	"testing"
)

// TestApplyRepairsObjects: damage to timeouts, sets and what hangs on them.
func TestApplyRepairsObjects(t *testing.T) {
	const empty = "flush chain inet flowd arrival; flush chain inet flowd forward; "
	for _, damage := range []struct{ name, commands, words string }{
		{"timeout deleted", empty + "delete ct timeout inet flowd udp_5s", "ct timeout udp_5s is missing"},
		{"timeout changed", empty + "delete ct timeout inet flowd udp_5s; add ct timeout inet flowd udp_5s " +
			"{ protocol udp; l3proto inet; policy = { unreplied : 5, replied : 6 }; }", "ct timeout udp_5s has other values"},
		{"timeout of other protocol", empty + "delete ct timeout inet flowd udp_5s; add ct timeout inet flowd udp_5s " +
			"{ protocol tcp; l3proto inet; policy = { syn_sent : 5, syn_recv : 5 }; }", "ct timeout udp_5s has other values"},
		{
			"foreign timeout", "add ct timeout inet flowd udp_9s { protocol udp; l3proto inet; policy = { replied : 9 }; }",
			"ct timeout udp_9s should not be there",
		},
		{"counter of its name", "add counter inet flowd udp_5s", "counter udp_5s should not be there"},
		{"quota counter deleted", empty + "delete counter inet flowd over_quota", "counter over_quota is missing"},
		{"port added", "add element inet flowd never_udp { 5000 }", "set never_udp holds other ports"},
		{"port removed", "delete element inet flowd udp_5s { 53 }", "set udp_5s holds other ports"},
		{"set emptied", "flush set inet flowd never_tcp", "set never_tcp holds other ports"},
		{"set deleted", empty + "delete set inet flowd never_udp", "set never_udp is missing"},
		{"set of another kind", empty + "delete set inet flowd never_udp; add set inet flowd never_udp " +
			"{ type inet_service; flags interval; elements = { 53, 123 }; }", "set never_udp is of another kind"},
		{
			"set of addresses", empty + "delete set inet flowd never_udp; add set inet flowd never_udp { type ipv4_addr; }",
			"set never_udp is of another kind",
		},
		{"map of its name", empty + "delete set inet flowd never_udp; add map inet flowd never_udp " +
			"{ type inet_service : mark; elements = { 53 : 1 }; }", "set never_udp is of another kind"},
		{"quota deleted", empty + "delete set inet flowd quota4_4294967295", "set quota4_4294967295 is missing"},
		{"quota of another size", empty + "delete set inet flowd quota6_4294967295; add set inet flowd quota6_4294967295 " +
			"{ type ipv6_addr; size 10; flags dynamic; }", "set quota6_4294967295 is of another kind"},
		{"old quota", "add set inet flowd quota4_9 { type ipv4_addr; size 65535; flags dynamic; }", "set quota4_9 should not be there"},
		{"arrival flushed", "flush chain inet flowd arrival", "chain arrival: rule 1 is missing or changed: add @quota4"},
		{"arrival deleted", empty + "delete chain inet flowd arrival", "chain arrival is missing"},
		{"arrival hooked", empty + "delete chain inet flowd arrival; add chain inet flowd arrival " +
			"{ type filter hook forward priority 0; }", "chain arrival has a hook"},
		{"rule in arrival", "insert rule inet flowd arrival accept", "chain arrival: a foreign rule stands before rule 1"},
		{"goto replaced", "flush chain inet flowd forward", "chain forward: rule 1 is missing"},
	} {
		t.Run(damage.name, func(t *testing.T) {
			c := inNamespace(t)
			r := goldens["off-all"]
			apply(t, c, r)
			feed(t, damage.commands+"\n", "nft", "-f", "-")
			err := c.Check(r)
			if want := "table inet flowd: " + damage.words; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Check: %v, want %s", err, want)
			}
			if _, ok := errors.AsType[Damage](err); !ok {
				t.Errorf("Check: %T is no Damage", err)
			}
			apply(t, c, r)
			whole(t, c, r)
			apply(t, c, Ruleset{})
			whole(t, c, Ruleset{})
		})
	}
}

// TestEachAfterEachWithoutOffload: from any ruleset to any other, in place.
func TestEachAfterEachWithoutOffload(t *testing.T) {
	c := inNamespace(t)
	apply(t, c, Ruleset{})
	chain, counter := handleOf(t, "chain forward"), handleOf(t, "counter slow_path")
	for _, from := range offloadless {
		for _, to := range offloadless {
			apply(t, c, goldens[from])
			apply(t, c, goldens[to])
			if whole(t, c, goldens[to]); t.Failed() {
				t.Fatalf("from %s to %s", from, to)
			}
		}
	}
	if got := handleOf(t, "chain forward"); got != chain {
		t.Errorf("chain forward has handle %s, had %s", got, chain)
	}
	if got := handleOf(t, "counter slow_path"); got != counter {
		t.Errorf("counter slow_path has handle %s, had %s", got, counter)
	}
}

// TestObjectsStay: applied again, nothing that connections or counts hang on is made
// anew.
func TestObjectsStay(t *testing.T) {
	c := inNamespace(t)
	r := goldens["off-all"]
	apply(t, c, r)
	objects := []string{
		"ct timeout udp_5s", "ct timeout tcp_30s_7440s_900s", "set quota4_4294967295", "set never_udp",
		"counter over_quota", "chain arrival",
	}
	before := map[string]string{}
	for _, o := range objects {
		before[o] = handleOf(t, o)
	}
	for range 20 {
		r.AfterPackets++
		apply(t, c, r)
	}
	whole(t, c, r)
	for _, o := range objects {
		if got := handleOf(t, o); got != before[o] {
			t.Errorf("%s has handle %s, had %s", o, got, before[o])
		}
	}
}

// TestUsualTimeouts: nft cannot read what it lists if all values are those that it
// takes for the defaults.
func TestUsualTimeouts(t *testing.T) {
	c := inNamespace(t)
	r := Ruleset{Timeouts: &Timeouts{UDP: UDPTimeouts{Unreplied: 30, Replied: 120}}}
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
