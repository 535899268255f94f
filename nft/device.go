package nft

import (
	"context"
	"fmt"
	"path"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Devices returns the names, sorted, of the devices in the namespace that match
// one of the patterns (path.Match) and none of exclude. Without patterns it takes
// every device that forwards IPv4 or IPv6 (net.ipv4.conf.NAME.forwarding,
// net.ipv6.conf.NAME.forwarding). Loopback is never among them.
//
// Instead of a bridge its ports are taken, whatever they are called: packets enter
// by them, and the kernel offloads a flow only if the port is the flowtable's
// member. Of a VLAN device and the one below it both must be members; the latter
// forwards too, as a rule, but has to be in the patterns where there are any.
func (c *Conn) Devices(patterns, exclude []string) ([]string, error) {
	if err := checkPatterns(patterns, exclude); err != nil {
		return nil, err
	}
	links, err := c.links()
	if err != nil {
		return nil, err
	}
	wanted := func(l link) bool { return matches(patterns, l.name) }
	if len(patterns) == 0 {
		on, err := c.forwarding()
		if err != nil {
			return nil, err
		}
		wanted = func(l link) bool { return on[l.index] }
	}
	return members(links, wanted, exclude), nil
}

// members returns the names of the wanted links, with bridges replaced by their
// ports.
func members(links []link, wanted func(link) bool, exclude []string) []string {
	isBridge, wantBridge := map[int32]bool{}, map[int32]bool{}
	for _, l := range links {
		if l.kind == "bridge" {
			isBridge[l.index] = true
			wantBridge[l.index] = wanted(l) && !matches(exclude, l.name)
		}
	}
	var names []string
	for _, l := range links {
		if l.loop || isBridge[l.index] || matches(exclude, l.name) {
			continue
		}
		if wanted(l) || wantBridge[l.master] {
			names = append(names, l.name)
		}
	}
	slices.Sort(names)
	return names
}

func checkPatterns(lists ...[]string) error {
	for _, pattern := range slices.Concat(lists...) {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("device pattern %q: %w", pattern, err)
		}
	}
	return nil
}

// matches tells whether name matches one of the patterns, which are well-formed.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// absent returns which of the named devices do not exist.
func (c *Conn) absent(names []string) ([]string, error) {
	links, err := c.links()
	if err != nil {
		return nil, err
	}
	var present []string
	for _, l := range links {
		present = append(present, l.name)
	}
	return without(names, present), nil
}

// WatchDevices calls changed whenever Devices may have another answer: a device
// came, went, was renamed, joined or left a bridge, or began or ceased to forward;
// or notifications were lost. The first call comes at once: from then on nothing
// is missed. The calls are made one after the other, by the goroutine that called
// WatchDevices.
//
// It returns ctx's error when ctx ends, or what keeps it from reading.
func (c *Conn) WatchDevices(ctx context.Context, changed func()) error {
	err := c.listen(ctx, subscription{
		family: unix.NETLINK_ROUTE,
		groups: []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF},
	}, c.deviceHandler(changed))
	return fmt.Errorf("watch devices: %w", err)
}

// deviceHandler returns a handler that calls changed for messages that matter.
// Most link messages do not: they tell of carriers, addresses, queues.
func (c *Conn) deviceHandler(changed func()) handler {
	known := map[int32]link{}
	return func(messages []netlink.Message, lost bool) error {
		matter := lost
		if lost {
			links, err := c.links()
			if err != nil {
				return err
			}
			clear(known)
			for _, l := range links {
				known[l.index] = l
			}
		}
		for _, m := range messages {
			ok, err := noteDevice(known, m)
			if err != nil {
				return err
			}
			matter = matter || ok
		}
		if matter {
			changed()
		}
		return nil
	}
}

// noteDevice keeps known up to date with one message and tells whether it matters.
func noteDevice(known map[int32]link, m netlink.Message) (bool, error) {
	switch m.Header.Type {
	case unix.RTM_NEWNETCONF:
		_, forwarding, err := parseNetconf(m)
		return forwarding >= 0, err
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, family, err := parseLink(m)
		if err != nil || family == unix.AF_BRIDGE {
			return false, err
		}
		if m.Header.Type == unix.RTM_DELLINK {
			delete(known, l.index)
			return true, nil
		}
		old, ok := known[l.index]
		known[l.index] = l
		return !ok || old.name != l.name || old.master != l.master, nil
	}
	return false, nil
}
