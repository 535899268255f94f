//go:build !kernel

package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowd/testenv"
)

// many is how many flows the listing is tried with.
const many = 100_000

// TestListsManyFlows holds the list against the kernel's own count and, entry by
// entry with counters, against conntrack(8).
func TestListsManyFlows(t *testing.T) {
	lab := testenv.Up(t)
	if room := testenv.ConntrackRoom(t, many); room < many {
		t.Fatalf("the kernel has room for %d flows, %d are needed (net.netfilter.nf_conntrack_max)", room, many)
	}
	d := start(t, lab.Router, "")
	lab.KeepEntries(t)
	makeFlows(t, lab, many)
	testenv.Eventually(t, 20*time.Second, func() error {
		count, err := strconv.Atoi(strings.TrimSpace(lab.Router.Run(t, "conntrack", "-C")))
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(d.ctl("flows", "-o", "json"), "\n"); lines != count || count < many {
			return fmt.Errorf("flowctl flows -o json | wc -l: %d, conntrack -C: %d", lines, count)
		}
		return nil
	})
	testenv.Eventually(t, 20*time.Second, func() error { return agree(d.entries(), conntrack(t, lab.Router)) })

	// And away with them all, by command.
	if out := d.ctl("flow", "evict", "-p", "udp"); !strings.Contains(out, fmt.Sprintf("\n%d evicted\n", many)) {
		t.Errorf("evict said: %s", out[max(0, len(out)-200):])
	}
	testenv.Eventually(t, 10*time.Second, func() error { return agree(d.entries(), conntrack(t, lab.Router)) })
}
