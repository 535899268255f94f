package nft

import (
	"errors"
	"fmt"

	"flowd/flow"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Features is what the running kernel can do.
type Features struct {
	Release string // as of uname -r

	// Flowtable: it has flowtables for the inet family, and rules that fill them
	// (NF_FLOW_TABLE_INET, NFT_FLOW_OFFLOAD).
	Flowtable bool
	// LogGroup: it can log to a netlink group (NFT_LOG, NETFILTER_NETLINK_LOG).
	LogGroup bool
	// IngressInet: an inet table may have chains on devices (NETFILTER_INGRESS).
	IngressInet bool
	// Timeouts: a ruleset may set the timeouts of connections
	// (NF_CONNTRACK_TIMEOUT); Ruleset.Timeouts needs it.
	Timeouts bool
	// ConnLimit: a rule can count connections (NFT_CONNLIMIT); Ruleset.PerSource
	// needs it.
	ConnLimit bool
	// ClosingState: the flowtable keeps a TCP flow whose FIN or RST it has seen,
	// so that conntrack sees neither; Ruleset.Tap makes up for it. So it is since
	// Linux 6.14 (commit fdbaf5163331, "netfilter: flowtable: add CLOSING
	// state"), and nothing but the release tells: a kernel that somebody has
	// ported this back to is taken for one without.
	ClosingState bool
}

// probeTable is the table of the transaction that is never committed. It is
// dormant, so that not even its failure registers a hook and takes it back, which
// would drop the packets waiting in any NFQUEUE.
var probeTable = &nftables.Table{
	Family: nftables.TableFamilyINet,
	Name:   "flowd_probe",
	Flags:  nftables.TableFlagDormant,
}

// Probe finds out what the kernel can do, without a trace: it sends one
// transaction that makes a table with all that is asked for and then fails on
// purpose, so that the kernel takes all of it back and says what it would have
// refused. It may load kernel modules.
//
// An error wraps EPERM without CAP_NET_ADMIN, and EOPNOTSUPP without nf_tables. A
// table flowd_probe of somebody else's is in the way only if it has an owner.
func (c *Conn) Probe() (Features, error) {
	f := Features{Release: release()}
	f.ClosingState = closingState(f.Release)
	if _, err := c.generation(); err != nil { // no nf_tables, or no capability
		return f, fmt.Errorf("probe: %w", err)
	}
	b, last := probeBatch()
	if b.err != nil {
		return f, fmt.Errorf("probe: %w", b.err)
	}
	messages := b.frame(0)
	c.mu.Lock()
	refusals, err := c.exchange(messages)
	c.mu.Unlock()
	if err != nil {
		return f, fmt.Errorf("probe: %w", err)
	}
	refused := map[string]unix.Errno{}
	for _, r := range refusals {
		object := messages[r.message].object
		if object == last {
			continue
		}
		if !unsupported(r.errno) || r.message == 0 {
			return f, fmt.Errorf("probe: %w", r.in(messages))
		}
		refused[object] = r.errno
	}
	f.Flowtable = refused[probeFlowtable] == 0 && refused[probeFlow] == 0
	f.LogGroup = refused[probeLog] == 0
	f.IngressInet = refused[probeIngress] == 0
	f.Timeouts = refused[probeTimeout.id().String()] == unix.EINVAL
	f.ConnLimit = refused[probeCount] == 0
	return f, nil
}

// Objects of the probe's transaction.
const (
	probeFlowtable = flowtableObject
	probeFlow      = "chain flow: rule 1"
	probeLog       = "chain log: rule 1"
	probeCount     = "chain count: rule 1"
	probeIngress   = "chain " + tapName
	probeEnd       = "chain that does not exist"
)

// probeTimeout is a timeout that the kernel finds incomplete, if it knows what that is.
// It must not make one: newer kernels drop the packets waiting in NFQUEUEs when they
// take it back (nft_ct_timeout_obj_destroy), and all walk the table of connections.
var probeTimeout = timeout{name: "timeout", proto: flow.UDP}

// probeBatch returns the transaction, and the object of the message that fails on
// purpose. The rules are in chains without hooks: there the kernel checks and sets
// up their expressions, and nothing runs them.
func probeBatch() (b *batch, last string) {
	b = newBatch(probeTable)
	b.addTable()
	b.addFlowtable(nil)
	b.addTimeout(probeTimeout)
	for _, c := range []struct {
		name string
		term term
	}{{"flow", flowAdd(flowtableName)}, {"log", logTo(0)}, {"count", constant("", connLimit(1))}} {
		b.encode("chain "+c.name, func(lib *nftables.Conn) {
			lib.AddChain(&nftables.Chain{Table: probeTable, Name: c.name})
		})
		b.addRule(c.name, 1, rule{c.term})
	}
	b.addChain(chain{name: tapName, hook: inetIngress, priority: tapPriority, devices: []string{"lo"}})
	b.encode(probeEnd, func(lib *nftables.Conn) {
		lib.DelChain(&nftables.Chain{Table: probeTable, Name: "none"})
	})
	return b, probeEnd
}

// unsupported tells whether an error number says that the kernel lacks something:
// a module that it did not find is ENOENT, an option that was left out EOPNOTSUPP,
// or EINVAL in what decodes it.
func unsupported(errno unix.Errno) bool {
	return errors.Is(errno, unix.ENOENT) || errors.Is(errno, unix.EOPNOTSUPP) || errors.Is(errno, unix.EINVAL)
}

// release returns the kernel's release. Uname cannot fail with a valid buffer.
func release() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

// closingState tells whether a release is 6.14 or later.
func closingState(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 14
}
