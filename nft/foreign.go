package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A catalogue is one kind of what a table may hold.
type catalogue struct {
	what           string
	msg            int
	inTable, named uint16 // attributes: table and name
	known          []string
}

// catalogues are the kinds of which a look does not read all there is.
var catalogues = []catalogue{
	{
		what: "chain", msg: unix.NFT_MSG_GETCHAIN,
		inTable: unix.NFTA_CHAIN_TABLE, named: unix.NFTA_CHAIN_NAME, known: knownChains,
	},
	{
		what: "flowtable", msg: unix.NFT_MSG_GETFLOWTABLE,
		inTable: nftables.NFTA_FLOWTABLE_TABLE, named: nftables.NFTA_FLOWTABLE_NAME,
		known: []string{flowtableName},
	},
}

// lookForeign lists the chains and flowtables that are not flowd's, which is rarely
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

// foreign tells whether m is about something in flowd's table that flowd does not
// know.
func (cat catalogue) foreign(m netlink.Message) (foreign, bool, error) {
	f := foreign{what: cat.what}
	var table string
	err := decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case cat.inTable:
			table = a.String()
		case cat.named:
			f.name = a.String()
		}
	})
	return f, table == tableName && !slices.Contains(cat.known, f.name), err
}

// delForeign deletes one foreign chain or flowtable.
func (b *batch) delForeign(f foreign) {
	switch f.what {
	case "chain":
		b.delChain(f.name)
	case "flowtable":
		b.delFlowtable(f.name)
	}
}
