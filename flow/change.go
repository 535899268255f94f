package flow

// ChangeKind names what happened to a flow.
type ChangeKind uint8

const (
	Created     ChangeKind = iota + 1 // first seen
	Established                       // packets in both directions
	Offloaded                         // its packets take the flowtable, or hardware, from here on
	Onloaded                          // its packets take the classic path again
	Closing                           // one side has said FIN
	Candidate                         // closed; evicted when it stays silent
	Marked                            // mark or labels changed
	Evicted                           // ended: flowd deleted it
	Expired                           // ended: its lifetime was over, or the kernel or another program deleted it
	Recycled                          // ended: flowd deleted it because its room was needed
)

var changeNames = [...]string{
	"", "new", "established", "offloaded", "onloaded", "closing", "candidate", "marked",
	"evicted", "expired", "recycled",
}

func (c ChangeKind) String() string { return name(changeNames[:], int(c)) }

// Ends tells whether the flow is gone after this change.
func (c ChangeKind) Ends() bool { return c >= Evicted }

// Change is one numbered thing that happened to one flow. For a change that
// ends the flow, Flow is its end-of-flow record: final counters, and Time less
// Flow.Start is its duration.
type Change struct {
	Seq    uint64 // given by the Journal, from 1, without gaps
	Time   int64  // ns since the epoch
	Kind   ChangeKind
	Reason Reason // of a change that ends the flow
	Flow   Flow
}
