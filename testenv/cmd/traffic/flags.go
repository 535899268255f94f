package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// addressFlag declares a flag for an address with a port.
func addressFlag(flags *flag.FlagSet, name, usage string) *netip.AddrPort {
	addr := new(netip.AddrPort)
	flags.TextVar(addr, name, netip.AddrPort{}, usage)
	return addr
}

// need is an error unless the flag with an address was given.
func need(name string, addr *netip.AddrPort) error {
	if !addr.IsValid() {
		return usagef("--%s ADDRESS:PORT is missing", name)
	}
	return nil
}

// atLeast is an error if a number is too low.
func atLeast(name string, value, least int) error {
	if value < least {
		return usagef("--%s %d: %d or more", name, value, least)
	}
	return nil
}

// wait returns when the time is over or ctx ends; a time of 0 never is.
func wait(ctx context.Context, duration time.Duration) {
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	<-ctx.Done()
}

// A pacer holds back what comes faster than rate a second; a rate of 0 lets all
// through.
type pacer struct {
	begin time.Time
	rate  float64
	count int
}

func newPacer(rate float64) *pacer { return &pacer{begin: time.Now(), rate: rate} }

// next waits for the time of the next event and fails if ctx ends before.
func (p *pacer) next(ctx context.Context) error {
	if p.rate > 0 {
		due := p.begin.Add(time.Duration(float64(p.count) / p.rate * float64(time.Second)))
		if ahead := time.Until(due); ahead > 0 {
			wait(ctx, ahead)
		}
	}
	p.count++
	return context.Cause(ctx)
}

// listening tells scripts that the server may be used.
func listening(log io.Writer, protocol string, addr netip.AddrPort) {
	fmt.Fprintf(log, "listening on %s %v\n", protocol, addr)
}
