package testenv

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestReuseTCP: whoever closes first, the next connection of the same five-tuple
// is accepted by both ends and by conntrack.
func TestReuseTCP(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		for _, ending := range []Ending{ClientFirst, ServerFirst, ClientReset} {
			const count = 100
			from := netip.AddrPortFrom(path.from, 4444)
			begin := time.Now()
			ok, failed, err := ReuseTCP(t.Context(), ReuseConfig{
				Client: path.lab.Client, Server: path.lab.Server,
				From: from, To: netip.AddrPortFrom(path.to, 5555), Count: count, Ending: ending,
			})
			t.Logf("%s: %d connections in %v", ending, ok, time.Since(begin))
			if ok != count || failed != 0 || err != nil {
				t.Errorf("%s: %d went well, %d failed, the first: %v", ending, ok, failed, err)
			}
			state := "TIME_WAIT"
			if ending == ClientReset {
				state = " CLOSE "
			}
			path.wantEntry(t, "tcp", from, state)
		}
	})
}

func TestReuseTCPFails(t *testing.T) {
	lab := Up(t, Firewall)
	config := ReuseConfig{
		Client: lab.Client, Server: lab.Server, Count: 3, Timeout: 50 * time.Millisecond,
		From: netip.AddrPortFrom(lab.ClientV4, 4444), To: netip.AddrPortFrom(lab.ServerV4, DroppedPort),
	}
	ok, failed, err := ReuseTCP(t.Context(), config)
	if ok != 0 || failed != 3 || err == nil || !strings.HasPrefix(err.Error(), "connection 1: ") {
		t.Errorf("through a firewall: %d, %d, %v", ok, failed, err)
	}
	config.Ending = "never"
	if _, failed, err := ReuseTCP(t.Context(), config); failed != 3 || err == nil {
		t.Errorf("no such ending: %d, %v", failed, err)
	}
	config.Ending, config.From = ClientReset, netip.AddrPort{}
	if _, failed, err := ReuseTCP(t.Context(), config); failed != 3 || err == nil {
		t.Errorf("no port: %d, %v", failed, err)
	}
}
