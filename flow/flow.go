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
	ReasonNone     Reason = iota
	ReasonClosed          // FIN both ways, evicted after the closing time
	ReasonReset           // RST, evicted after the closing time
	ReasonIdle            // established, and no packets for its lifetime
	ReasonHalfOpen        // never answered, or TCP's handshake not completed in time
	ReasonRecycled        // its room was needed for a new one
	ReasonCommand         // an operator or a program asked for it
	ReasonKernel          // the kernel or another program deleted it
	ReasonLost            // its end was missed and found by a dump
)

var reasonNames = [...]string{"", "closed", "reset", "idle", "half-open", "recycled", "command", "kernel", "lost"}

func (r Reason) String() string { return name(reasonNames[:], int(r)) }

// Handle names a flow of a table for as long as it lives; the next flow in the
// same place has another one.
type Handle struct{ slot, generation uint32 }

// Flow is what the table knows of one connection. It is a value without
// pointers: the garbage collector never walks the table.
type Flow struct {
	Handle         Handle
	Orig, Reply    Key       // as conntrack keys them; with NAT Reply is not Orig.Reverse()
	Labels         [16]byte  // connection labels, label N is bit N%8 of byte N/8
	Packets, Bytes [2]uint64 // original and reply direction, as of the last event or read
	Start          int64     // ns since the epoch: the kernel's where it keeps timestamps, else when first seen
	Seen           int64     // ns since the epoch: when it last showed a packet, or later
	Lifetime       int64     // ns: it ends when it shows no packet for this long
	ID             uint32    // conntrack id
	Status         Status
	Mark           uint32
	Expires        uint32 // s since the epoch at which the kernel lets go; 0: it does not age it (offloaded)
	TCP            TCPState
	State          State
	Reason         Reason // why it is being deleted, from the request to its end
	Own            bool   // it was given a lifetime of its own
	Candidate      bool   // closed, and to be evicted when no packet comes any more
}

// Offload tells the path that the flow's packets take now.
func (f *Flow) Offload() Offload { return f.Status.path() }

func (s Status) path() Offload {
	switch {
	case s&StatusHWOffload != 0:
		return OffloadHardware
	case s&StatusOffload != 0:
		return OffloadSoftware
	}
	return OffloadNone
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
