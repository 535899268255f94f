package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"flowd/nft"
	"flowd/policy"

	"golang.org/x/sys/unix"
)

// tapGroup is the netlink log group of the FIN/RST tap: high, as ulogd's are low.
const tapGroup = 4711

// tapGroups is how many groups from there on are tried, should others be taken.
const tapGroups = 8

// settle is how long the keeper waits after it has looked at the ruleset, so
// that a program that changes rules all the time does not keep it busy, and
// again is how soon it tries anew what came to nothing, and reconsider how soon a
// flowtable that the kernel has refused.
const (
	settle     = 100 * time.Millisecond
	again      = time.Second
	reconsider = 30 * time.Second
)

// keeper holds the wanted ruleset in the kernel: when devices come or go, when
// the configuration changes, and when another program damages it. Only Run, and
// load before it, talk to the kernel.
type keeper struct {
	log      *slog.Logger
	conn     *nft.Conn
	features nft.Features
	tap      *nft.Tap      // wanted in the ruleset
	wake     chan struct{} // something may have changed

	mu     sync.Mutex
	author nft.Generation // of the newest foreign generation not looked at yet
	inForce
}

// inForce is what is wanted, and what came of it.
type inForce struct {
	cfg      policy.Config
	applied  nft.Ruleset
	missing  []string // devices that the configuration names and that are not there
	degraded string   // why there is no offload although it is wanted
	lacks    string   // what the kernel cannot do of what is wanted
	repairs  uint64   // times that another program's damage was mended
}

func newKeeper(log *slog.Logger, cfg policy.Config) (*keeper, error) {
	conn, err := nft.Open()
	if err != nil {
		return nil, err
	}
	features, err := conn.Probe()
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &keeper{log: log, conn: conn, features: features, wake: make(chan struct{}, 1), inForce: inForce{cfg: cfg}}, nil
}

// ruleset compiles the configuration for the devices there are now.
func ruleset(conn *nft.Conn, cfg policy.Config, f nft.Features, tap *nft.Tap) (nft.Ruleset, error) {
	r := nft.Ruleset{
		Offload:      cfg.Flowtable.Offload == policy.OffloadSoftware && f.Flowtable,
		AfterPackets: cfg.Flowtable.After.Packets,
		NeverOffload: shortLived(cfg.Ageing, kernelTimers()),
	}
	if f.Timeouts {
		r.Timeouts = timeouts(cfg.Ageing)
	}
	if f.ConnLimit {
		r.PerSource = uint32(cfg.Flowtable.PerSource)
	}
	if !r.Offload {
		return r, nil
	}
	devices, err := conn.Devices(globs(cfg.Flowtable.Devices), globs(cfg.Flowtable.Exclude))
	if err != nil {
		return r, err
	}
	r.Devices, r.Tap = devices, tap
	return r, nil
}

// tapFor returns the tap that a kernel needs, or nil. Where the flowtable forwards the
// closing packets of a connection itself conntrack never sees them; elsewhere it often
// makes nothing of a RST.
func tapFor(f nft.Features, group uint16) *nft.Tap {
	switch {
	case !f.LogGroup, f.ClosingState && !f.IngressInet:
		return nil
	}
	return &nft.Tap{Group: group, Forward: !f.ClosingState}
}

func globs(patterns []policy.Pattern) []string {
	var s []string
	for _, p := range patterns {
		s = append(s, p.String())
	}
	return s
}

// cannot tells whether an error of Apply means that this kernel, or a device, will
// not do it: any other passes.
func cannot(err error) bool {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOENT, unix.EINVAL, unix.EEXIST} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// lacks tells of what the configuration wants and this kernel cannot do without
// which flowd goes on.
func lacks(cfg policy.Config, f nft.Features) string {
	var all []string
	if !f.Timeouts {
		all = append(all, "timeouts of single connections (CONFIG_NF_CONNTRACK_TIMEOUT): flowd alone ends what is silent")
	}
	if cfg.Flowtable.PerSource > 0 && !f.ConnLimit {
		all = append(all, "a limit of connections for each source (CONFIG_NFT_CONNLIMIT): per_source has no effect")
	}
	return strings.Join(all, "; ")
}

