package flow

// Kind tells what an Event says of its flow.
type Kind uint8

const (
	// New: the kernel confirmed a new entry (IPCT_NEW).
	New Kind = iota + 1
	// Update: something of an entry changed (IPCT_REPLY, ASSURED, PROTOINFO, MARK, LABEL ...).
	Update
	// Destroy: the entry is gone; the event has its final counters.
	Destroy
	// Sample: the entry as a dump of the whole table shows it, between SyncStart
	// and SyncEnd.
	Sample
	// Answer: the entry as a single read shows it. It is of a flow that was known
	// when it was asked for, and brings none that has ended since back.
	Answer
	// SyncStart opens a dump of the whole table.
	SyncStart
	// SyncEnd closes it. What neither the dump nor an event since SyncStart has
	// shown is gone. With Partial set the dump was cut short and proves nothing.
	SyncEnd
	// FIN: a TCP segment with FIN passed the tap; Orig is its tuple as seen there.
	FIN
	// RST: the same for a segment with RST.
	RST
)

// Has tells which of an Event's optional fields the kernel sent.
type Has uint16

const (
	HasStatus Has = 1 << iota
	HasMark
	HasTimeout
	HasCounters
	HasStart
	HasStop
	HasLabels
	HasTCP
	HasReply
	HasID
	// Commanded marks an Update that a program has caused, and not a packet. Of
	// other kinds it means nothing.
	Commanded
	// Partial marks a SyncEnd whose dump did not come through whole.
	Partial
)

// whole tells whether the event shows all of an entry, so that what it does not
// have is not there; other events name what has changed.
func (k Kind) whole() bool { return k == Sample || k == Answer }

// commanded tells whether a program has caused the event, and not a packet.
func (ev *Event) commanded() bool { return ev.Kind == Update && ev.Has&Commanded != 0 }

// Event is one thing learnt of one flow, from whichever source. It has no
// pointers; a reader decodes each message into one in place.
type Event struct {
	Kind Kind
	TCP  TCPState
	Has  Has

	ID      uint32 // conntrack id (CTA_ID): nf_ct_get_id
	Status  Status
	Mark    uint32
	Timeout uint32 // seconds until the kernel lets the entry expire

	Orig, Reply Key
	Labels      [16]byte // little endian: label N is bit N%8 of byte N/8

	Packets, Bytes [2]uint64 // original and reply direction
	Start, Stop    int64     // ns since the Unix epoch
}

// Status is conntrack's status word: enum ip_conntrack_status,
// linux/netfilter/nf_conntrack_common.h.
type Status uint32

const (
	StatusSeenReply    Status = 1 << 1
	StatusAssured      Status = 1 << 2
	StatusConfirmed    Status = 1 << 3
	StatusSrcNAT       Status = 1 << 4
	StatusDstNAT       Status = 1 << 5
	StatusDying        Status = 1 << 9
	StatusFixedTimeout Status = 1 << 10 // packets do not move its expiry
	StatusHelper       Status = 1 << 13
	StatusOffload      Status = 1 << 14 // in a flowtable
	StatusHWOffload    Status = 1 << 15 // in the hardware of a device
)

// TCPState is enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h.
type TCPState uint8

const (
	TCPNone TCPState = iota
	TCPSynSent
	TCPSynRecv
	TCPEstablished
	TCPFinWait
	TCPCloseWait
	TCPLastAck
	TCPTimeWait
	TCPClose
	TCPSynSent2
)
