package nft

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Names of what flowd owns. They are fixed: a new flowd finds by them what an
// older one has left, and an administrator's scripts may rely on them.
const (
	tableName     = "flowd"
	flowtableName = "fastpath"
	forwardName   = "forward"
	tapName       = "tap"

	// slowPath counts what reaches the forward chain: all forwarded packets
	// that did not take the fast path. Being a named counter it keeps its
	// value when the rules are replaced.
	slowPath = "slow_path"
	// offloadable counts, while offload is off, the packets that would have
	// met the rule that offloads.
	offloadable = "offloadable"
)

const (
	// forwardPriority puts the forward chain behind every chain that may drop:
	// netfilter's own names for the forward hook end with security, 50, and
	// SELinux's 225 (uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities),
	// firewalld filters at filter + 10. A flow is offloaded by the first of its
	// packets that gets this far, and no firewall sees it any more: so a packet
	// that any of them drops must never get this far.
	forwardPriority = 300

	// flowtablePriority is the one that nft calls filter.
	flowtablePriority = 0

	// tapPriority puts the tap before the flowtable on the same ingress hook:
	// behind it no packet of an offloaded flow is seen.
	tapPriority = -10

	// tapSnaplen is how much of a packet the tap copies, from its network
	// header: that of IPv6 (40 bytes) and that of TCP without options (20), or
	// those of IPv4, which are shorter unless it carries over 4 bytes of
	// options. Extension headers of IPv6 are not looked through.
	tapSnaplen = 64

	// tapThreshold is how many packets the kernel gathers before it wakes the
	// reader. Sent one by one they cost two to four times as much, and a flood
	// of RST overruns the reader. The reader's flush timeout
	// (NFULNL_CFG_TIMEOUT) bounds the wait for the rest.
	tapThreshold = 64
)

// A Ruleset is the whole wanted table inet flowd. The zero Ruleset offloads
// nothing, but makes conntrack track.
type Ruleset struct {
	// Offload asks for the flowtable. It is false where the kernel has none or
	// the administrator wants none; Tap is then ignored, since conntrack sees
	// every packet.
	Offload bool

	// Devices are the members of the flowtable, in any order; what is there
	// twice counts once. A flow is offloaded only if both its devices are
	// members. Without Offload they are ignored.
	Devices []string

	// AfterPackets is how many packets a flow must have shown, both directions
	// together, before it is offloaded; 0 and 1 offload it at once. The kernel
	// counts them only for flows that began after net.netfilter.nf_conntrack_acct
	// was set, which loading such a rule does (nft_ct_get_init): older flows
	// stay in the slow path.
	AfterPackets uint64

	// Tap reports the FIN and RST of offloaded flows. It is for kernels whose
	// flowtable hides these from conntrack (Features.ClosingState), and nil for
	// the others.
	Tap *Tap
}

// A Tap logs each TCP packet with FIN or RST that comes in by a member of the
// flowtable, before the flowtable takes it. Each packet of these devices pays for
// the look: on Linux 7.2 some 320 instructions for UDP, 490 for TCP.
//
// A packet inside PPPoE is not seen on the device that carries the session:
// an inet ingress chain passes what is neither IPv4 nor IPv6
// (nft_chain_filter.c, nft_do_chain_inet_ingress).
type Tap struct {
	Group uint16 // NFLOG group (nfnetlink_log) that the packets are sent to
}

// A chain is one wanted base chain. All are of type filter and accept.
type chain struct {
	name     string
	hook     uint32 // NF_INET_*
	priority int32
	devices  []string // of the ingress hook, sorted
	rules    []rule
}

// inetIngress is NF_INET_INGRESS, the hook of a device in the inet family
// (uapi/linux/netfilter.h; Linux 5.10).
const inetIngress = 5

// devices returns r's devices sorted, each once, without empty names.
func (r Ruleset) devices() []string {
	if !r.Offload {
		return nil
	}
	devices := slices.Clone(r.Devices)
	slices.Sort(devices)
	devices = slices.Compact(devices)
	return slices.DeleteFunc(devices, func(d string) bool { return d == "" })
}

// counters returns the names of the wanted counters, in the order of their text.
func (r Ruleset) counters() []string {
	if r.Offload {
		return []string{slowPath}
	}
	return []string{slowPath, offloadable}
}

// chains returns the wanted chains, in the order of their text.
func (r Ruleset) chains() []chain {
	chains := []chain{r.forward()}
	if devices := r.devices(); r.Tap != nil && len(devices) > 0 {
		chains = append(chains, chain{
			name:     tapName,
			hook:     inetIngress,
			priority: tapPriority,
			devices:  devices,
			rules:    []rule{{tcpFinOrRst(), logTo(r.Tap.Group)}},
		})
	}
	return chains
}

// forward returns the chain that counts the slow path and fills the flowtable.
//
// Its second rule begins with what is cheap and mostly false for packets that
// stay: the state, which also keeps out UDP that was never answered (a bare
// "flow add" offloads that too), then the number of packets. The protocol comes
// last: it only keeps GRE out, costs a set lookup, and is reached about once in
// the life of a flow.
//
// Without offload the same rule counts what it would have offloaded. Either form
// refers to ct, without which conntrack tracks nothing in this namespace.
func (r Ruleset) forward() chain {
	fill := rule{ctEstablished()}
	if r.AfterPackets > 1 {
		fill = append(fill, ctPackets(r.AfterPackets))
	}
	fill = append(fill, tcpOrUDP())
	if r.Offload {
		fill = append(fill, flowAdd(flowtableName))
	} else {
		fill = append(fill, countIn(offloadable))
	}
	return chain{
		name:     forwardName,
		hook:     unix.NF_INET_FORWARD,
		priority: forwardPriority,
		rules:    []rule{{countIn(slowPath)}, fill},
	}
}
