package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// TCPFlows are many TCP connections that are open at the same time.
type TCPFlows struct {
	// Conns are the connections, in the order of their numbers.
	Conns []*TCPConn
	// Elapsed is how long it took to open them all.
	Elapsed time.Duration

	server *TCPServer
}

// OpenTCPFlows opens TCP connections to an echo server of its own and has one
// exchange on each, unless they are one-way. They stay open until they are closed.
func OpenTCPFlows(ctx context.Context, config FlowsConfig) (*TCPFlows, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	// A client's and a server's socket each.
	if err := allowFiles(2*config.Count + config.Ports); err != nil {
		return nil, err
	}
	server, err := ServeTCP(config.Server, TCPServerConfig{
		Addr: config.To, Ports: config.Ports, Mode: Echo,
	})
	if err != nil {
		return nil, err
	}
	flows, err := DialTCPFlows(ctx, config)
	if err != nil {
		server.Close()
		return nil, err
	}
	flows.server = server
	return flows, nil
}

// DialTCPFlows is [OpenTCPFlows] towards a server that runs already, at all the
// ports.
func DialTCPFlows(ctx context.Context, config FlowsConfig) (*TCPFlows, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	if err := allowFiles(config.Count); err != nil {
		return nil, err
	}
	flows := &TCPFlows{Conns: make([]*TCPConn, config.Count)}
	begin := time.Now()
	err = inParallel(ctx, config.Count, func(i int) (err error) {
		flows.Conns[i], err = dialFlow(ctx, config, i)
		return err
	})
	flows.Elapsed = time.Since(begin)
	if err != nil {
		_ = flows.Each((*TCPConn).Reset)
		return nil, err
	}
	return flows, nil
}

// dialFlow opens the connection with a number.
func dialFlow(ctx context.Context, config FlowsConfig, number int) (*TCPConn, error) {
	to := netip.AddrPortFrom(config.To.Addr(), config.To.Port()+uint16(number%config.Ports))
	conn, err := DialTCP(ctx, config.Client, config.source(number/config.Ports), to)
	if err != nil || config.OneWay {
		return conn, err
	}
	return conn, conn.Exchange(1, config.Size)
}

// Each calls a function, as (*TCPConn).Close or (*TCPConn).Reset, with every
// connection, one after another, and returns all errors.
func (f *TCPFlows) Each(do func(*TCPConn) error) error {
	var failed []error
	for number, conn := range f.Conns {
		if conn == nil {
			continue
		}
		if err := do(conn); err != nil {
			failed = append(failed, fmt.Errorf("flow %d: %w", number, err))
		}
	}
	return errors.Join(failed...)
}

// Close closes the server, if it was started with the flows, and what is left
// of the connections, with a RST.
func (f *TCPFlows) Close() error {
	for _, conn := range f.Conns {
		_ = conn.Reset() // fails for those that are closed already
	}
	if f.server == nil {
		return nil
	}
	return f.server.Close()
}
