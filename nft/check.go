package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Damage is what Check found missing or changed, in words.
type Damage string

// Error returns the words, after the table's name.
func (d Damage) Error() string { return "table inet " + tableName + ": " + string(d) }

func damage(format string, args ...any) error { return Damage(fmt.Sprintf(format, args...)) }

// Check compares the kernel's table with r. It returns nil if the table is whole:
// the counters, the timeouts with their values, the sets with their ports, the
// flowtable with its flags and all of r's devices that exist, the chains with hook,
// priority and policy, and in them the rules that this version makes of r, in order,
// with nothing foreign between them or elsewhere in the table. Otherwise it returns a Damage, with the first difference; or what
// kept it from looking, such as EPERM.
//
// Rules are known by a stamp in their user data. Check reads a dozen small
// messages, and the rules of this table only.
func (c *Conn) Check(r Ruleset) error {
	have, err := c.look()
	if err != nil {
		return inTable(err)
	}
	err = r.compare(have)
	var absent absentDevices
	if !errors.As(err, &absent) {
		return err
	}
	gone, err := c.absent(absent.devices)
	if err != nil {
		return inTable(err)
	}
	r.Devices = without(r.Devices, gone)
	return r.compare(have)
}

// absentDevices is the Damage that some devices are not members of what they
// should be. It is none if they do not exist.
type absentDevices struct {
	Damage
	devices []string
}

// Unwrap makes the Damage visible to errors.As.
func (a absentDevices) Unwrap() error { return a.Damage }

// compare returns the first difference between r and what the kernel has.
func (r Ruleset) compare(have *state) error {
	switch {
	case !have.exists:
		return damage("it is gone")
	case have.flags&unix.NFT_TABLE_F_DORMANT != 0:
		return damage("it is dormant")
	}
	if err := r.compareObjects(have); err != nil {
		return err
	}
	if err := r.compareFlowtable(have.flowtable); err != nil {
		return err
	}
	for _, c := range r.chains() {
		if err := c.compare(have.chains[c.name]); err != nil {
			return err
		}
	}
	for _, c := range r.chains() {
		if err := c.compareRules(have.rules[c.name]); err != nil {
			return err
		}
	}
	return r.compareRest(have)
}

// compareObjects finds the first counter, timeout or set that is not as it should be.
func (r Ruleset) compareObjects(have *state) error {
	for _, name := range r.counters() {
		if id := (objectID{objectCounter, name}); !have.has(id) {
			return damage("%s is missing", id)
		}
	}
	for _, t := range r.Timeouts.all() {
		switch o, ok := have.object(t.id()); {
		case !ok:
			return damage("%s is missing", t.id())
		case !t.fits(o):
			return damage("%s has other values", t.id())
		}
	}
	for _, s := range r.sets() {
		present, ok := have.set(s.name)
		if !ok {
			return damage("set %s is missing", s.name)
		}
		if how := s.differs(present); how != "" {
			return damage("set %s %s", s.name, how)
		}
	}
	return nil
}

// compareRest finds what should not be there.
func (r Ruleset) compareRest(have *state) error {
	for _, o := range have.objects {
		if !r.wantsObject(o) {
			return damage("%s should not be there", o)
		}
	}
	for _, s := range have.sets {
		if !r.wantsSet(s) {
			return damage("set %s should not be there", s.name)
		}
	}
	for _, name := range knownChains {
		wanted := slices.ContainsFunc(r.chains(), func(c chain) bool { return c.name == name })
		if have.chains[name] != nil && !wanted {
			return damage("chain %s should not be there", name)
		}
	}
	for _, f := range have.foreign {
		return damage("%s %s is not flowd's", f.what, f.name)
	}
	return nil
}

func (r Ruleset) compareFlowtable(have *flowtableState) error {
	switch {
	case !r.Offload && have != nil:
		return damage("%s should not be there", flowtableObject)
	case !r.Offload:
		return nil
	case have == nil:
		return damage("%s is missing", flowtableObject)
	case have.hook != unix.NF_NETDEV_INGRESS || have.priority != flowtablePriority:
		return damage("%s has priority %d instead of %d", flowtableObject, have.priority, flowtablePriority)
	case have.flags != uint32(flowtableFlags):
		return damage("%s has flags %#x instead of %#x", flowtableObject, have.flags, uint32(flowtableFlags))
	}
	return compareDevices(flowtableObject, have.devices, r.devices())
}

func compareDevices(object string, have, want []string) error {
	if extra := without(have, want); len(extra) > 0 {
		return damage("%s: device %s should not be there", object, extra[0])
	}
	if absent := without(want, have); len(absent) > 0 {
		return absentDevices{Damage(fmt.Sprintf("%s: device %s is missing", object, absent[0])), absent}
	}
	return nil
}

func (c chain) compare(have *chainState) error {
	switch {
	case have == nil:
		return damage("chain %s is missing", c.name)
	case c.regular && have.base:
		return damage("chain %s has a hook", c.name)
	case c.regular:
		return nil
	case !have.base:
		return damage("chain %s has no hook", c.name)
	case have.kind != chainType:
		return damage("chain %s is of type %s instead of %s", c.name, have.kind, chainType)
	case have.hook != c.hook:
		return damage("chain %s has hook %s instead of %s", c.name, hookText(have.hook), hookText(c.hook))
	case have.priority != c.priority:
		return damage("chain %s has priority %d instead of %d", c.name, have.priority, c.priority)
	case have.policy != nfAccept:
		return damage("chain %s has policy drop instead of accept", c.name)
	}
	return compareDevices("chain "+c.name, have.devices, c.devices)
}

// compareRules finds the first rule that is not where it should be.
func (c chain) compareRules(have []stamp) error {
	for i, r := range c.rules {
		want := r.stamp()
		switch {
		case i < len(have) && have[i] == want:
		case i >= len(have) || !slices.Contains(have[i:], want):
			return damage("chain %s: rule %d is missing or changed: %s", c.name, i+1, r)
		default:
			return damage("chain %s: a foreign rule stands before rule %d: %s", c.name, i+1, r)
		}
	}
	if extra := len(have) - len(c.rules); extra > 0 {
		return damage("chain %s: a foreign rule stands after rule %d", c.name, len(c.rules))
	}
	return nil
}
