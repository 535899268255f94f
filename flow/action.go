package flow

// Verb is what the kernel is asked to do with one conntrack entry.
type Verb uint8

const (
	// Read asks for the entry as it is now; what comes back is an Answer.
	Read Verb = iota + 1
	// Extend sets the time in which the kernel lets the entry expire, unless a
	// packet comes, to Timeout; with Reopen it has conntrack call a TCP connection
	// half-closed again that it has called closed.
	Extend
	// Remove deletes the entry; that it worked is learnt from its Destroy event.
	Remove
)

// Action is one request to the kernel about one connection. The kernel finds
// the entry by tuple and zone and touches it only when the id agrees, so that an
// action never hits the next connection on the same tuple.
type Action struct {
	Verb    Verb
	Orig    Key
	ID      uint32
	Timeout uint32 // s, of Extend
	Reopen  bool   // of Extend
}
