package flow

import "fmt"

// State is how far a connection has come, for every protocol alike.
type State uint8

const (
	StateNew         State = iota // half-open: no answer seen, or TCP's handshake not complete
	StateEstablished              // packets in both directions
	StateClosing                  // one side has said FIN
	StateClosed                   // FIN both ways, or RST
)

var stateNames = [...]string{"new", "established", "closing", "closed"}

func (s State) String() string { return name(stateNames[:], int(s)) }

// ParseState reads what String writes.
func ParseState(s string) (State, error) {
	i, err := parse("state", stateNames[:], s)
	return State(i), err
}

// Offload is the path that an established flow's packets take.
type Offload uint8

const (
	OffloadNone     Offload = iota // through every hook of the kernel
	OffloadSoftware                // the flowtable at ingress
	OffloadHardware                // the device forwards by itself
)

var offloadNames = [...]string{"none", "software", "hardware"}

func (o Offload) String() string { return name(offloadNames[:], int(o)) }

// ParseOffload reads what String writes.
func ParseOffload(s string) (Offload, error) {
	i, err := parse("offload", offloadNames[:], s)
	return Offload(i), err
}

// Reason tells why a flow ended.
type Reason uint8

const (
	ReasonNone    Reason = iota
	ReasonClosed         // FIN both ways, evicted after the closing time
	ReasonReset          // RST, evicted after the closing time
	ReasonIdle           // no packets for the kernel's or the policy's lifetime
	ReasonCommand        // an operator or a program asked for it
	ReasonKernel         // the kernel or another program deleted it
	ReasonLost           // its end was missed and found by a dump
)

var reasonNames = [...]string{"", "closed", "reset", "idle", "command", "kernel", "lost"}

func (r Reason) String() string { return name(reasonNames[:], int(r)) }

// Flow is what the table knows of one connection. It is a value without
// pointers: the garbage collector never walks the table.
type Flow struct {
	Orig, Reply    Key       // as conntrack keys them; with NAT Reply is not Orig.Reverse()
	Labels         [16]byte  // connection labels, label N is bit N%8 of byte N/8
	Packets, Bytes [2]uint64 // original and reply direction, as of the last event or read
	Start          int64     // ns since the epoch: the kernel's where it keeps timestamps, else when first seen
	Seen           int64     // ns: when the flow last showed a packet
	ID             uint32    // conntrack id
	Status         Status
	Mark           uint32
	Expires        uint32 // s since the epoch at which the kernel lets go; 0: it does not age it (offloaded)
	sync           uint16 // number of the dump or event round that saw it last
	TCP            TCPState
	State          State
	Reason         Reason // why it is being deleted, from the request to its end
	closed         closedBy
	Candidate      bool // closed, and to be evicted when no packet comes any more
	stamped        bool // Start is the kernel's
}

// closedBy remembers which closing signals the tap has seen.
type closedBy uint8

const (
	finOrig closedBy = 1 << iota
	finReply
	rstSeen
	rstTimed // conntrack shows it as established, but with the timeout of a RST
)

// Offload tells the path that the flow's packets take now.
func (f *Flow) Offload() Offload {
	switch {
	case f.Status&StatusHWOffload != 0:
		return OffloadHardware
	case f.Status&StatusOffload != 0:
		return OffloadSoftware
	}
	return OffloadNone
}

// ClosedReason tells how a closed flow came to be closed.
func (f *Flow) ClosedReason() Reason {
	const both = finOrig | finReply
	switch {
	case f.closed&(rstSeen|rstTimed) != 0:
		return ReasonReset
	case f.TCP == TCPClose && f.closed&both != both:
		// After FIN both ways it is what the kernel calls a flow that has aged
		// out of the flowtable.
		return ReasonReset
	}
	return ReasonClosed
}

// deriveState computes the state from what conntrack and the tap told.
// While a flow is offloaded conntrack no longer sees its packets: its TCP state
// stands still, what is there is established, and the tap alone sees the end.
// On the slow path conntrack knows better: it checks sequence numbers.
func (f *Flow) deriveState() State {
	if f.Orig.Proto == TCP {
		if f.Status&StatusOffload != 0 {
			return f.tapState()
		}
		switch {
		case f.TCP == TCPEstablished && f.closed&rstTimed != 0:
			return StateClosed
		case f.TCP != TCPNone:
			return tcpState(f.TCP)
		}
	}
	if f.Status&StatusSeenReply != 0 {
		return StateEstablished
	}
	return StateNew
}

func (f *Flow) tapState() State {
	const both = finOrig | finReply
	switch {
	case f.closed&rstSeen != 0, f.closed&both == both:
		return StateClosed
	case f.closed&both != 0:
		return StateClosing
	}
	return StateEstablished
}

func tcpState(s TCPState) State {
	switch s {
	case TCPEstablished:
		return StateEstablished
	case TCPFinWait, TCPCloseWait, TCPLastAck:
		return StateClosing
	case TCPTimeWait, TCPClose:
		return StateClosed
	}
	return StateNew
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func parse(what string, names []string, s string) (int, error) {
	for i, n := range names {
		if s == n {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s %q: not one of %q", what, s, names)
}
