package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// An Ending is how a connection is closed.
type Ending string

// The endings. All of them leave the five-tuple fit for the next connection:
//   - The client may connect from a port that it has bound while its own last
//     connection from there is in TIME_WAIT, if that had TCP timestamps
//     (net/ipv4/tcp_ipv4.c, tcp_twsk_unique: no twp).
//   - The server takes a SYN for a connection in TIME_WAIT, if its timestamp or
//     its sequence number is newer (net/ipv4/tcp_minisocks.c,
//     tcp_timewait_state_process; RFC 6191).
//   - After a RST nobody remembers anything.
//   - Conntrack drops an entry in TIME_WAIT or CLOSE for the SYN and begins anew
//     (net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet).
const (
	ClientFirst Ending = "client" // the client's FIN, then the server's
	ServerFirst Ending = "server" // the server's FIN, then the client's
	ClientReset Ending = "reset"  // a RST of the client
)

// A ReuseConfig says which connections ReuseTCP makes.
type ReuseConfig struct {
	Client, Server *Namespace
	// From and To are the five-tuple of all connections. Both have a port.
	From, To netip.AddrPort
	// Count is how many there are.
	Count int
	// Exchanges is how often each sends a request and gets it back (0 is 25),
	// of Size bytes (0 is 64).
	Exchanges, Size int
	// Ending is how each is closed; empty is ClientFirst.
	Ending Ending
	// Timeout is how long one step of a connection may take; 0 is 10 s.
	Timeout time.Duration
}

func (c ReuseConfig) complete() (ReuseConfig, error) {
	if c.Exchanges == 0 {
		c.Exchanges = 25
	}
	if c.Size == 0 {
		c.Size = 64
	}
	if c.Ending == "" {
		c.Ending = ClientFirst
	}
	if c.Timeout == 0 {
		c.Timeout = ioTimeout
	}
	switch c.Ending {
	case ClientFirst, ServerFirst, ClientReset:
	default:
		return c, fmt.Errorf("reuse tcp: no such ending %q", c.Ending)
	}
	if c.From.Port() == 0 || c.To.Port() == 0 {
		return c, fmt.Errorf("reuse tcp %v->%v: both need a port", c.From, c.To)
	}
	return c, nil
}

// ReuseTCP opens connections, one after another and as fast as it goes, all of
// one five-tuple; each exchanges data, compares them, and is closed. It returns
// how many went well, how many did not, and what was wrong with the first of these.
func ReuseTCP(ctx context.Context, config ReuseConfig) (ok, failed int, first error) {
	config, err := config.complete()
	if err != nil {
		return 0, config.Count, err
	}
	listener, err := listenTCP(config.Server, config.To)
	if err != nil {
		return 0, config.Count, err
	}
	defer func() { listener.Close() }()
	for number := range config.Count {
		if ctx.Err() != nil {
			return ok, failed, errors.Join(first, context.Cause(ctx))
		}
		if err := config.once(ctx, listener); err == nil {
			ok++
			continue
		} else if failed++; first == nil {
			first = fmt.Errorf("connection %d: %w", number+1, err)
		}
		// What is left of this one is not to be accepted as the next.
		listener.Close()
		if listener, err = listenTCP(config.Server, config.To); err != nil {
			return ok, config.Count - ok, errors.Join(first, err)
		}
	}
	return ok, failed, first
}

// once makes one connection.
func (c ReuseConfig) once(ctx context.Context, listener *net.TCPListener) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var pair *TCPPair
	var failed error
	// The last ACK of the connection before may be on its way yet.
	if err := Poll(c.Timeout, func() error {
		pair, failed = connectTCPPair(ctx, c.Client, listener, c.From)
		if errors.Is(failed, unix.EADDRNOTAVAIL) || errors.Is(failed, unix.EADDRINUSE) {
			return failed
		}
		return nil
	}); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	defer pair.Reset()
	pair.Client.Timeout, pair.Server.Timeout = c.Timeout, c.Timeout
	if err := pair.Exchange(c.Exchanges, c.Size); err != nil {
		return err
	}
	return pair.end(c.Ending)
}

// end closes a connection and waits until both ends have seen it.
func (p *TCPPair) end(ending Ending) error {
	if ending == ClientReset {
		if err := p.Client.Reset(); err != nil {
			return err
		}
		if err := p.Server.ReadEnd(); !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("server: %v, want a reset", err)
		}
		return nil
	}
	first, second := p.Client, p.Server
	if ending == ServerFirst {
		first, second = second, first
	}
	for _, step := range []func() error{
		first.CloseWrite, second.ReadEnd, second.CloseWrite, first.ReadEnd, second.Abandon, first.Abandon,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("close, %s: %w", ending, err)
		}
	}
	return nil
}
