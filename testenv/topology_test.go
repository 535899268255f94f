package testenv

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// received returns the packets that a device of the router has received.
func received(t *testing.T, lab *Lab, device string) int {
	t.Helper()
	var packets int
	text := lab.Router.Run(t, "cat", "/sys/class/net/"+device+"/statistics/rx_packets")
	if _, err := fmt.Sscan(text, &packets); err != nil {
		t.Fatal(err)
	}
	return packets
}

// exchange has requests and replies between the client and an address of the
// server.
func exchange(t *testing.T, lab *Lab, addr netip.Addr, count int) {
	t.Helper()
	server, err := ServeUDP(lab.Server, UDPServerConfig{Addr: netip.AddrPortFrom(addr, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := DialUDP(lab.Client, netip.AddrPort{}, server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exchange(count, 100); err != nil {
		t.Fatal(err)
	}
}

// TestUplink2Table: the second way leads to the server's first address, and
// back, in both families.
func TestUplink2Table(t *testing.T) {
	lab := Up(t, Uplink2)
	before := received(t, lab, "wan1")
	for _, family := range []string{"-4", "-6"} {
		lab.Router.Run(t, "ip", family, "rule", "add", "iif", "lan0", "table", fmt.Sprint(Uplink2Table))
	}
	gateways := map[string]string{"0.0.0.0/0": "203.0.113.1", "::/0": "2001:db8:3::1"}
	for prefix, gateway := range gateways {
		lab.Server.Run(t, "ip", "route", "replace", prefix, "via", gateway)
	}
	exchange(t, lab, lab.ServerV4, 50)
	exchange(t, lab, lab.ServerV6, 50)
	if after := received(t, lab, "wan1"); after < before+100 {
		t.Errorf("wan1 received %d packets, want 100 replies", after-before)
	}
}

// TestBridgeRoam: the client moves to the bridge's second port.
func TestBridgeRoam(t *testing.T) {
	lab := Up(t, Bridge)
	exchange(t, lab, lab.ServerV4, 1)
	exchange(t, lab, lab.ServerV6, 1)
	mac := strings.TrimSpace(lab.Client.Run(t, "cat", "/sys/class/net/eth0/address"))
	before := received(t, lab, "lan1")
	for _, command := range []string{
		"link set eth0 down",
		"link set eth1 address " + mac,
		"addr del 192.0.2.2/24 dev eth0",
		"addr add 192.0.2.2/24 dev eth1",
		"addr add 2001:db8:1::2/64 dev eth1 nodad",
		"route add 0.0.0.0/0 via 192.0.2.1",
		"route add ::/0 via 2001:db8:1::1",
	} {
		lab.Client.Run(t, "ip", strings.Fields(command)...)
	}
	exchange(t, lab, lab.ServerV4, 20)
	exchange(t, lab, lab.ServerV6, 20)
	if after := received(t, lab, "lan1"); after < before+40 {
		t.Errorf("lan1 received %d packets, want 40 requests", after-before)
	}
}
