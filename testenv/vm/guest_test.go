//go:build kernel

package vm

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// These tests run in a guest and look whether it is what other tests count on.

// sh runs a script and returns what it printed. An error is the test's failure.
func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestGuestKernel(t *testing.T) {
	if os.Getenv("FLOWD_VM") != "1" {
		t.Fatal("not in a guest: run this with testenv/cmd/vmtest")
	}
	release := sh(t, "uname -r")
	name := os.Getenv("FLOWD_KERNEL")
	if name == "sid" {
		for _, older := range []string{"6.1", "6.12"} {
			if strings.HasPrefix(release, older+".") {
				t.Errorf("kernel %s: want one newer than %s", release, older)
			}
		}
		return
	}
	if !strings.HasPrefix(release, name+".") {
		t.Errorf("kernel %s, want %s", release, name)
	}
}

func TestGuestConntrack(t *testing.T) {
	if got := sh(t, "sysctl -n net.netfilter.nf_conntrack_count"); got != "0" {
		t.Errorf("%s flows at the start, want 0", got)
	}
	sh(t, "conntrack -L")
}

// TestGuestRules loads one ruleset of all that a flowtable manager uses, most of
// it from modules that the kernel is to load by itself.
func TestGuestRules(t *testing.T) {
	t.Cleanup(func() { sh(t, "nft flush ruleset; ip link del guest0; ip link del guest1") })
	sh(t, "ip link add guest0 type dummy; ip link add guest1 type dummy")
	sh(t, `nft -f testdata/rules.nft`)
	if got := sh(t, "nft list flowtable inet guest ft"); !strings.Contains(got, "guest0, guest1") {
		t.Errorf("flowtable without its devices:\n%s", got)
	}
	for _, key := range []string{"nf_flowtable_tcp_timeout", "nf_flowtable_udp_timeout"} {
		if got := sh(t, "sysctl -n net.netfilter."+key); got != "30" {
			t.Errorf("%s is %s, want the kernel's default of 30", key, got)
		}
	}
}

// TestGuestLinks makes every kind of link; kinds make no devices that were not asked for.
func TestGuestLinks(t *testing.T) {
	sh(t, "ip netns add links")
	t.Cleanup(func() { sh(t, "ip netns del links") })
	sh(t, `
		ip() { /usr/bin/ip -n links "$@"; }
		ip link add veth0 type veth peer name veth1
		ip link add bond9 type bond
		ip link add ifb9 type ifb
		ip link add br9 type bridge
		ip link set veth1 master br9
		ip link add link veth0 name veth0.5 type vlan id 5
		ip link add wg9 type wireguard
		ip link add vrf9 type vrf table 9
		ip link add link veth0 name mac9 type macvlan
		ip tuntap add tun9 mode tun`)
	out := sh(t, "ip -o link show | grep -c .")
	if out != "1" {
		t.Errorf("%s links in the first namespace, want lo alone:\n%s", out, sh(t, "ip link"))
	}
}

func TestGuestPrograms(t *testing.T) {
	for program, want := range map[string]string{
		"ip -V":             "ip utility, iproute2",
		"timeout 9 ip -V":   "ip utility, iproute2",
		"nft --version":     "nftables v1",
		"tc -V":             "tc utility, iproute2",
		"iperf3 --version":  "iperf 3",
		"tcpdump --version": "tcpdump version",
		"ethtool --version": "ethtool version",
		"conntrack -V":      "conntrack v1",
	} {
		if got := sh(t, program+" 2>&1"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", program, got, want)
		}
	}
}
