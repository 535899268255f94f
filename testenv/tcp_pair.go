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
)

// A TCPPair is a connection of which both ends go step by step: either may
// close its side first, with [TCPConn.CloseWrite], and the other go on sending
// as long as it likes. It is for one goroutine at a time.
type TCPPair struct {
	// Client has connected, Server has accepted. Behind NAT the server sees
	// another client.
	Client, Server *TCPConn
}

// OpenTCPPair connects a client to a server of its own at an address; its port
// may be 0 for any free one. The client's address is that of from, where that is
// not zero.
func OpenTCPPair(ctx context.Context, client, server *Namespace, from, to netip.AddrPort) (*TCPPair, error) {
	listener, err := listenTCP(server, to)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	return connectTCPPair(ctx, client, listener, from)
}

func listenTCP(space *Namespace, addr netip.AddrPort) (listener *net.TCPListener, err error) {
	err = space.Do(func() error {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve tcp: %w", err)
	}
	return listener, nil
}

// connectTCPPair connects to a listener and accepts what comes.
func connectTCPPair(ctx context.Context, client *Namespace, listener *net.TCPListener, from netip.AddrPort) (*TCPPair, error) {
	near, err := DialTCP(ctx, client, from, unmap(listener.Addr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		return nil, err
	}
	listener.SetDeadline(time.Now().Add(ioTimeout))
	far, err := listener.AcceptTCP()
	if err != nil {
		_ = near.Reset()
		return nil, err
	}
	far.SetKeepAlive(false) // or no flow would ever be idle
	return &TCPPair{Client: near, Server: newTCPConn(far)}, nil
}

// Exchange has the client send count requests of size bytes (at most 65,536),
// each of which the server sends back, and compares at both ends.
func (p *TCPPair) Exchange(count, size int) error {
	if size < 1 || size > maxExchange {
		return fmt.Errorf("exchange of %d bytes: 1 to %d are possible", size, maxExchange)
	}
	data, buf := make([]byte, size), make([]byte, size)
	for i := range count {
		for at := range data {
			data[at] = byte(i + at)
		}
		err := pass(p.Client, p.Server, data, buf)
		if err == nil {
			err = pass(p.Server, p.Client, data, buf)
		}
		if err != nil {
			return fmt.Errorf("exchange %d of %d: %w", i+1, count, err)
		}
	}
	return nil
}

// pass sends data from one end to the other, which reads it into buf.
func pass(from, to *TCPConn, data, buf []byte) error {
	from.conn.SetWriteDeadline(time.Now().Add(from.Timeout))
	if _, err := from.conn.Write(data); err != nil {
		return err
	}
	to.conn.SetReadDeadline(time.Now().Add(to.Timeout))
	if _, err := io.ReadFull(to.conn, buf); err != nil {
		return fmt.Errorf("read tcp %v->%v: %w", to.Local, to.Remote, err)
	}
	if !bytes.Equal(data, buf) {
		return fmt.Errorf("read tcp %v->%v: other bytes than were sent", to.Local, to.Remote)
	}
	return nil
}

// Reset closes both ends, if they are not closed, the client's with a RST.
func (p *TCPPair) Reset() {
	_ = p.Client.Reset()
	_ = p.Server.Reset()
}

// ReadEnd waits until the other side has closed its own, with nothing sent
// before that was not read.
func (c *TCPConn) ReadEnd() error {
	c.conn.SetReadDeadline(time.Now().Add(c.Timeout))
	var buf [1]byte
	n, err := c.conn.Read(buf[:])
	switch {
	case n > 0:
		return fmt.Errorf("read tcp %v->%v: data, not the end", c.Local, c.Remote)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}
