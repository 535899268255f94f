package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"flowd/api"
	"flowd/api/flowdv1"
	"flowd/flow"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// filterFlags are the words of conntrack(8) that select flows.
type filterFlags struct {
	proto, src, dst, sport, dport, zone, id, state, offload, mark string
}

// selection is what the verbs on flows share: which flows, and how to print them.
type selection struct {
	filter filterFlags
	out    format
}

func (s *selection) register(cmd *cobra.Command) {
	s.filter.register(cmd.Flags())
	s.out.register(cmd)
}

// registerTuple is register for a verb on one flow that has its own meaning for
// words such as --mark.
func (s *selection) registerTuple(cmd *cobra.Command) {
	s.filter.registerTuple(cmd.Flags())
	s.out.register(cmd)
}

// do calls f with a client and the filter, unless the command line is wrong.
func (s *selection) do(c *connection, cmd *cobra.Command, f func(context.Context, *api.Client, *flowdv1.Filter) error) error {
	m, err := s.check()
	if err != nil {
		return err
	}
	return c.do(cmd, func(ctx context.Context, client *api.Client) error { return f(ctx, client, m) })
}

// check returns the filter as the daemon takes it, unless the command line is wrong.
func (s *selection) check() (*flowdv1.Filter, error) {
	if err := s.out.check(); err != nil {
		return nil, err
	}
	return s.filter.message()
}

func (f *filterFlags) register(flags *pflag.FlagSet) {
	f.registerTuple(flags)
	flags.StringVar(&f.state, "state", "", "new, established, closing or closed")
	flags.StringVar(&f.offload, "offload", "", "none, software or hardware")
	flags.StringVarP(&f.mark, "mark", "m", "", "connection mark, MARK or MARK/MASK")
}

// registerTuple takes the words that name one flow.
func (f *filterFlags) registerTuple(flags *pflag.FlagSet) {
	flags.StringVarP(&f.proto, "protonum", "p", "", "protocol, by name or number: tcp, udp, 47")
	flags.StringVarP(&f.src, "src", "s", "", "source address or prefix, of the original direction")
	flags.StringVarP(&f.dst, "dst", "d", "", "destination address or prefix, of the original direction")
	flags.StringVar(&f.sport, "sport", "", "source port")
	flags.StringVar(&f.dport, "dport", "", "destination port")
	flags.StringVarP(&f.zone, "zone", "w", "", "conntrack zone")
	flags.StringVar(&f.id, "id", "", "conntrack id, a 32-bit hash: among many flows not unique")
	// The long names of older and newer conntrack(8) both work.
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "orig-src":
			name = "src"
		case "orig-dst":
			name = "dst"
		case "proto":
			name = "protonum"
		case "orig-port-src":
			name = "sport"
		case "orig-port-dst":
			name = "dport"
		}
		return pflag.NormalizedName(name)
	})
}

// message returns the filter as the daemon takes it. All mistakes are told at once.
func (f *filterFlags) message() (*flowdv1.Filter, error) {
	m := &flowdv1.Filter{Src: f.src, Dst: f.dst}
	var errs []error
	if f.proto != "" {
		p, err := flow.ParseProto(f.proto)
		errs = append(errs, err)
		n := uint32(p)
		m.Protocol = &n
	}
	for _, a := range []struct{ name, value string }{{"src", f.src}, {"dst", f.dst}} {
		errs = append(errs, checkAddress(a.name, a.value))
	}
	for _, n := range []struct {
		name, value string
		bits        int
		to          **uint32
	}{
		{"sport", f.sport, 16, &m.Sport},
		{"dport", f.dport, 16, &m.Dport},
		{"zone", f.zone, 16, &m.Zone},
		{"id", f.id, 32, &m.Id},
	} {
		errs = append(errs, number(n.name, n.value, n.bits, n.to))
	}
	if f.state != "" {
		s, err := flow.ParseState(f.state)
		errs = append(errs, err)
		m.State = flowdv1.State(s).Enum()
	}
	if f.offload != "" {
		o, err := flow.ParseOffload(f.offload)
		errs = append(errs, err)
		m.Offload = flowdv1.Offload(o).Enum()
	}
	mark, mask, masked := strings.Cut(f.mark, "/")
	errs = append(errs, number("mark", mark, 32, &m.Mark))
	if masked {
		var bits *uint32
		if mark == "" || mask == "" {
			errs = append(errs, fmt.Errorf("--mark %s: not MARK or MARK/MASK", f.mark))
		}
		errs = append(errs, number("mark's mask", mask, 32, &bits))
		if bits != nil {
			m.MarkMask = *bits
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	return m, nil
}

func checkAddress(name, s string) error {
	if s == "" {
		return nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	return fmt.Errorf("--%s %s: neither an address nor a prefix such as 192.0.2.0/24", name, s)
}

// number reads decimal, or hexadecimal after 0x. Nothing leaves to as it is.
func number(name, s string, bits int, to **uint32) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 0, bits)
	if err != nil {
		return fmt.Errorf("--%s %s: not a number from 0 to %d", name, s, uint64(1)<<bits-1)
	}
	v := uint32(n)
	*to = &v
	return nil
}
