package testenv

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Sequence returns the sequence numbers of the next bytes that the client sends
// and expects, which make a forged segment valid. Both sides have to be idle.
//
// It asks the socket in repair mode, which needs root, and sends nothing
// (tcp(7) lacks it; net/ipv4/tcp.c, TCP_REPAIR).
func (c *TCPConn) Sequence() (send, receive uint32, err error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { send, receive, failed = sequence(int(fd)) }); err != nil {
		return 0, 0, err
	}
	if failed != nil {
		return 0, 0, fmt.Errorf("sequence of tcp %v->%v: %w", c.Local, c.Remote, failed)
	}
	return send, receive, nil
}

// Queues of a socket in repair mode (include/uapi/linux/tcp.h).
const (
	receiveQueue = 1 // TCP_RECV_QUEUE
	sendQueue    = 2 // TCP_SEND_QUEUE
)

func sequence(fd int) (send, receive uint32, err error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
		return 0, 0, fmt.Errorf("begin repair: %w", err)
	}
	// Without a window probe, so that no packet tells of it.
	defer func() {
		if off := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP); off != nil && err == nil {
			err = fmt.Errorf("end repair: %w", off)
		}
	}()
	numbers := [...]struct {
		queue int
		seq   *uint32
	}{{sendQueue, &send}, {receiveQueue, &receive}}
	for _, number := range numbers {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, number.queue); err != nil {
			return 0, 0, fmt.Errorf("choose queue %d: %w", number.queue, err)
		}
		seq, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			return 0, 0, fmt.Errorf("read sequence of queue %d: %w", number.queue, err)
		}
		*number.seq = uint32(seq)
	}
	return send, receive, nil
}
