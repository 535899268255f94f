package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// applyAttempts bounds how often Apply looks and sends again because somebody
// changed the ruleset, or a device went, in between.
const applyAttempts = 10

// Apply makes the kernel's table inet flowd what r says, in one transaction, and
// may be repeated. It changes in place: the table, base chains and the flowtable
// stay, with their counters and flows; only rules are replaced, and devices come
// and go one by one.
//
// Deleted and made again, in the same transaction, is only what cannot be changed:
// sets of ports, and a chain of flowd's name whose type, hook or priority differ, a
// flowtable whose hook, priority or hardware flag differ: left by a version of flowd
// that wanted them otherwise, or by somebody else. Whatever else stands in the table
// is deleted, such as timeouts and quotas whose numbers r does not name (Timeouts,
// Ruleset.PerSource).
//
// Where a device leaves, or the tap or the flowtable goes, the kernel unregisters a
// hook, and with it drops what waits in the namespace's NFQUEUEs.
//
// Linux before 6.16 has no members that do not exist: devices that are missing are
// left out, and returned. Later kernels take the name and bind the device when it
// comes.
//
// Errors say which object the kernel refused and wrap its error number: EPERM
// without CAP_NET_ADMIN, ENOENT if the kernel has no flowtable, EOPNOTSUPP, EEXIST
// for a device that it will not take, ERESTART if the ruleset never stood still.
func (c *Conn) Apply(r Ruleset) (missing []string, err error) {
	r.Devices = r.devices()
	for range applyAttempts {
		var have *state
		if have, err = c.look(); err != nil {
			break
		}
		err = c.commit(r.transaction(have), have.generation)
		switch {
		case err == nil:
			return missing, nil
		case errors.Is(err, unix.ERESTART):
			continue
		case !errors.Is(err, unix.ENOENT):
			return nil, inTable(err)
		}
		// A device is missing; or was, or left the flowtable by itself before it
		// was taken out; or the kernel has no flowtable, and never will.
		gone, err2 := c.absent(r.Devices)
		if err2 != nil {
			return nil, inTable(errors.Join(err, err2))
		}
		missing = append(missing, gone...)
		r.Devices = slices.DeleteFunc(r.Devices, func(d string) bool { return slices.Contains(gone, d) })
	}
	return nil, inTable(err)
}

func inTable(err error) error { return fmt.Errorf("table inet %s: %w", tableName, err) }

// Remove deletes the table inet flowd, and nothing else. It is no error if there
// is none.
func (c *Conn) Remove() error {
	var err error
	for range applyAttempts {
		var generation uint32
		if generation, err = c.generation(); err != nil {
			break
		}
		b := newBatch(table)
		b.encode("table", func(lib *nftables.Conn) { lib.DelTable(table) })
		err = c.commit(b, generation)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.ERESTART) {
			break
		}
	}
	return inTable(err)
}

// transaction returns the messages that turn what the kernel has into r.
//
// Rules go first, since they hold on to all else, then what must not stay, then
// everything wanted is added, which is nothing where it is there already. Nobody
// sees the steps: the kernel switches to the new generation at once.
func (r Ruleset) transaction(have *state) *batch {
	b := newBatch(table)
	b.addTable()
	if have.exists {
		b.flushTable()
		b.delStale(r, have)
	}
	for _, name := range r.counters() {
		b.addCounter(name)
	}
	for _, t := range r.Timeouts.all() {
		b.addTimeout(t)
	}
	for _, s := range r.sets() {
		if _, ok := have.set(s.name); !ok {
			b.addSet(s)
		}
	}
	if r.Offload {
		b.wantFlowtable(r.devices(), have.flowtable)
	}
	for _, c := range r.chains() {
		b.wantChain(c, have.chains[c.name])
	}
	for _, c := range r.chains() {
		for i, rule := range c.rules {
			b.addRule(c.name, i+1, rule)
		}
	}
	return b
}

// delStale deletes what r does not want, or cannot make of what is there, and
// strikes it from have. Sets go first: they may refer to chains and objects.
func (b *batch) delStale(r Ruleset, have *state) {
	have.sets = slices.DeleteFunc(have.sets, func(s setState) bool {
		stale := !r.wantsSet(s)
		if stale {
			b.delSet(s.name)
		}
		return stale
	})
	for _, f := range have.foreign {
		b.delForeign(f)
	}
	have.foreign = nil
	for _, name := range knownChains {
		if ch := have.chains[name]; ch != nil && !slices.ContainsFunc(r.chains(), ch.fits(name)) {
			b.delChain(name)
			delete(have.chains, name)
		}
	}
	if have.flowtable != nil && !(r.Offload && have.flowtable.fits()) {
		b.delFlowtable(flowtableName)
		have.flowtable = nil
	}
	have.objects = slices.DeleteFunc(have.objects, func(o objectState) bool {
		stale := !r.wantsObject(o)
		if stale {
			b.delObject(o.objectID)
		}
		return stale
	})
}

// wantsSet tells whether the set that the kernel has can stay.
func (r Ruleset) wantsSet(have setState) bool {
	return slices.ContainsFunc(r.sets(), func(s set) bool {
		return s.name == have.name && s.differs(have) == ""
	})
}

// wantsObject tells whether the object that the kernel has can stay. Sent again it
// keeps its value, and those of a timeout: of objects the kernel updates quotas, and
// later ones synproxies (nft_object_ops, update).
func (r Ruleset) wantsObject(have objectState) bool {
	switch have.kind {
	case objectCounter:
		return slices.Contains(r.counters(), have.name)
	case objectTimeout:
		return slices.ContainsFunc(r.Timeouts.all(), func(t timeout) bool {
			return t.name == have.name && t.fits(have)
		})
	}
	return false
}

// wantFlowtable adds the flowtable; have is the one that stays, or nil.
func (b *batch) wantFlowtable(devices []string, have *flowtableState) {
	b.addFlowtable(devices)
	if have != nil {
		if leaving := without(have.devices, devices); len(leaving) > 0 {
			b.delFlowtableDevices(leaving)
		}
	}
}

// wantChain adds c without rules; have is the chain that stays, or nil.
func (b *batch) wantChain(c chain, have *chainState) {
	b.addChain(c)
	if have != nil {
		if leaving := without(have.devices, c.devices); len(leaving) > 0 {
			b.delChainDevices(c, leaving)
		}
	}
}

// fits returns a test for whether a wanted chain can be made of the present one of
// the given name in place. The policy and the devices can change, all else cannot
// (nf_tables_updchain).
func (have *chainState) fits(name string) func(chain) bool {
	return func(c chain) bool {
		if c.name != name || c.regular {
			return c.name == name && !have.base
		}
		return have.base && have.kind == chainType && have.hook == c.hook && have.priority == c.priority
	}
}

// fits tells whether the flowtable can stay. Only its devices and the counter flag
// can change (nft_flowtable_update).
func (have *flowtableState) fits() bool {
	return have.hook == unix.NF_NETDEV_INGRESS && have.priority == flowtablePriority &&
		have.flags&uint32(nftables.FlowtableFlagsHWOffload) == 0
}

// without returns what is in a and not in b.
func without(a, b []string) []string {
	var rest []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
