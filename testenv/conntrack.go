package testenv

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Files of the conntrack table's limits, of all namespaces together, and
// writable in the first namespace only (net/netfilter/nf_conntrack_standalone.c).
const (
	conntrackMax     = "/proc/sys/net/netfilter/nf_conntrack_max"
	conntrackBuckets = "/proc/sys/net/netfilter/nf_conntrack_buckets"
)

// ConntrackRoom returns how many flows, at most want, a namespace may have at a
// time. Where the kernel's limit, nf_conntrack_max, is lower and may be raised,
// it is raised, and stays so: tests of other packages may run at the same time
// and count on it. A machine with 1 GiB of memory begins with a limit of 8,192.
//
// Where the limit may not be raised, the result leaves a tenth of it free for
// what else a test sends.
func ConntrackRoom(t testing.TB, want int) int {
	t.Helper()
	err := raiseConntrackMax(want + want/8)
	if err == nil {
		return want
	}
	limit, readErr := readInt(conntrackMax)
	if readErr != nil {
		t.Fatalf("conntrack limit: %v (is nf_conntrack loaded?)", readErr)
	}
	t.Logf("conntrack limit of %d stays: %v", limit, err)
	return min(want, limit-limit/10)
}

// raiseConntrackMax sees to a limit of need or more. The lock keeps processes
// that do the same from lowering each other's.
func raiseConntrackMax(need int) error {
	file, err := os.OpenFile(conntrackMax, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", conntrackMax, err)
	}
	limit, err := readInt(conntrackMax)
	if err != nil || limit >= need {
		return err
	}
	// The table works with any number of buckets, only slower.
	_ = writeFile(conntrackBuckets, strconv.Itoa(need))
	_, err = file.WriteString(strconv.Itoa(need))
	return err
}

func readInt(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return value, nil
}

// KeepEntries has the router's conntrack keep entries of UDP and of closing and
// closed TCP connections for an hour, so that a test finds them on the slowest
// machine. Those that are in the table already keep the time they were given.
func (l *Lab) KeepEntries(t testing.TB) {
	t.Helper()
	for _, state := range []string{
		"udp_timeout", "udp_timeout_stream",
		"tcp_timeout_close", "tcp_timeout_close_wait", "tcp_timeout_time_wait",
	} {
		if err := l.Router.SetSysctl("net.netfilter.nf_conntrack_"+state, "3600"); err != nil {
			t.Fatalf("keep conntrack entries: %v", err)
		}
	}
}
