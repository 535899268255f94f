package nft

import (
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Count is the value of a counter.
type Count struct{ Packets, Bytes uint64 }

// SlowPath returns how many packets, and bytes of layer 3, came by the forward
// chain since the table was made: all forwarded packets that did not take the
// fast path. It is zero if the table is gone.
func (c *Conn) SlowPath() (Count, error) { return c.count(slowPath) }

// Quota returns how many packets, and bytes of layer 3, were dropped because their
// source held as many connections as Ruleset.PerSource allows: first packets, so
// attempts, since there was a quota. It is zero if there is none.
func (c *Conn) Quota() (Count, error) { return c.count(overQuota) }

// count returns the value of a named counter, or zero if there is none.
func (c *Conn) count(name string) (Count, error) {
	var n Count
	replies, err := c.getNamed("counter "+name, unix.NFT_MSG_GETOBJ, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_OBJ_TABLE, tableName)
		e.String(unix.NFTA_OBJ_NAME, name)
		e.Uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	})
	if err != nil {
		return n, inTable(err)
	}
	err = decode(replies, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_OBJ_DATA {
			return
		}
		a.Nested(func(counter *netlink.AttributeDecoder) error {
			for counter.Next() {
				switch counter.Type() {
				case unix.NFTA_COUNTER_PACKETS:
					n.Packets = counter.Uint64()
				case unix.NFTA_COUNTER_BYTES:
					n.Bytes = counter.Uint64()
				}
			}
			return nil
		})
	})
	return n, err
}
