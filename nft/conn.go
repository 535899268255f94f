package nft

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Conn speaks with nf_tables, and about devices, in one network namespace. Its
// methods may be called from any goroutine; those that change the ruleset wait for
// each other.
type Conn struct {
	netns int           // descriptor of the namespace, 0: that of the process
	route *netlink.Conn // NETLINK_ROUTE, for devices

	mu  sync.Mutex    // held from each request to its last reply
	nf  *netlink.Conn // NETLINK_NETFILTER
	own ring          // generations that this Conn has made
}

// Open opens a Conn in the network namespace of the process. It succeeds without
// privileges, which only the use of the Conn needs: CAP_NET_ADMIN.
func Open() (*Conn, error) { return open(0) }

// OpenAt opens a Conn in the network namespace that the file descriptor netns
// refers to. It needs CAP_SYS_ADMIN. The Conn keeps a descriptor of its own.
func OpenAt(netns int) (*Conn, error) {
	own, err := unix.FcntlInt(uintptr(netns), unix.F_DUPFD_CLOEXEC, 1)
	if err != nil {
		return nil, fmt.Errorf("open nftables: network namespace: %w", err)
	}
	return open(own)
}

func open(netns int) (*Conn, error) {
	c := &Conn{netns: netns}
	var err error
	if c.nf, err = c.dial(unix.NETLINK_NETFILTER); err == nil {
		c.route, err = c.dial(unix.NETLINK_ROUTE)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

// dial opens a netlink socket in the Conn's namespace. Errors that the kernel
// returns will name the attribute that they are about. They repeat the message too:
// the netlink library does not understand those that do not (NETLINK_CAP_ACK).
func (c *Conn) dial(family int) (*netlink.Conn, error) {
	conn, err := netlink.Dial(family, &netlink.Config{NetNS: c.netns})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := conn.SetOption(netlink.ExtendedAcknowledge, true); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return conn, nil
}

// Close closes the Conn. What it has applied stays in the kernel.
func (c *Conn) Close() error {
	var errs []error
	for _, conn := range []*netlink.Conn{c.nf, c.route} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	if c.netns != 0 {
		errs = append(errs, unix.Close(c.netns))
	}
	return errors.Join(errs...)
}

// get asks nf_tables for one object, or for many with netlink.Dump in flags.
// A dump that changed while it was taken fails with EINTR.
func (c *Conn) get(msg int, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	var m netlink.Message
	m.Header.Type = nftType(msg)
	m.Header.Flags = netlink.Request | flags
	m.Data = data
	c.mu.Lock()
	replies, err := c.nf.Execute(m)
	c.mu.Unlock()
	if err != nil {
		return nil, explain(err)
	}
	for _, r := range replies {
		if r.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, unix.EINTR
		}
	}
	return replies, nil
}

// explain adds what an errno of the whole subsystem means.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("CAP_NET_ADMIN is needed: %w", errno(err))
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("this kernel has no nf_tables: %w", errno(err))
	}
	return errno(err)
}

// errno strips err of what wraps the kernel's error number, if there is one: the
// caller names the operation in its own words.
func errno(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
