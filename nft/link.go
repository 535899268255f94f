package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A link is a network device, as far as it matters here.
type link struct {
	index  int32
	name   string
	master int32 // index of the bridge, bond or VRF that it belongs to, or 0
	kind   string
	loop   bool // it is a loopback device
}

// skipStats is RTEXT_FILTER_SKIP_STATS (uapi/linux/rtnetlink.h): leave out the
// statistics, which are half of a reply.
const skipStats = 1 << 3

// links lists the devices of the namespace.
func (c *Conn) links() ([]link, error) {
	info := make([]byte, unix.SizeofIfInfomsg)
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.IFLA_EXT_MASK, skipStats)
	mask, err := e.Encode()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	replies, err := c.routeDump(unix.RTM_GETLINK, append(info, mask...))
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var links []link
	for _, m := range replies {
		l, _, err := parseLink(m)
		if err != nil {
			return nil, fmt.Errorf("list devices: %w", err)
		}
		links = append(links, l)
	}
	return links, nil
}

// routeDump asks NETLINK_ROUTE for a list, again if that changed while it was
// taken.
func (c *Conn) routeDump(kind netlink.HeaderType, data []byte) ([]netlink.Message, error) {
	var m netlink.Message
	m.Header.Type = kind
	m.Header.Flags = netlink.Request | netlink.Dump
	m.Data = data
	for range lookAttempts {
		replies, err := c.route.Execute(m)
		if err != nil {
			return nil, errno(err)
		}
		if !slices.ContainsFunc(replies, func(r netlink.Message) bool {
			return r.Header.Flags&netlink.DumpInterrupted != 0
		}) {
			return replies, nil
		}
	}
	return nil, fmt.Errorf("the list kept changing: %w", unix.EINTR)
}

// parseLink decodes RTM_NEWLINK and RTM_DELLINK and returns the message's family
// too: for AF_BRIDGE it is about a bridge port, not about the device.
func parseLink(m netlink.Message) (l link, family byte, err error) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return l, 0, fmt.Errorf("message of type %d: %w", m.Header.Type, unix.EBADMSG)
	}
	family = m.Data[0]
	l.index = int32(binary.NativeEndian.Uint32(m.Data[4:]))
	l.loop = binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_LOOPBACK != 0
	a, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, family, err
	}
	for a.Next() {
		switch a.Type() {
		case unix.IFLA_IFNAME:
			l.name = a.String()
		case unix.IFLA_MASTER:
			l.master = a.Int32()
		case unix.IFLA_LINKINFO:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if a.Type() == unix.IFLA_INFO_KIND {
						l.kind = a.String()
					}
				}
				return nil
			})
		}
	}
	return l, family, a.Err()
}

// Attributes of RTM_NEWNETCONF (uapi/linux/netconf.h).
const (
	netconfIfindex    = 1 // NETCONFA_IFINDEX
	netconfForwarding = 2 // NETCONFA_FORWARDING
)

// netconfHeader is struct netconfmsg, a family, with its padding.
const netconfHeader = 4

// forwarding returns the indexes of the devices that forward IPv4 or IPv6:
// net.ipv4.conf.*.forwarding and its like. The socket asks its own namespace,
// which a look below /proc/sys would not.
func (c *Conn) forwarding() (map[int32]bool, error) {
	on := map[int32]bool{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		replies, err := c.routeDump(unix.RTM_GETNETCONF, []byte{family, 0, 0, 0})
		if errors.Is(err, unix.EOPNOTSUPP) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list forwarding: %w", err)
		}
		for _, m := range replies {
			index, value, err := parseNetconf(m)
			if err != nil {
				return nil, fmt.Errorf("list forwarding: %w", err)
			}
			if value == 1 {
				on[index] = true
			}
		}
	}
	return on, nil
}

// parseNetconf returns a device and whether it forwards; -1 if the message does
// not say. Indexes below 0 are the namespace's settings for all, and for new ones.
func parseNetconf(m netlink.Message) (index, forwarding int32, err error) {
	if len(m.Data) < netconfHeader {
		return 0, -1, fmt.Errorf("message of type %d: %w", m.Header.Type, unix.EBADMSG)
	}
	a, err := netlink.NewAttributeDecoder(m.Data[netconfHeader:])
	if err != nil {
		return 0, -1, err
	}
	forwarding = -1
	for a.Next() {
		switch a.Type() {
		case netconfIfindex:
			index = a.Int32()
		case netconfForwarding:
			forwarding = a.Int32()
		}
	}
	return index, forwarding, a.Err()
}
