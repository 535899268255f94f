package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A state is what the kernel has of flowd's table, all of one generation.
type state struct {
	generation uint32
	exists     bool
	flags      uint32                 // NFT_TABLE_F_*
	use        uint32                 // chains, flowtables, named sets and objects that it holds
	chains     map[string]*chainState // those whose names flowd uses
	flowtable  *flowtableState
	objects    []objectState      // all
	sets       []setState         // all that have names
	rules      map[string][]stamp // by chain; the zero stamp is a foreign rule's
	foreign    []foreign          // chains and flowtables
}

type chainState struct {
	base     bool
	kind     string
	hook     uint32
	priority int32
	policy   uint32
	devices  []string
}

type flowtableState struct {
	hook     uint32
	priority int32
	flags    uint32
	devices  []string
}

// A foreign chain or flowtable stands in flowd's table without being part of any
// Ruleset of this version.
type foreign struct {
	name string
	what string // "chain" or "flowtable"
}

// knownChains are those that some Ruleset of this version uses.
var knownChains = []string{forwardName, arrivalName, tapName}

// lookAttempts bounds how often a look starts over because somebody changes the
// ruleset meanwhile. A look takes well below a millisecond: ten changes in a row,
// each within one look, are not somebody's normal work.
const lookAttempts = 10

// look reads the table. The generation is the same before and after, so that what
// is between belongs together.
func (c *Conn) look() (*state, error) {
	for range lookAttempts {
		before, err := c.generation()
		if err != nil {
			return nil, err
		}
		s, err := c.lookOnce()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		after, err := c.generation()
		if err != nil {
			return nil, err
		}
		if before == after {
			s.generation = after
			return s, nil
		}
	}
	return nil, fmt.Errorf("the ruleset kept changing during %d looks: %w", lookAttempts, unix.EINTR)
}

// generation returns the number of the present generation of the ruleset. What
// the kernel says beside it, a process, is the one that asks (nf_tables_getgen).
func (c *Conn) generation() (uint32, error) {
	replies, err := c.get(unix.NFT_MSG_GETGEN, 0, nfgenmsg(unix.AF_UNSPEC, 0))
	if err != nil {
		return 0, fmt.Errorf("generation: %w", err)
	}
	var id uint32
	err = decode(replies, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_GEN_ID {
			id = a.Uint32()
		}
	})
	return id, err
}

func (c *Conn) lookOnce() (*state, error) {
	s := &state{
		chains: map[string]*chainState{},
		rules:  map[string][]stamp{},
	}
	if err := c.lookTable(s); err != nil || !s.exists {
		return s, err
	}
	if err := c.lookObjects(s); err != nil {
		return nil, err
	}
	if err := c.lookSets(s); err != nil {
		return nil, err
	}
	if err := c.lookFlowtable(s); err != nil {
		return nil, err
	}
	for _, name := range knownChains {
		if err := c.lookChain(s, name); err != nil {
			return nil, err
		}
	}
	if err := c.lookRules(s); err != nil {
		return nil, err
	}
	// Anonymous sets are not in the table's count (nf_tables_commit, case
	// NFT_MSG_NEWSET), so it tells without a dump of all chains of the family
	// whether anything else is there.
	known := len(s.objects) + len(s.sets) + len(s.chains)
	if s.flowtable != nil {
		known++
	}
	if int(s.use) == known {
		return s, nil
	}
	return s, c.lookForeign(s)
}

// decode calls put for each attribute of each message, behind its nfnetlink
// header.
func decode(messages []netlink.Message, put func(*netlink.AttributeDecoder)) error {
	for _, m := range messages {
		if len(m.Data) < len(nfgenmsg(0, 0)) {
			return fmt.Errorf("message of type %#x: %w", uint16(m.Header.Type), unix.EBADMSG)
		}
		a, err := netlink.NewAttributeDecoder(m.Data[len(nfgenmsg(0, 0)):])
		if err != nil {
			return err
		}
		a.ByteOrder = binary.BigEndian
		for a.Next() {
			put(a)
		}
		if err := a.Err(); err != nil {
			return err
		}
	}
	return nil
}

