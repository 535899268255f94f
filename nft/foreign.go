package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A catalogue is one kind of object that a table may hold.
type catalogue struct {
	what                    string
	msg                     int
	inTable, named          uint16 // attributes: table and name
	kind, flags             uint16 // attributes of objects and of sets, or 0
	known                   []string
	knownKind, skippedFlags uint32
}

// catalogues are all kinds, in the order in which they can be deleted once there
// are no rules: sets may refer to chains and objects.
var catalogues = []catalogue{
	{
		what: "set", msg: unix.NFT_MSG_GETSET,
		inTable: unix.NFTA_SET_TABLE, named: unix.NFTA_SET_NAME,
		flags: unix.NFTA_SET_FLAGS, skippedFlags: unix.NFT_SET_ANONYMOUS,
	},
	{
		what: "chain", msg: unix.NFT_MSG_GETCHAIN,
		inTable: unix.NFTA_CHAIN_TABLE, named: unix.NFTA_CHAIN_NAME, known: knownChains,
	},
	{
		what: "flowtable", msg: unix.NFT_MSG_GETFLOWTABLE,
		inTable: nftables.NFTA_FLOWTABLE_TABLE, named: nftables.NFTA_FLOWTABLE_NAME,
		known: []string{flowtableName},
	},
	{
		what: "object", msg: unix.NFT_MSG_GETOBJ,
		inTable: unix.NFTA_OBJ_TABLE, named: unix.NFTA_OBJ_NAME,
		kind: unix.NFTA_OBJ_TYPE, knownKind: unix.NFT_OBJECT_COUNTER, known: knownCounters,
	},
}

// lookForeign lists what stands in the table and is not flowd's, which is rarely
// called for: the kernel dumps the chains of all inet tables.
func (c *Conn) lookForeign(s *state) error {
	for _, cat := range catalogues {
		replies, err := c.get(cat.msg, netlink.Dump, inet(func(e *netlink.AttributeEncoder) {
			e.String(cat.inTable, tableName)
		}))
		if err != nil {
			return fmt.Errorf("look at %ss: %w", cat.what, err)
		}
		for _, m := range replies {
			f, ok, err := cat.foreign(m)
			if err != nil {
				return fmt.Errorf("look at %ss: %w", cat.what, err)
			}
			if ok {
				s.foreign = append(s.foreign, f)
			}
		}
	}
	return nil
}

// foreign tells whether m is about an object of flowd's table that flowd does not
// know.
func (cat catalogue) foreign(m netlink.Message) (foreign, bool, error) {
	f := foreign{what: cat.what}
	var table string
	var kind, flags uint32
	err := decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case cat.inTable:
			table = a.String()
		case cat.named:
			f.name = a.String()
		case cat.kind:
			kind = a.Uint32()
		case cat.flags:
			flags = a.Uint32()
		}
	})
	f.object = nftables.ObjType(kind)
	ours := kind == cat.knownKind && slices.Contains(cat.known, f.name)
	return f, table == tableName && !ours && flags&cat.skippedFlags == 0, err
}

// delForeign deletes one foreign object.
func (b *batch) delForeign(f foreign) {
	switch f.what {
	case "set":
		b.delSet(f.name)
	case "chain":
		b.delChain(f.name)
	case "flowtable":
		b.delFlowtable(f.name)
	case "object":
		b.delObject(f.name, f.object)
	}
}
