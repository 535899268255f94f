// Package ct talks to the kernel's connection tracking: it listens to its
// events, dumps its table, reads and deletes entries, and watches FIN and RST
// segments through a netlink log. Everything it learns leaves it as flow.Event.
//
// The wire format is that of linux/netfilter/nfnetlink_conntrack.h; the kernel's
// side is net/netfilter/nf_conntrack_netlink.c.
package ct