// getNamed asks for one object of the table, and returns nothing if it is not
// there.
func (c *Conn) getNamed(what string, msg int, put func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	replies, err := c.get(msg, 0, inet(put))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", what, err)
	}
	return replies, nil
}

func (c *Conn) lookTable(s *state) error {
	replies, err := c.getNamed("it", unix.NFT_MSG_GETTABLE, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, tableName)
	})
	s.exists = len(replies) > 0
	if err != nil {
		return err
	}
	return decode(replies, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_TABLE_FLAGS:
			s.flags = a.Uint32()
		case unix.NFTA_TABLE_USE:
			s.use = a.Uint32()
		}
	})
}

func (c *Conn) lookFlowtable(s *state) error {
	replies, err := c.getNamed(flowtableObject, unix.NFT_MSG_GETFLOWTABLE, func(e *netlink.AttributeEncoder) {
		e.String(nftables.NFTA_FLOWTABLE_TABLE, tableName)
		e.String(nftables.NFTA_FLOWTABLE_NAME, flowtableName)
	})
	if err != nil || len(replies) == 0 {
		return err
	}
	f := &flowtableState{}
	s.flowtable = f
	return decode(replies, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case nftables.NFTA_FLOWTABLE_FLAGS:
			f.flags = a.Uint32()
		case nftables.NFTA_FLOWTABLE_HOOK:
			f.hook, f.priority, f.devices = decodeHook(a, nftables.NFTA_FLOWTABLE_DEVS)
		}
	})
}

func (c *Conn) lookChain(s *state, name string) error {
	replies, err := c.getNamed("chain "+name, unix.NFT_MSG_GETCHAIN, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, tableName)
		e.String(unix.NFTA_CHAIN_NAME, name)
	})
	if err != nil || len(replies) == 0 {
		return err
	}
	ch := &chainState{}
	s.chains[name] = ch
	return decode(replies, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_CHAIN_HOOK:
			ch.base = true
			ch.hook, ch.priority, ch.devices = decodeHook(a, hookDevices)
		case unix.NFTA_CHAIN_POLICY:
			ch.policy = a.Uint32()
		case unix.NFTA_CHAIN_TYPE:
			ch.kind = a.String()
		}
	})
}

// decodeHook decodes where a base chain or a flowtable sits, the reverse of hook.
func decodeHook(a *netlink.AttributeDecoder, kind uint16) (num uint32, priority int32, devices []string) {
	a.Nested(func(a *netlink.AttributeDecoder) error {
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_HOOK_HOOKNUM:
				num = a.Uint32()
			case unix.NFTA_HOOK_PRIORITY:
				priority = int32(a.Uint32())
			case kind:
				a.Nested(func(a *netlink.AttributeDecoder) error {
					for a.Next() {
						devices = append(devices, a.String())
					}
					return nil
				})
			}
		}
		return nil
	})
	return num, priority, devices
}

// lookRules reads the stamps of all rules, in order.
func (c *Conn) lookRules(s *state) error {
	replies, err := c.get(unix.NFT_MSG_GETRULE, netlink.Dump, inet(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, tableName)
	}))
	if err != nil {
		return fmt.Errorf("look at rules: %w", err)
	}
	for _, m := range replies {
		var chain string
		var st stamp
		err := decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_RULE_CHAIN:
				chain = a.String()
			case unix.NFTA_RULE_USERDATA:
				st = stampIn(a.Bytes())
			}
		})
		if err != nil {
			return fmt.Errorf("look at rules: %w", err)
		}
		s.rules[chain] = append(s.rules[chain], st)
	}
	return nil
}

// stampIn returns the stamp in a rule's user data, or the zero stamp. The data of
// a foreign rule may be anything.
func stampIn(data []byte) (s stamp) {
	for len(data) >= 2 {
		end := 2 + int(data[1])
		if end > len(data) {
			break
		}
		if value := data[2:end]; data[0] == stampType && len(value) == len(s) {
			return stamp(value)
		}
		data = data[end:]
	}
	return s
}
