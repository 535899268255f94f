package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// maxExchange is the longest request, in bytes, that Exchange sends: what fits
// into the buffers of a connection while nobody reads.
const maxExchange = 64 << 10

// A TCPConn is one end of a connection, which goes step by step: the client's,
// and of a [TCPPair] the server's too. It is for one goroutine at a time.
type TCPConn struct {
	// Local and Remote are its ends, as this one sees them.
	Local, Remote netip.AddrPort
	// Timeout is how long one step may take: 10 s unless it is changed.
	Timeout time.Duration

	conn *net.TCPConn
}

// zeros are what is sent where the content does not matter.
var zeros [maxExchange]byte

// DialTCP connects from a namespace to an address, for at most 10 s and until ctx
// ends. The connection comes from the address and port of from, where they are
// not zero.
func DialTCP(ctx context.Context, space *Namespace, from, to netip.AddrPort) (*TCPConn, error) {
	dialer := net.Dialer{Timeout: ioTimeout, KeepAlive: -1}
	if from != (netip.AddrPort{}) {
		// A port whose last connection is in TIME_WAIT may be used again.
		dialer.Control = control(unix.SO_REUSEADDR, 1)
		dialer.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	var conn net.Conn
	err := space.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return nil, err // it tells operation and addresses
	}
	return newTCPConn(conn.(*net.TCPConn)), nil
}

func newTCPConn(conn *net.TCPConn) *TCPConn {
	return &TCPConn{
		Local:   unmap(conn.LocalAddr().(*net.TCPAddr).AddrPort()),
		Remote:  unmap(conn.RemoteAddr().(*net.TCPAddr).AddrPort()),
		Timeout: ioTimeout,
		conn:    conn,
	}
}

// Write sends n bytes.
func (c *TCPConn) Write(n int) error {
	for n > 0 {
		c.conn.SetWriteDeadline(time.Now().Add(c.Timeout))
		written, err := c.conn.Write(zeros[:min(n, len(zeros))])
		if err != nil {
			return err
		}
		n -= written
	}
	return nil
}

// Read receives exactly n bytes; io.ErrUnexpectedEOF is another side that
// was closed before.
func (c *TCPConn) Read(n int) error {
	buf := make([]byte, min(n, maxExchange))
	for n > 0 {
		c.conn.SetReadDeadline(time.Now().Add(c.Timeout))
		read, err := c.conn.Read(buf[:min(n, len(buf))])
		n -= read
		if err == io.EOF {
			return fmt.Errorf("read tcp %v->%v: %d bytes missing: %w", c.Local, c.Remote, n, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Exchange sends count requests of size bytes (at most 65,536) to an echo
// server, each after the reply to the one before, and compares the replies.
func (c *TCPConn) Exchange(count, size int) error {
	if size < 1 || size > maxExchange {
		return fmt.Errorf("exchange of %d bytes: 1 to %d are possible", size, maxExchange)
	}
	request, reply := make([]byte, size), make([]byte, size)
	for i := range count {
		for at := range request {
			request[at] = byte(i + at)
		}
		c.conn.SetDeadline(time.Now().Add(c.Timeout))
		if _, err := c.conn.Write(request); err != nil {
			return fmt.Errorf("exchange %d of %d: %w", i+1, count, err)
		}
		if _, err := io.ReadFull(c.conn, reply); err != nil {
			return fmt.Errorf("exchange %d of %d: %v->%v: reply: %w", i+1, count, c.Remote, c.Local, err)
		}
		if !bytes.Equal(request, reply) {
			return fmt.Errorf("exchange %d of %d: %v->%v: the reply differs from the request", i+1, count, c.Remote, c.Local)
		}
	}
	return nil
}

// CloseWrite closes this side with a FIN: the connection is half closed until
// the other is closed too, which may go on sending.
func (c *TCPConn) CloseWrite() error { return c.conn.CloseWrite() }

// Close closes the connection with a FIN from both sides: it closes this one,
// reads until the other is closed, and fails if that takes longer than Timeout.
func (c *TCPConn) Close() error {
	defer c.conn.Close()
	if err := c.conn.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	buf := make([]byte, maxExchange)
	for {
		c.conn.SetReadDeadline(time.Now().Add(c.Timeout))
		if _, err := c.conn.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("close tcp %v->%v: the other side: %w", c.Local, c.Remote, err)
		}
	}
}

// Reset closes the connection with a RST (SO_LINGER of 0 s).
func (c *TCPConn) Reset() error {
	if err := c.conn.SetLinger(0); err != nil {
		return err
	}
	return c.conn.Close()
}

// Abandon closes this end's socket without caring for the other side. The
// kernel sends a FIN, or a RST if there is something unread.
func (c *TCPConn) Abandon() error { return c.conn.Close() }
