package testenv

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxDatagram is the longest payload of a UDP datagram over IPv4, in bytes.
const MaxDatagram = 65507

// A UDPServerConfig says what a server does.
type UDPServerConfig struct {
	// Addr is where it receives; port 0 means any free one.
	Addr netip.AddrPort
	// Ports is how many ports, from that of Addr on, it receives at; 0 is 1.
	Ports int
	// Silent servers do not reply; others send each datagram back.
	Silent bool
}

// A UDPServer receives datagrams until it is closed. Its methods may be called
// from any goroutine.
type UDPServer struct {
	// Addr is the address of its first port.
	Addr netip.AddrPort

	config   UDPServerConfig
	counters counters
	conns    []*net.UDPConn
	group    sync.WaitGroup
	seen     *flowSet // of Flows, otherwise nil
}

// ServeUDP starts a server in a namespace.
func ServeUDP(space *Namespace, config UDPServerConfig) (*UDPServer, error) {
	return serveUDP(space, config, nil)
}

func serveUDP(space *Namespace, config UDPServerConfig, seen *flowSet) (*UDPServer, error) {
	addrs, err := portRange(config.Addr, max(config.Ports, 1))
	if err != nil {
		return nil, fmt.Errorf("serve udp: %w", err)
	}
	s := &UDPServer{config: config, seen: seen}
	if s.conns, err = listenUDP(space, addrs); err != nil {
		return nil, fmt.Errorf("serve udp: %w", err)
	}
	s.Addr = unmap(s.conns[0].LocalAddr().(*net.UDPAddr).AddrPort())
	for _, conn := range s.conns {
		s.group.Go(func() { s.serve(conn) })
	}
	return s, nil
}

// listenUDP opens a socket for each address, all of them or none.
func listenUDP(space *Namespace, addrs []netip.AddrPort) ([]*net.UDPConn, error) {
	if err := allowFiles(len(addrs)); err != nil {
		return nil, err
	}
	var conns []*net.UDPConn
	err := space.Do(func() error {
		for _, addr := range addrs {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
			if err != nil {
				return err
			}
			conns = append(conns, conn)
			if err := widenBuffer(conn); err != nil {
				return fmt.Errorf("receive buffer of %v: %w", addr, err)
			}
		}
		return nil
	})
	if err != nil {
		closeUDP(conns)
		return nil, err
	}
	return conns, nil
}

func closeUDP(conns []*net.UDPConn) {
	for _, conn := range conns {
		conn.Close()
	}
}

// widenBuffer gives a socket the receive buffer that bursts need: beyond
// net.core.rmem_max with root's rights, up to it without.
func widenBuffer(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	force := control(unix.SO_RCVBUFFORCE, receiveBuffer)
	if err := force("", "", raw); !errors.Is(err, unix.EPERM) {
		return err
	}
	return conn.SetReadBuffer(receiveBuffer)
}

// Totals returns the counters so far.
func (s *UDPServer) Totals() Totals { return s.counters.totals() }

// Close closes the server and returns when nothing of it runs any more.
func (s *UDPServer) Close() error {
	closeUDP(s.conns)
	s.group.Wait()
	return nil
}

func (s *UDPServer) serve(conn *net.UDPConn) {
	buf := make([]byte, MaxDatagram)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier reply
		}
		s.counters.datagrams.Add(1)
		s.counters.received.Add(int64(n))
		s.seen.note(buf[:n])
		if s.config.Silent {
			continue
		}
		if n, err = conn.WriteToUDPAddrPort(buf[:n], from); err == nil {
			s.counters.replies.Add(1)
			s.counters.sent.Add(int64(n))
		}
	}
}

// A UDPConn is a client's socket for one flow. It is for one goroutine at a time.
type UDPConn struct {
	// Local and Remote are its ends, as the client sees them.
	Local, Remote netip.AddrPort
	// Timeout is how long one reply may take: 10 s unless it is changed.
	Timeout time.Duration

	conn *net.UDPConn
	buf  []byte
}

// DialUDP opens a socket in a namespace for datagrams to an address. They come
// from the address and port of from, where they are not zero.
func DialUDP(space *Namespace, from, to netip.AddrPort) (*UDPConn, error) {
	var local *net.UDPAddr
	if from != (netip.AddrPort{}) {
		local = net.UDPAddrFromAddrPort(from)
	}
	var conn *net.UDPConn
	err := space.Do(func() (err error) {
		conn, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		return nil, err // it tells operation and addresses
	}
	return &UDPConn{
		Local:   unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort()),
		Remote:  unmap(conn.RemoteAddr().(*net.UDPAddr).AddrPort()),
		Timeout: ioTimeout,
		conn:    conn,
		buf:     make([]byte, MaxDatagram),
	}, nil
}

// Send sends count datagrams with size bytes of payload, at most [MaxDatagram],
// and expects no reply.
func (c *UDPConn) Send(count, size int) error {
	for i := range count {
		if _, err := c.conn.Write(zeros[:size]); err != nil {
			return fmt.Errorf("datagram %d of %d: %w", i+1, count, err)
		}
	}
	return nil
}

// Receive receives count datagrams.
func (c *UDPConn) Receive(count int) error {
	for i := range count {
		c.conn.SetReadDeadline(time.Now().Add(c.Timeout))
		if _, err := c.conn.Read(c.buf); errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("reply %d of %d: udp %v->%v: none within %v: %w",
				i+1, count, c.Remote, c.Local, c.Timeout, err)
		} else if err != nil {
			return fmt.Errorf("reply %d of %d: %w", i+1, count, err)
		}
	}
	return nil
}

// Exchange sends count requests with size bytes of payload, each after the
// reply to the one before. A lost one is an error: none is repeated.
func (c *UDPConn) Exchange(count, size int) error {
	for i := range count {
		err := c.Send(1, size)
		if err == nil {
			err = c.Receive(1)
		}
		if err != nil {
			return fmt.Errorf("exchange %d of %d: %w", i+1, count, err)
		}
	}
	return nil
}

// Close closes the socket; the flow only ends by growing old.
func (c *UDPConn) Close() error { return c.conn.Close() }
