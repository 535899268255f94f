package testenv

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Mode is what a TCP server does with its connections.
type Mode string

// The modes. Each closes its side once the client has closed its own.
const (
	Echo   Mode = "echo"   // sends back what it receives
	Sink   Mode = "sink"   // receives
	Source Mode = "source" // sends without end, receives and forgets
)

// A TCPServerConfig says what a server does.
type TCPServerConfig struct {
	// Addr is where it listens; port 0 means any free one.
	Addr netip.AddrPort
	// Ports is how many ports, from that of Addr on, it listens at; 0 is 1.
	Ports int
	Mode  Mode
	// HoldOpen keeps the server's side of connections open when the client
	// has closed its own, until the server is closed: half-closed connections.
	HoldOpen bool
}

// A TCPServer serves TCP connections, each on its own, until it is closed. Its
// methods may be called from any goroutine.
type TCPServer struct {
	// Addr is the address of its first port.
	Addr netip.AddrPort

	config    TCPServerConfig
	counters  counters
	listeners []*net.TCPListener
	group     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*net.TCPConn]struct{}
	failed error // the first that accept could not go on from
}

// ServeTCP starts a server in a namespace.
func ServeTCP(space *Namespace, config TCPServerConfig) (*TCPServer, error) {
	switch config.Mode {
	case Echo, Sink, Source:
	default:
		return nil, fmt.Errorf("serve tcp %v: no such mode %q", config.Addr, config.Mode)
	}
	addrs, err := portRange(config.Addr, max(config.Ports, 1))
	if err != nil {
		return nil, fmt.Errorf("serve tcp: %w", err)
	}
	s := &TCPServer{config: config, conns: make(map[*net.TCPConn]struct{})}
	if err := space.Do(func() error { return s.listen(addrs) }); err != nil {
		s.Close()
		return nil, err
	}
	s.Addr = unmap(s.listeners[0].Addr().(*net.TCPAddr).AddrPort())
	for _, listener := range s.listeners {
		s.group.Go(func() { s.accept(listener) })
	}
	return s, nil
}

func (s *TCPServer) listen(addrs []netip.AddrPort) error {
	for _, addr := range addrs {
		listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			return fmt.Errorf("serve tcp: %w", err)
		}
		s.listeners = append(s.listeners, listener)
	}
	return nil
}

// Totals returns the counters so far.
func (s *TCPServer) Totals() Totals { return s.counters.totals() }

// Close closes the server and all its connections, and returns when nothing of
// it runs any more. Its error tells why it had stopped to accept before.
func (s *TCPServer) Close() error {
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	for _, listener := range s.listeners {
		listener.Close()
	}
	s.group.Wait()
	return s.failed
}

func (s *TCPServer) accept(listener *net.TCPListener) {
	for {
		conn, err := listener.AcceptTCP()
		if err != nil {
			s.fail(err)
			return
		}
		conn.SetKeepAlive(false) // or no flow would ever be idle
		if !s.add(conn) {
			return
		}
		s.group.Go(func() {
			defer s.remove(conn)
			s.serve(conn)
		})
	}
}

func (s *TCPServer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil && !errors.Is(err, net.ErrClosed) {
		s.failed = err
	}
}

// add enters a connection that Close is to close, and reports whether it did.
func (s *TCPServer) add(conn *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return false
	}
	s.conns[conn] = struct{}{}
	s.counters.connections.Add(1)
	return true
}

// remove closes a connection, or leaves that to Close where it is to be held.
func (s *TCPServer) remove(conn *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.HoldOpen && !s.closed {
		return
	}
	delete(s.conns, conn)
	conn.Close()
}

// serve does what the mode says until the client has closed its side.
func (s *TCPServer) serve(conn *net.TCPConn) {
	var sending sync.WaitGroup
	stop := make(chan struct{})
	if s.config.Mode == Source {
		sending.Go(func() { s.send(conn, stop) })
	}
	buf := make([]byte, 1<<10) // small: there may be tens of thousands
	for {
		n, err := conn.Read(buf)
		s.counters.received.Add(int64(n))
		if err == nil && s.config.Mode == Echo {
			n, err = conn.Write(buf[:n])
			s.counters.sent.Add(int64(n))
		}
		if err != nil {
			break
		}
		if n == len(buf) && n < maxExchange {
			buf = make([]byte, 4*n)
		}
	}
	close(stop)
	conn.SetWriteDeadline(time.Now())
	sending.Wait()
}

func (s *TCPServer) send(conn *net.TCPConn, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, err := conn.Write(zeros[:])
		s.counters.sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}
