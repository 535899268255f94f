package ct

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a plain netlink socket, read many messages a system call. It is not
// known to the runtime's poller on purpose: an epoll that watches a socket is
// woken, and paid for by the sender in softirq, at every single event.
type socket struct {
	fd   int
	bufs [][]byte
	msgs []mmsghdr
	iovs []unix.Iovec
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// Group bits of the conntrack multicast groups: enum nfnetlink_groups, as
// nl_groups of struct sockaddr_nl wants them.
const (
	groupNew     = 1 << (unix.NFNLGRP_CONNTRACK_NEW - 1)
	groupUpdate  = 1 << (unix.NFNLGRP_CONNTRACK_UPDATE - 1)
	groupDestroy = 1 << (unix.NFNLGRP_CONNTRACK_DESTROY - 1)
)

// openSocket opens a netfilter netlink socket in the network namespace of the
// calling thread, in the given multicast groups, reading up to n messages of up
// to size bytes at a time into a receive buffer of rcvbuf bytes.
func openSocket(groups uint32, n, size, rcvbuf int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: bind to groups %#x: %w", groups, err)
	}
	// The forced variant goes beyond net.core.rmem_max and needs CAP_NET_ADMIN.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rcvbuf); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: receive buffer of %d bytes: %w (CAP_NET_ADMIN is needed)", rcvbuf, err)
	}
	s := &socket{fd: fd, bufs: make([][]byte, n), msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n)}
	for i := range s.bufs {
		s.bufs[i] = make([]byte, size)
		s.iovs[i].Base = &s.bufs[i][0]
		s.iovs[i].SetLen(size)
		s.msgs[i].hdr.Iov = &s.iovs[i]
		s.msgs[i].hdr.SetIovlen(1)
	}
	return s, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// read fills as many buffers as there are messages and returns how many. With
// wait it waits for the first. EAGAIN means that there is none, ENOBUFS that the
// kernel dropped some since the last read.
func (s *socket) read(wait bool) (int, error) {
	flags := unix.MSG_DONTWAIT
	if wait {
		flags = unix.MSG_WAITFORONE
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.msgs[0])), uintptr(len(s.msgs)), uintptr(flags), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

// message returns the i-th datagram of the last read; whole is false when the
// buffer was too small for it.
func (s *socket) message(i int) (data []byte, whole bool) {
	return s.bufs[i][:s.msgs[i].n], s.msgs[i].hdr.Flags&unix.MSG_TRUNC == 0
}

func (s *socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}
