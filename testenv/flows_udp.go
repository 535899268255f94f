package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the way in which flows are sent.
const (
	// flowWorkers is how many source ports send at a time: enough to keep
	// two cores busy.
	flowWorkers = 4
	// flowBurst is how many datagrams go out before the answers are read.
	// It keeps all queues on the way short: the kernel's backlog holds 1,000
	// packets a core (net.core.netdev_max_backlog).
	flowBurst = 64
	// flowPatience is how long a burst waits for its answers before those
	// that lack one are sent again, flowTries times in all.
	flowPatience = 250 * time.Millisecond
	flowTries    = 40
)

// UDPFlows makes UDP flows as fast as their replies, or for one-way flows the
// server, can be kept up with. It starts a server of its own, and returns once
// every flow has reached the server and, unless they are one-way, been answered.
// What is lost is sent again.
func UDPFlows(ctx context.Context, config FlowsConfig) (FlowsResult, error) {
	config, err := config.complete()
	if err != nil {
		return FlowsResult{}, err
	}
	seen := newFlowSet(config.Count)
	server, err := serveUDP(config.Server, UDPServerConfig{
		Addr: config.To, Ports: config.Ports, Silent: config.OneWay,
	}, seen)
	if err != nil {
		return FlowsResult{}, err
	}
	defer server.Close()
	result, err := sendFlows(ctx, config, seen)
	result.Flows = int(seen.count.Load())
	return result, err
}

// SendUDPFlows is [UDPFlows] towards a server that runs already, at all the
// ports. One-way flows are sent once, and nothing tells whether they arrived.
func SendUDPFlows(ctx context.Context, config FlowsConfig) (FlowsResult, error) {
	config, err := config.complete()
	if err != nil {
		return FlowsResult{}, err
	}
	result, err := sendFlows(ctx, config, nil)
	if err == nil {
		result.Flows = config.Count
	}
	return result, err
}

// A flowSender sends the flows of a configuration.
type flowSender struct {
	config    FlowsConfig
	seen      *flowSet // what has arrived at the server; nil if nothing tells
	datagrams atomic.Int64
	repeated  atomic.Int64
}

func sendFlows(ctx context.Context, config FlowsConfig, seen *flowSet) (FlowsResult, error) {
	sources := make([]netip.AddrPort, config.sources())
	for i := range sources {
		sources[i] = config.source(i)
	}
	begin := time.Now()
	conns, err := listenUDP(config.Client, sources)
	if err != nil {
		return FlowsResult{}, err
	}
	defer closeUDP(conns)
	sender := &flowSender{config: config, seen: seen}
	err = inParallel(ctx, len(conns), func(i int) error {
		return sender.sendSource(ctx, conns[i], i*config.Ports)
	})
	return FlowsResult{
		Datagrams: int(sender.datagrams.Load()),
		Repeated:  int(sender.repeated.Load()),
		Elapsed:   time.Since(begin),
	}, err
}

// inParallel calls work for 0 to count-1, some at a time, until one of them
// fails or ctx ends.
func inParallel(ctx context.Context, count int, work func(int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(flowWorkers, count) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := work(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// sendSource sends the flows of one source port, numbered from first on.
func (s *flowSender) sendSource(ctx context.Context, conn *net.UDPConn, first int) error {
	last := min(first+s.config.Ports, s.config.Count)
	for at := first; at < last && ctx.Err() == nil; at += flowBurst {
		burst := make([]int, 0, flowBurst)
		for number := at; number < min(at+flowBurst, last); number++ {
			burst = append(burst, number)
		}
		if err := s.sendBurst(ctx, conn, burst); err != nil {
			return err
		}
	}
	return nil
}

// sendBurst sends the flows with the given numbers until all are answered, or
// have arrived.
func (s *flowSender) sendBurst(ctx context.Context, conn *net.UDPConn, numbers []int) error {
	for try := range flowTries {
		for _, number := range numbers {
			if err := s.send(conn, number); err != nil {
				return err
			}
		}
		if try > 0 {
			s.repeated.Add(int64(len(numbers)))
		}
		var err error
		if numbers, err = s.missing(conn, numbers); err != nil || len(numbers) == 0 {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("udp %v->%v: %d flows of a burst of %d without an answer after %d tries",
		conn.LocalAddr(), s.to(numbers[0]), len(numbers), flowBurst, flowTries)
}

// to is the server's address of a flow.
func (s *flowSender) to(number int) netip.AddrPort {
	port := s.config.To.Port() + uint16(number%s.config.Ports)
	return netip.AddrPortFrom(s.config.To.Addr(), port)
}

func (s *flowSender) send(conn *net.UDPConn, number int) error {
	var payload [mostPayload]byte
	putFlow(payload[:], number)
	s.datagrams.Add(1)
	_, err := conn.WriteToUDPAddrPort(payload[:s.config.Size], s.to(number))
	return err
}

// missing waits for what tells that flows have arrived and returns the numbers
// of those that have not.
func (s *flowSender) missing(conn *net.UDPConn, numbers []int) ([]int, error) {
	if !s.config.OneWay {
		return readReplies(conn, numbers)
	}
	if s.seen == nil {
		return nil, nil
	}
	var left []int
	_ = Poll(flowPatience, func() error {
		left = left[:0]
		for _, number := range numbers {
			if !s.seen.has(number) {
				left = append(left, number)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("%d flows have not arrived", len(left))
		}
		return nil
	})
	return left, nil
}

// readReplies reads replies until all numbers have one or none comes any more,
// and returns the numbers without.
func readReplies(conn *net.UDPConn, numbers []int) ([]int, error) {
	waiting := make(map[int]struct{}, len(numbers))
	for _, number := range numbers {
		waiting[number] = struct{}{}
	}
	conn.SetReadDeadline(time.Now().Add(flowPatience))
	var payload [mostPayload]byte
	for len(waiting) > 0 {
		n, _, err := conn.ReadFromUDPAddrPort(payload[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("replies to %v: %w", conn.LocalAddr(), err)
		}
		if number, ok := getFlow(payload[:n]); ok {
			delete(waiting, number)
		}
	}
	left := make([]int, 0, len(waiting))
	for number := range waiting {
		left = append(left, number)
	}
	return left, nil
}
