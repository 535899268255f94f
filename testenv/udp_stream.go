package testenv

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A UDPStream sends datagrams on one socket, one every interval, until it is
// stopped. Its methods may be called from any goroutine.
type UDPStream struct {
	conn     *UDPConn
	sent     atomic.Int64
	received atomic.Int64
	stopping chan struct{}
	once     sync.Once
	group    sync.WaitGroup
	failed   error // the first error of sending
}

// Stream begins to send a datagram with size bytes of payload, at most
// [MaxDatagram], now and after every interval, and counts what comes back. The
// socket is the stream's until that is stopped.
func (c *UDPConn) Stream(interval time.Duration, size int) *UDPStream {
	s := &UDPStream{conn: c, stopping: make(chan struct{})}
	c.conn.SetReadDeadline(time.Time{})
	s.group.Go(func() { s.send(interval, size) })
	s.group.Go(s.receive)
	return s
}

// Sent returns how many datagrams were sent so far.
func (s *UDPStream) Sent() int { return int(s.sent.Load()) }

// Received returns how many datagrams came back so far: replies of an echo
// server, or of whoever else sends to the flow.
func (s *UDPStream) Received() int { return int(s.received.Load()) }

// Stop ends the stream, not the socket: what comes back later is not counted.
// Its error is the first one of sending, which goes on nevertheless: that
// nobody listens at the server's port, for one.
func (s *UDPStream) Stop() error {
	s.once.Do(func() {
		close(s.stopping)
		s.conn.conn.SetReadDeadline(time.Unix(1, 0))
		s.group.Wait()
	})
	return s.failed
}

func (s *UDPStream) send(interval time.Duration, size int) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := s.conn.Send(1, size); err == nil {
			s.sent.Add(1)
		} else if s.failed == nil {
			s.failed = err
		}
		select {
		case <-ticker.C:
		case <-s.stopping:
			return
		}
	}
}

func (s *UDPStream) receive() {
	buf := make([]byte, MaxDatagram)
	for {
		_, err := s.conn.conn.Read(buf)
		switch {
		case err == nil:
			s.received.Add(1)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		} // else an ICMP error of an earlier datagram
	}
}
