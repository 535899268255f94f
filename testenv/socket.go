package testenv

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ioTimeout is how long one step of a connection may take, unless it is told
// otherwise: far longer than any answer in a laboratory, TCP's repetitions
// (1, 3, 7 s) included.
const ioTimeout = 10 * time.Second

// receiveBuffer is the buffer of a UDP socket, in bytes: the default one holds
// some 270 short datagrams, too few for bursts.
const receiveBuffer = 4 << 20

// Totals count what a server has done since it began.
type Totals struct {
	Connections   int64 // TCP connections accepted
	Datagrams     int64 // UDP datagrams received
	Replies       int64 // UDP datagrams sent
	ReceivedBytes int64 // payload
	SentBytes     int64 // payload
}

// counters are Totals in the making.
type counters struct {
	connections, datagrams, replies, received, sent atomic.Int64
}

func (c *counters) totals() Totals {
	return Totals{
		Connections:   c.connections.Load(),
		Datagrams:     c.datagrams.Load(),
		Replies:       c.replies.Load(),
		ReceivedBytes: c.received.Load(),
		SentBytes:     c.sent.Load(),
	}
}

// control returns a function for net.ListenConfig and net.Dialer that sets a
// socket option, as setsockopt(2), on SOL_SOCKET.
func control(option, value int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value)
		}); err != nil {
			return err
		}
		return failed
	}
}

// unmap turns an IPv4 address in IPv6 form into an IPv4 address.
func unmap(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// portRange returns the addresses of count ports from that of first on.
func portRange(first netip.AddrPort, count int) ([]netip.AddrPort, error) {
	if count < 1 || first.Port() != 0 && int(first.Port())+count-1 > 65535 ||
		first.Port() == 0 && count > 1 {
		return nil, fmt.Errorf("%d ports from %v on: not a range of ports", count, first)
	}
	addrs := make([]netip.AddrPort, count)
	for i := range addrs {
		addrs[i] = netip.AddrPortFrom(first.Addr(), first.Port()+uint16(i))
	}
	return addrs, nil
}

// allowFiles raises the limit of open files of the process to count and some,
// if it is lower.
func allowFiles(count int) error {
	need := uint64(count) + 256
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	if limit.Cur >= need {
		return nil
	}
	raised := unix.Rlimit{Cur: need, Max: max(limit.Max, need)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("raise limit of open files from %d to %d: %w", limit.Cur, need, err)
	}
	return nil
}
