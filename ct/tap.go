package ct

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"flowd/flow"

	"github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// tapCopy bytes of a packet hold an IPv6 and a TCP header without options.
	tapCopy = 64
	// tapThreshold packets, or tapFlush hundredths of a second, are collected
	// before the kernel wakes the reader: logging one at a time costs two to four
	// times as much a packet and loses most of a flood.
	tapThreshold, tapFlush = 64, 10
	tapBuffer              = 4 << 20
)

// Tap reads TCP segments with FIN or RST from a netlink log group, into which
// flowd's ingress chain sends them. It is needed where the flowtable forwards
// the closing packets of a connection itself and conntrack never sees them.
type Tap struct {
	log   *nflog.Nflog
	out   chan []flow.Event
	ctx   context.Context // of the library's reader; its cause is why it ended
	end   context.CancelCauseFunc
	nSeen atomic.Uint64
	nLost atomic.Uint64
}

// NewTap binds to log group number group in the network namespace of the calling
// thread. A group that another program reads from is refused, with EPERM
// (nfulnl_recv_config). Close or Run ends what it starts.
func NewTap(group uint16) (*Tap, error) {
	log, err := nflog.Open(&nflog.Config{
		Group: group, Copymode: nflog.CopyPacket, Bufsize: tapCopy,
		QThresh: tapThreshold, Timeout: tapFlush,
	})
	if err != nil {
		return nil, fmt.Errorf("FIN/RST tap: log group %d: %w", group, err)
	}
	t := &Tap{log: log, out: make(chan []flow.Event, 64)}
	t.ctx, t.end = context.WithCancelCause(context.Background())
	err = log.Con.SetReadBuffer(tapBuffer)
	if err == nil {
		err = log.RegisterWithErrorFunc(t.ctx, t.packet, t.failed)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("FIN/RST tap: log group %d: %w", group, err)
	}
	return t, nil
}

// Events returns the sightings. It is never closed: the library may deliver one
// more after the end.
func (t *Tap) Events() <-chan []flow.Event { return t.out }

// Stats returns how many segments were seen, and how often the kernel or the
// reader had to let some go.
func (t *Tap) Stats() (seen, lost uint64) { return t.nSeen.Load(), t.nLost.Load() }

// Run waits until ctx ends or reading fails, and closes the tap.
func (t *Tap) Run(ctx context.Context) error {
	defer t.Close()
	select {
	case <-ctx.Done():
		return nil
	case <-t.ctx.Done():
		return fmt.Errorf("FIN/RST tap: %w", context.Cause(t.ctx))
	}
}

// Close ends the reading and gives the group back.
func (t *Tap) Close() error {
	t.end(nil)
	return t.log.Close()
}

func (t *Tap) packet(a nflog.Attribute) int {
	if a.Payload != nil {
		t.take(*a.Payload)
	}
	return 0
}

// failed judges an error of the library's reader: 0 goes on.
func (t *Tap) failed(err error) int {
	var op *netlink.OpError
	switch {
	case t.ctx.Err() != nil:
		return 1
	case errors.Is(err, unix.ENOBUFS):
		t.nLost.Add(1)
		return 0
	case errors.As(err, &op) && (op.Timeout() || op.Temporary()):
		return 0
	}
	t.end(err)
	return 1
}

// take passes a sighting on. A sighting that finds no room is dropped: the
// kernel ends the flow all the same, only later.
func (t *Tap) take(packet []byte) {
	ev, ok := sighting(packet)
	if !ok {
		return
	}
	t.nSeen.Add(1)
	select {
	case t.out <- []flow.Event{ev}:
	default:
		t.nLost.Add(1)
	}
}

// TCP flags, RFC 9293 section 3.1.
const tcpFIN, tcpRST = 1 << 0, 1 << 2

// sighting reads tuple and flags of a TCP packet, beginning at its IP header.
// Fragments but the first, and IPv6 packets with extension headers, are no
// sightings: the flowtable leaves them to the slow path, where conntrack sees them.
func sighting(p []byte) (flow.Event, bool) {
	var ev flow.Event
	k := &ev.Orig
	k.Proto = flow.TCP
	var tcp []byte
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		hdr := int(p[0]&0xf) * 4
		if hdr < 20 || len(p) < hdr || p[9] != uint8(flow.TCP) || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return ev, false
		}
		k.Family = flow.IPv4
		copy(k.Src[:], p[12:16])
		copy(k.Dst[:], p[16:20])
		tcp = p[hdr:]
	case len(p) >= 40 && p[0]>>4 == 6 && p[6] == uint8(flow.TCP):
		k.Family = flow.IPv6
		copy(k.Src[:], p[8:24])
		copy(k.Dst[:], p[24:40])
		tcp = p[40:]
	}
	if len(tcp) < 14 {
		return ev, false
	}
	k.SrcPort, k.DstPort = binary.BigEndian.Uint16(tcp), binary.BigEndian.Uint16(tcp[2:])
	switch flags := tcp[13]; {
	case flags&tcpRST != 0:
		ev.Kind = flow.RST
	case flags&tcpFIN != 0:
		ev.Kind = flow.FIN
	default:
		return ev, false
	}
	return ev, true
}
