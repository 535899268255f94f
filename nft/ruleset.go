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
	arrivalName   = "arrival"
	tapName       = "tap"

	// slowPath counts what reaches the forward chain: all forwarded packets
	// that did not take the fast path. Being a named counter it keeps its
	// value when the rules are replaced.
	slowPath = "slow_path"
	// offloadable counts, while offload is off, the packets that would have
	// met the rule that offloads.
	offloadable = "offloadable"
	// overQuota counts what PerSource has dropped. It cannot be called quota,
	// which is a word of nft's.
	overQuota = "over_quota"
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

	// Tap reports the FIN and RST of offloaded flows, or what of them the kernel
	// makes nothing of. Nil: none.
	Tap *Tap

	// NeverOffload are the services whose flows stay in the slow path, such as
	// those that live shorter than the flowtable's timeout.
	NeverOffload []Service

	// Timeouts are the kernel's own, for what it forwards in the slow path. Nil:
	// those it is set to (net.netfilter.nf_conntrack_*). They need
	// Features.Timeouts.
	Timeouts *Timeouts

	// PerSource is how many connections one source address may hold; the first
	// packet of each further one is dropped, and counted (Conn.Quota). 0: no
	// bound. Only forwarded connections count, of any protocol, as long as
	// conntrack has them and, of TCP, until they are closed; those count that
	// began while this very number was in force: another one begins anew. It
	// needs Features.ConnLimit.
	PerSource uint32
}

// A Tap logs TCP packets that end a connection.
//
// Without Forward these are all with FIN or RST that come in by a member of the
// flowtable, before the flowtable takes them. It is for kernels whose flowtable
// hides them from conntrack (Features.ClosingState). Each packet of these devices
// pays for the look: on Linux 7.2 some 320 instructions for UDP, 490 for TCP.
//
// With Forward it is the forward chain that logs them. It is for the other kernels,
// which send them there, and offloaded packets pay nothing. Conntrack has not followed
// the sequence numbers of an offloaded connection and often does not take its RST for
// valid; and it takes a FIN that is sent again for that of the other side
// (nf_conntrack_proto_tcp.c).
//
// A packet inside PPPoE is not seen on the device that carries the session:
// an inet ingress chain passes what is neither IPv4 nor IPv6
// (nft_chain_filter.c, nft_do_chain_inet_ingress).
type Tap struct {
	Group   uint16 // NFLOG group (nfnetlink_log) that the packets are sent to
	Forward bool   // in the forward chain only
}

// A chain is one wanted chain: a base chain, of type filter, that accepts; or a
// regular one.
type chain struct {
	name     string
	regular  bool   // has no hook: the next three are not used
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
	counters := []string{slowPath}
	if !r.Offload {
		counters = append(counters, offloadable)
	}
	if r.PerSource > 0 {
		counters = append(counters, overQuota)
	}
	return counters
}

// chains returns the wanted chains, in the order of their text.
func (r Ruleset) chains() []chain {
	chains := []chain{r.forward()}
	if c := r.arrival(); len(c.rules) > 0 {
		chains = append(chains, c)
	}
	if devices := r.devices(); r.Tap != nil && !r.Tap.Forward && len(devices) > 0 {
		chains = append(chains, chain{
			name:     tapName,
			hook:     inetIngress,
			priority: tapPriority,
			devices:  devices,
			rules:    []rule{closings(r.Tap)},
		})
	}
	return chains
}

// forward returns the chain that counts the slow path and fills the flowtable. What
// concerns only the first packet of a connection is in a chain of its own, reached by
// the last rule: most packets have a state that sends them elsewhere before.
func (r Ruleset) forward() chain {
	c := chain{name: forwardName, hook: unix.NF_INET_FORWARD, priority: forwardPriority}
	if r.Offload && r.Tap != nil && r.Tap.Forward {
		c.rules = append(c.rules, closings(r.Tap))
	}
	c.rules = append(c.rules, rule{countIn(slowPath)})
	c.rules = append(c.rules, r.fill()...)
	if len(r.arrival().rules) > 0 {
		c.rules = append(c.rules, rule{ctUnconfirmed(), verdict(goes, arrivalName)})
	}
	return c
}

// closings returns the rule of a tap.
func closings(t *Tap) rule { return rule{tcpFlags("fin,rst", tcpFin|tcpRst), logTo(t.Group)} }

// fill returns the rules that fill the flowtable.
//
// They begin with what is cheap and mostly false for packets that stay: the state,
// which also keeps out UDP that was never answered (a bare "flow add" offloads that
// too), then the number of packets. The protocol comes last: it only keeps GRE out,
// costs a set lookup, and is reached about once in the life of a flow. Where some
// services are never offloaded there is a rule for each protocol instead, and the set
// lookup is among their ports.
//
// Without offload the same rules count what they would have offloaded. Any form
// refers to ct, without which conntrack tracks nothing in this namespace.
func (r Ruleset) fill() []rule {
	match := rule{ctEstablished()}
	if r.AfterPackets > 1 {
		match = append(match, ctPackets(r.AfterPackets))
	}
	action := countIn(offloadable)
	if r.Offload {
		action = flowAdd(flowtableName)
	}
	var rules []rule
	always := true
	for _, p := range offloaded {
		ports, all := r.never(p)
		always = always && len(ports) == 0
		switch fill := append(slices.Clone(match), l4proto(p)); {
		case all:
		case len(ports) > 0:
			rules = append(rules, append(fill, notToPorts(neverName(p)), action))
		default:
			rules = append(rules, append(fill, action))
		}
	}
	switch {
	case always:
		return []rule{append(match, tcpOrUDP(), action)}
	case len(rules) == 0:
		return []rule{{ctEstablished()}} // for conntrack's sake only
	}
	return rules
}

// arrival returns the chain that sees the first packet of each connection, or one
// without rules if that is nobody's concern.
//
// Only the first packet may enter the quota's sets: the kernel expects to see no
// connection twice there (nf_conncount.c, __nf_conncount_add), and before Linux 6.19
// counts one again whose packets come within one tick, and looks through the whole
// list of its source for each.
func (r Ruleset) arrival() chain {
	c := chain{name: arrivalName, regular: true}
	if n := r.PerSource; n > 0 {
		c.rules = append(c.rules,
			rule{overQuota4(r.quotaName("4"), n), countIn(overQuota), verdict(drops, "")},
			rule{overQuota6(r.quotaName("6"), n), countIn(overQuota), verdict(drops, "")})
	}
	for _, t := range r.Timeouts.all() {
		c.rules = append(c.rules, t.rule())
	}
	return c
}
