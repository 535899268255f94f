package nft

import (
	"context"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Generation is one state of the namespace's whole ruleset. Each transaction,
// anybody's, makes a new one.
type Generation struct {
	ID uint32 // NFTA_GEN_ID; it grows by one and is never 0

	// PID and Name are of the thread that made it, as the first PID namespace
	// numbers it (task_pid_nr, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME: at most 15
	// bytes). A program with one thread has its process there. They are 0 and
	// empty if the author is not known.
	PID  uint32
	Name string

	// Own tells that this Conn made it, by Apply or Remove.
	Own bool
}

// Watch calls changed for each new generation of the ruleset. The first call comes
// at once, with the present generation and no author: from then on nothing is
// missed. Where the kernel had to drop notifications, the present generation is
// reported without an author, for all that were lost. The calls are made one after
// the other, by the goroutine that called Watch.
//
// It returns ctx's error when ctx ends, or what keeps it from reading, such as
// EPERM without CAP_NET_ADMIN.
func (c *Conn) Watch(ctx context.Context, changed func(Generation)) error {
	return c.watch(ctx, 0, changed)
}

// watch is Watch with a receive buffer of the given size, or the system's.
func (c *Conn) watch(ctx context.Context, buffer int, changed func(Generation)) error {
	err := c.listen(ctx, subscription{
		family: unix.NETLINK_NETFILTER,
		groups: []uint32{unix.NFNLGRP_NFTABLES},
		// The group tells of every rule and element of each transaction. The
		// generation comes in a datagram of its own (nf_tables_gen_notify).
		only:   nftType(unix.NFT_MSG_NEWGEN),
		buffer: buffer,
	}, func(messages []netlink.Message, lost bool) error {
		if lost {
			id, err := c.generation()
			if err != nil {
				return err
			}
			changed(Generation{ID: id})
			return nil
		}
		for _, m := range messages {
			g, err := c.parseGeneration(m)
			if err != nil {
				return err
			}
			changed(g)
		}
		return nil
	})
	return fmt.Errorf("watch the ruleset: %w", err)
}

func (c *Conn) parseGeneration(m netlink.Message) (g Generation, err error) {
	err = decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_GEN_ID:
			g.ID = a.Uint32()
		case unix.NFTA_GEN_PROC_PID:
			g.PID = a.Uint32()
		case unix.NFTA_GEN_PROC_NAME:
			g.Name = a.String()
		}
	})
	// The lock waits for a transaction of this Conn whose notification was
	// faster than its acknowledgement.
	c.mu.Lock()
	defer c.mu.Unlock()
	g.Own = c.own.has(g.ID)
	return g, err
}
