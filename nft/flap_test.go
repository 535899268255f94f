//go:build kernel

package nft

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// flap adds and deletes a device in the namespace until stop is closed, and ends
// with it deleted. It closes ready after the first round.
func flap(ns int, name string, ready, stop chan struct{}) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns))
	if err != nil {
		return err
	}
	defer h.Close()
	for n := 0; ; n++ {
		device := &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := h.LinkAdd(device); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		if err := h.LinkDel(device); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
		if n == 0 {
			close(ready)
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}
