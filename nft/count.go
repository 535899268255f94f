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
func (c *Conn) SlowPath() (Count, error) {
	var n Count
	replies, err := c.getCounter(slowPath)
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
