package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"flowd/flow"
)

func TestLifetime(t *testing.T) {
	l := Ageing{
		Idle: 180 * time.Second, Unreplied: 30 * time.Second,
		TCP: TCPAgeing{
			Established: 7440 * time.Second, Handshake: 20 * time.Second,
			HalfClosed: 900 * time.Second, Closing: 1500 * time.Millisecond,
		},
		Protocols: []ProtocolAgeing{
			{flow.UDP, 53, 5 * time.Second},
			{flow.UDP, 500, 600 * time.Second},
			{flow.TCP, 22, 10 * time.Hour},
			{flow.TCP, 80, 10 * time.Second},
			{flow.SCTP, 0, 25 * time.Second},
			{flow.SCTP, 2905, 40 * time.Second},
			{flow.ICMP, 0, 10 * time.Second},
		},
	}.Lifetimes()
	const (
		opening     = flow.StateNew
		established = flow.StateEstablished
		closing     = flow.StateClosing
		closed      = flow.StateClosed
	)
	for _, c := range []struct {
		proto flow.Proto
		port  uint16
		state flow.State
		want  time.Duration
	}{
		{flow.UDP, 1000, established, 180 * time.Second},
		{flow.UDP, 0, established, 180 * time.Second},
		{flow.UDP, 53, established, 5 * time.Second},
		{flow.UDP, 500, established, 600 * time.Second},
		{flow.UDPLite, 53, established, 180 * time.Second},
		{flow.GRE, 53, established, 180 * time.Second},
		{flow.UDP, 1000, opening, 30 * time.Second},
		{flow.UDP, 53, opening, 5 * time.Second},
		{flow.UDP, 500, opening, 30 * time.Second},
		{flow.SCTP, 1000, established, 25 * time.Second},
		{flow.SCTP, 1000, opening, 25 * time.Second},
		{flow.SCTP, 2905, established, 40 * time.Second},
		{flow.SCTP, 2905, opening, 30 * time.Second},
		{flow.ICMP, 8 << 8, established, 10 * time.Second},
		{flow.ICMP, 8 << 8, opening, 10 * time.Second},
		{255, 0, established, 180 * time.Second},
		{flow.TCP, 443, established, 7440 * time.Second},
		{flow.TCP, 53, established, 7440 * time.Second},
		{flow.TCP, 22, established, 10 * time.Hour},
		{flow.TCP, 80, established, 10 * time.Second},
		{flow.TCP, 443, opening, 20 * time.Second},
		{flow.TCP, 22, opening, 20 * time.Second},
		{flow.TCP, 80, opening, 20 * time.Second},
		{flow.TCP, 22, closing, 900 * time.Second},
		{flow.TCP, 22, closed, 1500 * time.Millisecond},
		{flow.SCTP, 2905, closing, 900 * time.Second},
		{flow.UDP, 53, closed, 1500 * time.Millisecond},
	} {
		if got := l.Lifetime(c.proto, c.port, c.state); got != int64(c.want) {
			t.Errorf("%v port %d %v: %v, want %v", c.proto, c.port, c.state, time.Duration(got), c.want)
		}
	}
}

// TestProtocolTCP tells that an entry for all of TCP stands before ageing.tcp.established.
func TestProtocolTCP(t *testing.T) {
	a := Default().Ageing
	a.Protocols = []ProtocolAgeing{{Protocol: flow.TCP, Idle: 180 * time.Second}}
	l := a.Lifetimes()
	if got := l.Lifetime(flow.TCP, 443, flow.StateEstablished); got != 180e9 {
		t.Errorf("established: %v", time.Duration(got))
	}
	if got := l.Lifetime(flow.TCP, 443, flow.StateNew); got != 30e9 {
		t.Errorf("handshake: %v", time.Duration(got))
	}
}

// lifetime is Lifetimes.Lifetime word for word as flowd.toml has it.
func lifetime(a *Ageing, p flow.Proto, port uint16, s flow.State) time.Duration {
	named := func(port uint16) (time.Duration, bool) {
		for _, e := range a.Protocols {
			if e.Protocol == p && e.Port == port {
				return e.Idle, true
			}
		}
		return 0, false
	}
	established := a.Idle
	if p == flow.TCP {
		established = a.TCP.Established
	}
	if d, ok := named(0); ok {
		established = d
	}
	if d, ok := named(port); ok && p.HasPorts() {
		established = d
	}
	switch s {
	case flow.StateClosed:
		return a.TCP.Closing
	case flow.StateClosing:
		return a.TCP.HalfClosed
	case flow.StateNew:
		if p == flow.TCP {
			return a.TCP.Handshake
		}
		return min(a.Unreplied, established)
	}
	return established
}

func TestLifetimeIsAsWritten(t *testing.T) {
	protocol := rapid.SampledFrom([]flow.Proto{flow.ICMP, flow.TCP, flow.UDP, flow.SCTP, flow.GRE, 255})
	port := rapid.SampledFrom([]uint16{0, 1, 53, 65535})
	span := rapid.Map(rapid.Int64Range(1, 240*3600), func(s int64) time.Duration { return time.Duration(s) * time.Second })
	rapid.Check(t, func(t *rapid.T) {
		a := Ageing{
			Idle: span.Draw(t, "idle"), Unreplied: span.Draw(t, "unreplied"),
			TCP: TCPAgeing{span.Draw(t, "established"), span.Draw(t, "handshake"), span.Draw(t, "half closed"), span.Draw(t, "closing")},
		}
		a.Protocols = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) ProtocolAgeing {
			e := ProtocolAgeing{Protocol: protocol.Draw(t, "protocol"), Idle: span.Draw(t, "entry's idle")}
			if e.Protocol.HasPorts() {
				e.Port = port.Draw(t, "port")
			}
			return e
		}), 0, 8, func(e ProtocolAgeing) string { return e.name() }).Draw(t, "entries")
		p, port, s := protocol.Draw(t, "of"), port.Draw(t, "to port"), flow.State(rapid.Uint8Max(3).Draw(t, "state"))
		got := time.Duration(a.Lifetimes().Lifetime(p, port, s))
		if want := lifetime(&a, p, port, s); got != want {
			t.Errorf("%v port %d %v: %v, want %v", p, port, s, got, want)
		}
	})
}

func TestLifetimeDoesNotAllocate(t *testing.T) {
	l := manyPorts().Lifetimes()
	if n := testing.AllocsPerRun(100, func() { l.Lifetime(flow.UDP, 53, flow.StateEstablished) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func manyPorts() Ageing {
	a := Default().Ageing
	for port := range uint16(1000) {
		a.Protocols = append(a.Protocols, ProtocolAgeing{flow.UDP, port + 1, time.Minute})
	}
	return a
}

func BenchmarkLifetime(b *testing.B) {
	for name, a := range map[string]Ageing{"entries=0": Default().Ageing, "entries=1000": manyPorts()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			l := a.Lifetimes()
			var sum int64
			for i := range b.N {
				sum += l.Lifetime(flow.UDP, uint16(i), flow.StateEstablished)
			}
			if sum == 0 {
				b.Error("no lifetime")
			}
		})
	}
}
