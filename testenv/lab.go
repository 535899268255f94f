// Package testenv gives tests a network to work on: a client, a router and a
// server in network namespaces of their own, and traffic of every kind between
// them. It needs root; a test without it fails, with one line that says so.
//
// The network is made by the shell script lab, which is also of use by hand;
// its help page has a picture. A test gets one with [Up]:
//
//	lab := testenv.Up(t, testenv.NAT)
//	lab.Router.Run(t, "conntrack", "-L")
//
// and sends traffic over it with [ServeTCP] and [DialTCP], [ServeUDP] and
// [DialUDP], [Flows], and [Forge]. The command in cmd/traffic does the same
// from a shell.
package testenv

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// script makes and removes laboratories. It is run as "sh -c script lab ...".
//
//go:embed lab
var script string

// An Option is an option of "lab up". They go together in any combination.
type Option string

// The variants of a laboratory.
const (
	NAT      Option = "--nat"      // masquerade, both families, towards the server
	Firewall Option = "--firewall" // a router's forward chain; drops tcp port [DroppedPort]
	Track    Option = "--track"    // a rule that makes conntrack track, no more
	Uplink2  Option = "--uplink2"  // wan1, a second way to the server; routing table [Uplink2Table]
	VLAN     Option = "--vlan"     // the LAN is VLAN 10, lan0.10
	Bridge   Option = "--bridge"   // the LAN is br0 with ports lan0 and lan1
)

// DroppedPort is the TCP port that [Firewall] lets nobody reach.
const DroppedPort = 9999

// Uplink2Table is the routing table of the router that leads to the server by
// way of wan1, where there is an [Uplink2].
const Uplink2Table = 100

// A Lab is a client, a router and a server, connected in this order.
type Lab struct {
	// Prefix begins the names of the namespaces, as in "lab --prefix".
	Prefix string

	Client, Router, Server *Namespace

	ClientV4, ClientV6   netip.Addr
	LANV4, LANV6         netip.Addr // the router's, towards the client
	WANV4, WANV6         netip.Addr // the router's, towards the server
	ServerV4, ServerV6   netip.Addr
	Server2V4, Server2V6 netip.Addr // the server's on the second uplink

	// LAN and WAN are the devices of the router that have its addresses.
	LAN, WAN string
	// Devices are those of the router that a flowtable has to list: with
	// [VLAN] both lan0 and lan0.10, with [Bridge] the ports and not br0.
	Devices []string
}

// Up makes a laboratory with a name of its own, and removes it when the test
// ends.
func Up(t testing.TB, options ...Option) *Lab {
	t.Helper()
	Require(t, "sh", "ip")
	lab := &Lab{Prefix: "test" + randomHex(4)}
	t.Cleanup(func() {
		if _, err := lab.script("down"); err != nil {
			t.Errorf("remove laboratory: %v", err)
		}
	})
	args := []string{}
	for _, option := range options {
		args = append(args, string(option))
	}
	if _, err := lab.script("up", args...); err != nil {
		t.Fatalf("make laboratory: %v", err)
	}
	if err := lab.open(t); err != nil {
		t.Fatalf("open laboratory %s: %v", lab.Prefix, err)
	}
	lab.nameDevices(options)
	return lab
}

// randomHex returns n random bytes as 2n digits.
func randomHex(n int) string {
	random := make([]byte, n)
	rand.Read(random)
	return hex.EncodeToString(random)
}

// script runs the script and returns what it prints.
func (l *Lab) script(verb string, args ...string) (string, error) {
	args = append([]string{"-c", script, "lab", verb, "--prefix", l.Prefix}, args...)
	cmd := exec.Command("sh", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("lab %s: %w: %s", verb, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// open opens the namespaces and fills in the addresses.
func (l *Lab) open(t testing.TB) error {
	env, err := l.script("env")
	if err != nil {
		return err
	}
	spaces := map[string]**Namespace{
		"LAB_CLIENT": &l.Client, "LAB_ROUTER": &l.Router, "LAB_SERVER": &l.Server,
	}
	addrs := map[string]*netip.Addr{
		"LAB_CLIENT_V4": &l.ClientV4, "LAB_CLIENT_V6": &l.ClientV6,
		"LAB_LAN_V4": &l.LANV4, "LAB_LAN_V6": &l.LANV6,
		"LAB_WAN_V4": &l.WANV4, "LAB_WAN_V6": &l.WANV6,
		"LAB_SERVER_V4": &l.ServerV4, "LAB_SERVER_V6": &l.ServerV6,
		"LAB_SERVER2_V4": &l.Server2V4, "LAB_SERVER2_V6": &l.Server2V6,
	}
	for line := range strings.Lines(env) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if space := spaces[name]; space != nil {
			if *space, err = OpenNamespace(value); err != nil {
				return err
			}
			t.Cleanup(func() { (*space).Close() })
		}
		if addr := addrs[name]; addr != nil {
			if *addr, err = netip.ParseAddr(value); err != nil {
				return fmt.Errorf("lab env: %s: %w", name, err)
			}
		}
	}
	return l.Client.Do(probeIPv6)
}

// probeIPv6 has package net find out that there is IPv6. It looks once in the
// life of a process and wants the loopback device up, which is sure only here.
func probeIPv6() error {
	listener, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return fmt.Errorf("probe IPv6: %w", err)
	}
	return listener.Close()
}

func (l *Lab) nameDevices(options []Option) {
	l.LAN, l.WAN = "lan0", "wan0"
	l.Devices = []string{"lan0", "wan0"}
	if slices.Contains(options, VLAN) {
		l.LAN = "lan0.10"
		l.Devices = append(l.Devices, "lan0.10")
	}
	if slices.Contains(options, Bridge) {
		l.LAN = "br0"
		l.Devices = append(l.Devices, "lan1")
	}
	if slices.Contains(options, Uplink2) {
		l.Devices = append(l.Devices, "wan1")
	}
}