// load brings the wanted ruleset into the kernel, in place. Where the kernel
// refuses the flowtable the rest is loaded without, and why is kept; but one that
// serves is never given up for that.
func (k *keeper) load() error {
	now := k.state()
	cfg, serves := now.cfg, now.applied.Offload
	want, err := ruleset(k.conn, cfg, k.features, k.tap)
	if err != nil {
		return err
	}
	degraded := ""
	if cfg.Flowtable.Offload == policy.OffloadSoftware && !k.features.Flowtable {
		degraded = fmt.Sprintf("kernel %s has no flowtable: CONFIG_NF_FLOW_TABLE and CONFIG_NF_FLOW_TABLE_INET are needed, modules nf_flow_table, nf_flow_table_inet and nft_flow_offload", k.features.Release)
	}
	if want.Offload && len(want.Devices) == 0 {
		degraded = "no device matches the configuration, or none forwards (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding)"
	}
	missing, err := k.conn.Apply(want)
	if want.Offload && !serves && cannot(err) {
		degraded = fmt.Sprintf("the kernel refuses the flowtable: %v", err)
		want.Offload, want.Devices, want.Tap = false, nil, nil
		missing, err = k.conn.Apply(want)
	}
	if err != nil {
		return err
	}
	if want.Offload {
		missing = append(missing, absent(cfg)...)
	}
	k.report(want, missing, degraded)
	return nil
}

// absent returns the devices that the configuration names and that are not there.
func absent(cfg policy.Config) []string {
	var names []string
	for _, p := range cfg.Flowtable.Devices {
		if _, err := net.InterfaceByName(p.String()); p.Literal() && err != nil {
			names = append(names, p.String())
		}
	}
	return names
}

// report keeps what is in force and logs what is new about it.
func (k *keeper) report(applied nft.Ruleset, missing []string, degraded string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if degraded != "" && degraded != k.degraded {
		k.log.Warn("no offload: connections are followed, but all take the slow path", "why", degraded)
	}
	if lacks := lacks(k.cfg, k.features); lacks != "" && lacks != k.lacks {
		k.log.Warn("this kernel cannot do all that the configuration asks for", "kernel", k.features.Release, "lacks", lacks)
		k.lacks = lacks
	}
	if applied.String() != k.applied.String() {
		k.log.Info("ruleset in force", "table", "inet flowd", "offload", applied.Offload, "devices", applied.Devices)
	}
	if len(missing) > 0 && !slices.Equal(missing, k.missing) {
		k.log.Warn("devices are not there: they join when they come", "devices", missing)
	}
	k.applied, k.missing, k.degraded = applied, missing, degraded
}

// Run keeps the ruleset until ctx ends.
func (k *keeper) Run(ctx context.Context) error {
	retry := time.NewTimer(again)
	retry.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-retry.C:
		}
		switch err := k.restore(); {
		case err != nil:
			if err.Error() != told {
				k.log.Error("ruleset not as wanted, trying again", "error", err, "every", again)
				told = err.Error()
			}
			retry.Reset(again)
		case k.refused():
			retry.Reset(reconsider)
		default:
			told = ""
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
}

// refused tells whether the kernel could offload, and the flowtable is not there.
func (k *keeper) refused() bool {
	now := k.state()
	return k.features.Flowtable && now.cfg.Flowtable.Offload == policy.OffloadSoftware && !now.applied.Offload
}

// restore looks whether the kernel has what was last applied, says so if not,
// and brings what is wanted now into force.
func (k *keeper) restore() error {
	k.mu.Lock()
	applied, author := k.applied, k.author
	k.mu.Unlock()
	var damage nft.Damage
	err := k.conn.Check(applied)
	if err != nil && !errors.As(err, &damage) {
		return err // not seen: the author is still to be judged
	}
	k.judged(author, damage)
	if damage != "" {
		return k.load()
	}
	want, err := ruleset(k.conn, k.state().cfg, k.features, k.tap)
	if err != nil || want.String() == applied.String() {
		return err
	}
	return k.load()
}

// judged tells of the damage that the author of a foreign generation has done, if
// any, and forgets the author unless another came meanwhile.
func (k *keeper) judged(author nft.Generation, damage nft.Damage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.author == author {
		k.author = nft.Generation{}
	}
	if damage != "" && author.ID != 0 {
		k.repairs++
		k.log.Warn("another program changed flowd's ruleset: restoring it", "program", author.Name, "pid", author.PID, "damage", damage)
	}
}

// changed is called when devices or the configuration may have changed.
func (k *keeper) changed() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// generation is called for each new generation of the kernel's ruleset.
func (k *keeper) generation(g nft.Generation) {
	if g.Own {
		return
	}
	k.mu.Lock()
	k.author = g
	k.mu.Unlock()
	k.changed()
}

// reload puts another configuration into force.
func (k *keeper) reload(cfg policy.Config) {
	k.mu.Lock()
	k.cfg = cfg
	k.mu.Unlock()
	k.changed()
}

// state returns what is in force.
func (k *keeper) state() inForce {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inForce
}

// close leaves the ruleset serving, unless the configuration says otherwise.
func (k *keeper) close() error {
	defer k.conn.Close()
	if k.state().cfg.Flowtable.OnExit == policy.OnExitRemove {
		return k.conn.Remove()
	}
	return nil
}
