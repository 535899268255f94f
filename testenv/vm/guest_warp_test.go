//go:build kernel && warp

package vm

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These tests run in a guest with vm.Job.Warp, where five minutes take seconds.

// uptime is the kernel's own count of seconds.
func uptime(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}

// TestWarpClocks: timers of a program tick as they should for five minutes, and all clocks
// agree on how long that was.
func TestWarpClocks(t *testing.T) {
	const minutes = 5 * time.Minute
	begin, up := time.Now(), uptime(t)
	quarters, seconds := time.NewTicker(250*time.Millisecond), time.NewTicker(time.Second)
	end := time.After(minutes)
	var ticks, tocks int
	for running := true; running; {
		select {
		case <-quarters.C:
			ticks++
		case <-seconds.C:
			tocks++
		case <-end:
			running = false
		}
	}
	// Tickers drop what a busy program does not take in time.
	if ticks < 1190 || ticks > 1201 || tocks < 298 || tocks > 301 {
		t.Errorf("%d and %d ticks of 250 ms and 1 s, want 1,200 and 300", ticks, tocks)
	}
	for name, took := range map[string]float64{
		"CLOCK_MONOTONIC": time.Since(begin).Seconds(),
		"CLOCK_REALTIME":  time.Now().Round(0).Sub(begin.Round(0)).Seconds(),
		"uptime":          uptime(t) - up,
	} {
		if math.Abs(took-minutes.Seconds()) > 1 {
			t.Errorf("%s says it took %.3f s, want 300", name, took)
		}
	}
}

// TestWarpConntrack: the lifetimes of flows, which the kernel counts in jiffies, go along.
func TestWarpConntrack(t *testing.T) {
	sh(t, "conntrack -I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -t 300")
	t.Cleanup(func() { sh(t, "conntrack -F") })
	left := func() string { return sh(t, "conntrack -L -p udp 2>/dev/null | awk '{ print $3 }'") }
	time.Sleep(2 * time.Minute)
	if seconds, err := strconv.Atoi(left()); err != nil || seconds < 175 || seconds > 180 {
		t.Errorf("after 120 of 300 s there are %d left (%v)", seconds, err)
	}
	time.Sleep(185 * time.Second)
	if got := left(); got != "" {
		t.Errorf("after 305 of 300 s there are %s left", got)
	}
}
