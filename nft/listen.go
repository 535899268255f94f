package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A subscription is what a listener asks the kernel for.
type subscription struct {
	family int
	groups []uint32
	only   netlink.HeaderType // let through only this type of message; 0: all
	buffer int                // receive buffer in bytes; 0: the system's
}

// A handler is given the messages of one datagram, or told that the kernel dropped
// some. An error ends the listener.
type handler func(messages []netlink.Message, lost bool) error

// listen calls handle for what it receives until ctx ends, and returns its error.
// The first call, which reports a loss, comes when the subscription stands: what
// was before is for the handler to look up, like anything that was lost. It starts
// no goroutine that outlives it.
func (c *Conn) listen(ctx context.Context, s subscription, handle handler) error {
	conn, err := c.subscribe(s)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A deadline in the past ends a Receive that waits.
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-stopped
		}
	}()
	var messages []netlink.Message
	lost := true
	for ctx.Err() == nil {
		if err := handle(messages, lost); err != nil {
			return err
		}
		messages, err = conn.Receive()
		if lost = errors.Is(err, unix.ENOBUFS); lost {
			err = discard(conn)
		}
		if err != nil && ctx.Err() == nil {
			return errno(err)
		}
	}
	return ctx.Err()
}

// discard empties the socket after an overrun. Until it is empty the kernel drops
// all that comes, and does not say so again (netlink_overrun, netlink_rcv_wake):
// only what is looked up afterwards makes up for the loss.
func discard(conn *netlink.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		var rest [1]byte // of each datagram the remainder goes too
		for readErr == nil || readErr == unix.EINTR || readErr == unix.ENOBUFS {
			_, _, readErr = unix.Recvfrom(int(fd), rest[:], unix.MSG_DONTWAIT)
		}
	})
	if readErr == unix.EAGAIN {
		readErr = nil
	}
	return errors.Join(err, readErr)
}

func (c *Conn) subscribe(s subscription) (*netlink.Conn, error) {
	conn, err := c.dial(s.family)
	if err != nil {
		return nil, err
	}
	if s.only != 0 {
		err = filterType(conn, s.only)
	}
	if s.buffer != 0 {
		err = errors.Join(err, conn.SetReadBuffer(s.buffer))
	}
	for _, group := range s.groups {
		err = errors.Join(err, conn.JoinGroup(group))
	}
	if err != nil {
		_ = conn.Close()
		return nil, explain(err)
	}
	return conn, nil
}

// filterType makes the socket drop, before they are queued, all messages but those
// of one type. It looks at the first of a datagram: the type must be one that the
// kernel sends alone.
func filterType(conn *netlink.Conn, kind netlink.HeaderType) error {
	// The type stands at offset 4 in the machine's byte order; the filter loads
	// in network order.
	swapped := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(kind)))
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(swapped), Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("socket filter: %w", err)
	}
	var attachErr error
	err = raw.Control(func(fd uintptr) {
		attachErr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(err, attachErr)
}
