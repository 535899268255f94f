package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What google/nftables cannot encode: removing single devices, base chains on
// several devices, and timeouts of which some are left to the kernel: its CtTimeout
// sends values for all states, from a map that all objects share and change. Layouts:
// uapi/linux/netfilter/nf_tables.h.

// hookDevices is NFTA_HOOK_DEVS (enum nft_hook_attributes): a list of
// NFTA_DEVICE_NAME.
const hookDevices = 4

// nftType returns the type of an nf_tables message in a netlink header.
func nftType(msg int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg)
}

// nfgenmsg returns the header of all nfnetlink messages
// (uapi/linux/netfilter/nfnetlink.h).
func nfgenmsg(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// attributes encodes netlink attributes. The numbers of nf_tables are in network
// order. Nothing that is encoded here can fail but a name of over 64 KiB.
func attributes(put func(*netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	put(e)
	data, err := e.Encode()
	if err != nil {
		panic("nft: encode attributes: " + err.Error())
	}
	return data
}

// nest encodes attributes within an attribute.
func nest(e *netlink.AttributeEncoder, kind uint16, put func(*netlink.AttributeEncoder)) {
	e.Nested(kind, func(e *netlink.AttributeEncoder) error {
		put(e)
		return nil
	})
}

// inet is the content of a message about the inet family.
func inet(put func(*netlink.AttributeEncoder)) []byte {
	return append(nfgenmsg(unix.NFPROTO_INET, 0), attributes(put)...)
}

// batchHeader is the content of the messages around a transaction.
func batchHeader(generation uint32) []byte {
	data := nfgenmsg(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	if generation == 0 {
		return data
	}
	return append(data, attributes(func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFNL_BATCH_GENID, generation)
	})...)
}

// hook encodes where a base chain or a flowtable sits. The attributes of the two
// have the same numbers (enum nft_hook_attributes, nft_flowtable_hook_attributes)
// but for the devices.
func hook(e *netlink.AttributeEncoder, num uint32, priority int32, kind uint16, devices []string) {
	e.Uint32(unix.NFTA_HOOK_HOOKNUM, num)
	e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
	if len(devices) == 0 {
		return
	}
	nest(e, kind, func(e *netlink.AttributeEncoder) {
		for _, d := range devices {
			e.String(nftables.NFTA_DEVICE_NAME, d)
		}
	})
}

// delFlowtableDevices takes devices out of the flowtable, which lives on: that is
// the meaning of NFT_MSG_DELFLOWTABLE with a hook (nft_delflowtable_hook).
func (b *batch) delFlowtableDevices(devices []string) {
	for _, some := range portions(devices) {
		b.delSomeDevices(some)
	}
}

func (b *batch) delSomeDevices(devices []string) {
	var m message
	m.Header.Type = nftType(unix.NFT_MSG_DELFLOWTABLE)
	m.Header.Flags = netlink.Request
	m.Data = inet(func(e *netlink.AttributeEncoder) {
		e.String(nftables.NFTA_FLOWTABLE_TABLE, b.table.Name)
		e.String(nftables.NFTA_FLOWTABLE_NAME, flowtableName)
		nest(e, nftables.NFTA_FLOWTABLE_HOOK, func(e *netlink.AttributeEncoder) {
			hook(e, unix.NF_NETDEV_INGRESS, flowtablePriority, nftables.NFTA_FLOWTABLE_DEVS, devices)
		})
	})
	m.object, m.devices = flowtableObject, devices
	b.add(m)
}

// addTimeout adds a ct timeout, which does nothing if there is one of the name. The
// states that it leaves out get what the namespace is set to at that time
// (tcp_timeout_nlattr_to_obj). One without values is refused, by EINVAL
// (nft_ct_timeout_obj_init).
func (b *batch) addTimeout(t timeout) {
	var m message
	m.Header.Type = nftType(unix.NFT_MSG_NEWOBJ)
	m.Header.Flags = netlink.Request | netlink.Create
	m.Data = inet(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_OBJ_TABLE, b.table.Name)
		e.String(unix.NFTA_OBJ_NAME, t.name)
		e.Uint32(unix.NFTA_OBJ_TYPE, uint32(objectTimeout))
		nest(e, unix.NFTA_OBJ_DATA, func(e *netlink.AttributeEncoder) {
			e.Uint16(timeoutL3Proto, unix.NFPROTO_INET)
			e.Uint8(timeoutL4Proto, uint8(t.proto))
			if len(t.values) == 0 {
				return
			}
			nest(e, timeoutData, func(e *netlink.AttributeEncoder) {
				for _, v := range t.values {
					e.Uint32(v.state, v.seconds)
				}
			})
		})
	})
	m.object = t.id().String()
	b.add(m)
}

// addChain adds a chain, or devices to a base chain.
func (b *batch) addChain(c chain) {
	for _, some := range portions(c.devices) {
		b.chainMessage(unix.NFT_MSG_NEWCHAIN, c, some)
	}
}

// delChainDevices takes devices out of a base chain, which lives on (Linux 6.4,
// nft_delchain_hook).
func (b *batch) delChainDevices(c chain, devices []string) {
	for _, some := range portions(devices) {
		b.chainMessage(unix.NFT_MSG_DELCHAIN, c, some)
	}
}

func (b *batch) chainMessage(msg int, c chain, devices []string) {
	var m message
	m.Header.Type = nftType(msg)
	m.Header.Flags = netlink.Request
	if msg == unix.NFT_MSG_NEWCHAIN {
		m.Header.Flags |= netlink.Create
	}
	m.Data = inet(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, b.table.Name)
		e.String(unix.NFTA_CHAIN_NAME, c.name)
		if c.regular {
			return
		}
		nest(e, unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) {
			hook(e, c.hook, c.priority, hookDevices, devices)
		})
		if msg == unix.NFT_MSG_NEWCHAIN {
			e.Uint32(unix.NFTA_CHAIN_POLICY, nfAccept)
			e.String(unix.NFTA_CHAIN_TYPE, chainType)
		}
	})
	m.object, m.devices = "chain "+c.name, devices
	b.add(m)
}

const (
	chainType = "filter"
	nfAccept  = 1 // NF_ACCEPT (uapi/linux/netfilter.h)
)
