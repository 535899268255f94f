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
	nSeen atomic.Uint64
	nLost atomic.Uint64
}

// NewTap opens log group number group in the network namespace of the calling thread.
func NewTap(group uint16) (*Tap, error) {
	log, err := nflog.Open(&nflog.Config{
		Group: group, Copymode: nflog.CopyPacket, Bufsize: tapCopy,
		QThresh: tapThreshold, Timeout: tapFlush,
	})
	if err != nil {
		return nil, fmt.Errorf("FIN/RST tap: log group %d: %w", group, err)
	}
	if err := log.Con.SetReadBuffer(tapBuffer); err != nil {
		log.Close()
		return nil, fmt.Errorf("FIN/RST tap: receive buffer: %w", err)
	}
	return &Tap{log: log, out: make(chan []flow.Event, 64)}, nil
}

// Events returns the sightings. It is closed when Run returns.
func (t *Tap) Events() <-chan []flow.Event { return t.out }

// Stats returns how many segments were seen, and how often the kernel or the
// reader had to let some go.
func (t *Tap) Stats() (seen, lost uint64) { return t.nSeen.Load(), t.nLost.Load() }

// Run reads until ctx ends, and closes the socket.
func (t *Tap) Run(ctx context.Context) error {
	defer close(t.out)
	err := t.log.RegisterWithErrorFunc(ctx, func(a nflog.Attribute) int {
		if a.Payload != nil {
			t.take(*a.Payload)
		}
		return 0
	}, func(err error) int {
		var op *netlink.OpError
		if errors.Is(err, unix.ENOBUFS) {
			t.nLost.Add(1)
			return 0
		}
		if errors.As(err, &op) && (op.Timeout() || op.Temporary()) {
			return 0
		}
		return 1
	})
	if err != nil {
		t.log.Close()
		return fmt.Errorf("FIN/RST tap: %w", err)
	}
	<-ctx.Done()
	return t.log.Close()
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
