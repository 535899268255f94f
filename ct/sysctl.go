package ct

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Sysctl is one setting of conntrack in this network namespace: a file below
// /proc/sys/net/netfilter.
type Sysctl struct {
	Name string
	Want int
	Why  string
}

// Needed are the settings that flowd cannot do without.
var Needed = []Sysctl{
	// 2, the default, reports UPDATE and DESTROY only of entries that were created
	// while somebody listened: nf_ct_ecache_ext_add.
	{"nf_conntrack_events", 1, "events of entries older than the daemon"},
	{"nf_conntrack_acct", 1, "packet and byte counters, and the packet threshold"},
	{"nf_conntrack_timestamp", 1, "start and duration of flows"},
}

// Timeouts are the settings by which the kernel itself ends what is idle: a flow that
// comes back from the flowtable gets these, and no timeout object's
// (flow_offload_fixup_ct). tcp and udp are in seconds.
func Timeouts(tcp, udp uint32) []Sysctl {
	const why = "idle flows that come back from the flowtable end in time, with or without flowd"
	return []Sysctl{
		{"nf_conntrack_tcp_timeout_established", int(tcp), why},
		{"nf_conntrack_udp_timeout_stream", int(udp), why},
	}
}

// SysctlChange tells what Ensure found and did.
type SysctlChange struct {
	Sysctl
	Was int
	Err error // it could not be read or set
}

const sysctlDir = "/proc/sys/net/netfilter/"

// Ensure sets the settings that are not as they should be and returns those
// that it changed or could not change.
func Ensure(settings []Sysctl) []SysctlChange {
	var changes []SysctlChange
	for _, s := range settings {
		was, err := ReadSysctl(s.Name)
		if err == nil && was == s.Want {
			continue
		}
		if err == nil {
			err = os.WriteFile(sysctlDir+s.Name, []byte(strconv.Itoa(s.Want)), 0)
		}
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w (the kernel has no such setting: nf_conntrack is not loaded, or built without it)", err)
		}
		changes = append(changes, SysctlChange{Sysctl: s, Was: was, Err: err})
	}
	return changes
}

// ReadSysctl reads one number below /proc/sys/net/netfilter.
func ReadSysctl(name string) (int, error) {
	b, err := os.ReadFile(sysctlDir + name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s%s: %w", sysctlDir, name, err)
	}
	return n, nil
}
