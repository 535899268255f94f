package flow

import (
	"math/rand/v2"
	"testing"
)

// kernelSim is what the kernel does with one connection, as far as a flow table
// can tell, with the truth about its packets beside it. Time goes from event to
// event; requests of the table are answered after some milliseconds.
//
// Sources: nf_conntrack_proto_udp.c, nf_conntrack_proto_tcp.c (timeouts of the
// slow path), nf_flow_table_core.c (flow_offload_refresh, flow_offload_fixup_ct).
type kernelSim struct {
	testing.TB
	story
	tab   *Table
	rnd   *rand.Rand
	now   int64
	queue []happening
	reads int

	orig    Key
	status  Status
	tcp     TCPState
	packets [2]uint64
	born    int64
	expires int64 // ct->timeout
	keeps   int64 // flow->timeout: until then it is in the flowtable
	stays   int64 // grows when keeps does: a collection of before is void
	last    int64 // the truth: when it had its last packet
	ended   int64
	why     Change // how the table saw it end
}

// happening is something that is going to happen.
type happening struct {
	at int64
	do func()
}

// story is one connection's life and its circumstances.
type story struct {
	proto      Proto
	life       int64 // s
	own        bool  // it is a lifetime of its own, and the policy's is another
	offload    bool  // established packets of the slow path are put into the flowtable
	silently   bool  // no event shows that it has been
	object     bool  // the slow path gives it the policy's lifetime (ct timeout)
	nocount    bool  // nf_conntrack_acct is off
	coarse     bool  // a packet moves flow->timeout on only if that is by more than a second
	day        day
	gaps       []int64 // ns from one to the next, after the beginning
	dumps      []int64 // ns after the beginning
	sysctl     KernelTimers
	seed       uint64
	unanswered bool // no packets in the reply direction
}

// day is how the kernel keeps conntrack from ageing what is in a flowtable.
type day uint8

const (
	dayNew day = iota // a day at first, and with less than five minutes left again (6.14 on: nf_flow_table_extend_ct_timeout)
	dayOld            // with less than half a day left (6.1, 6.12: nf_ct_offload_timeout)
	dayAll            // always
)

func (d day) below() int64 {
	return [...]int64{300 * second, 43200 * second, 1 << 62}[d]
}

func newSim(t testing.TB, s story) *kernelSim {
	if s.sysctl == (KernelTimers{}) {
		s.sysctl = asSet
	}
	a := *usual
	a.idle, a.established = s.life, s.life
	if s.own {
		a.idle, a.established = 100, 100
		s.sysctl.UDPStream, s.sysctl.Established = 100, 100
	}
	k := &kernelSim{TB: t, story: s, tab: NewTable(&a, s.sysctl), rnd: rand.New(rand.NewPCG(s.seed, 1)), now: 1_000_000*second + int64(s.seed%997)*1_003_001}
	k.orig = Key{Src: [16]byte{10, 0, 0, 1}, Dst: [16]byte{192, 0, 2, 1}, SrcPort: 1000, DstPort: 443, Family: IPv4, Proto: s.proto}
	k.born = k.now
	return k
}

// in has something happen after a while.
func (k *kernelSim) in(wait int64, do func()) {
	k.queue = append(k.queue, happening{k.now + wait, do})
}

// soon is some milliseconds, never twice the same.
func (k *kernelSim) soon() int64 { return 1_000_000 + k.rnd.Int64N(15_000_000) }

// slowTimeout is what a packet of the slow path moves the expiry on to.
func (k *kernelSim) slowTimeout() int64 {
	s := uint32(0)
	switch {
	case k.proto == TCP:
		s = map[TCPState]uint32{TCPSynSent: 120, TCPSynRecv: 60, TCPEstablished: k.sysctl.Established}[k.tcp]
		if k.object && k.tcp == TCPEstablished {
			s = uint32(k.life)
		}
	case k.object && k.status&StatusSeenReply != 0:
		s = uint32(k.life)
	case k.status&StatusAssured != 0:
		s = k.sysctl.UDPStream
	default:
		s = k.sysctl.UDP
	}
	return int64(s) * second
}

// packet has one pass.
func (k *kernelSim) packet(dir int) {
	if k.ended != 0 {
		k.Fatalf("gone %.3f s after its last packet, and it had another one: early", float64(k.ended-k.last)/1e9)
	}
	k.last = k.now
	k.packets[dir]++
	if k.offloaded() {
		k.refresh(false)
		return
	}
	before := k.status
	k.advance(dir)
	k.setExpires(k.now + k.slowTimeout())
	if k.offload && k.status&StatusSeenReply != 0 && (k.proto != TCP || k.tcp == TCPEstablished) &&
		(!k.silently || k.status == before) {
		if k.day == dayNew || k.expires-k.now < k.day.below() {
			k.expires = k.now + 86400*second // flow_offload_add
		}
		changed := k.status != before // then there is an event, which shows it
		k.status |= StatusOffload
		if changed {
			k.event(Update, 0)
		}
		k.refresh(true)
		return
	}
	if dir == 0 && k.born == k.now {
		k.event(New, 0)
	} else if k.status != before {
		k.event(Update, 0)
	}
}

func (k *kernelSim) offloaded() bool { return k.status&StatusOffload != 0 }

// advance is conntrack's view of a packet of the slow path.
func (k *kernelSim) advance(dir int) {
	k.status |= StatusConfirmed
	if dir == 1 {
		k.status |= StatusSeenReply
	}
	switch {
	case k.proto != TCP:
		if k.status&StatusSeenReply != 0 && k.now > k.born+2*second {
			k.status |= StatusAssured
		}
	case dir == 1 && k.tcp == TCPSynSent:
		k.tcp = TCPSynRecv
	case dir == 0 && k.tcp == TCPSynRecv:
		k.tcp = TCPEstablished
		k.status |= StatusAssured
	case k.tcp == TCPNone:
		k.tcp = TCPSynSent
	}
}

// refresh is flow_offload_refresh.
func (k *kernelSim) refresh(force bool) {
	keep := k.sysctl.FlowUDP
	if k.proto == TCP {
		keep = k.sysctl.FlowTCP
	}
	until := k.now + int64(keep)*second
	if !force && k.coarse && until-k.keeps <= second {
		return
	}
	k.keeps = until
	k.stays++
	stay := k.stays
	k.in(until-k.now+k.rnd.Int64N(second), func() {
		if stay == k.stays && k.offloaded() {
			k.leave()
		}
	})
}

// leave is a collection of the flowtable that finds the flow's time over:
// flow_offload_fixup_ct.
func (k *kernelSim) leave() {
	whole, keep := k.sysctl.UDPStream, k.sysctl.FlowUDP
	if k.proto == TCP {
		whole, keep = k.sysctl.Established, k.sysctl.FlowTCP
	}
	k.held()
	k.status &^= StatusOffload
	k.setExpires(min(k.expires, k.now+max(0, int64(whole)-int64(keep))*second))
}

// held keeps conntrack's own timeout from running out, as of now.
func (k *kernelSim) held() {
	const aDay = 86400 * second
	if k.day == dayAll {
		k.expires = k.now + aDay
	}
	for low := k.expires - k.day.below(); k.day != dayAll && low < k.now; low = k.expires - k.day.below() {
		k.expires = low + aDay
	}
}

// setExpires has conntrack end the entry then, or up to half a second later.
func (k *kernelSim) setExpires(at int64) {
	k.expires = at
	k.in(max(0, at-k.now)+k.rnd.Int64N(second/2), func() {
		if k.expires == at && !k.offloaded() {
			k.end()
		}
	})
}

// asSet are the kernel's timers as flowd sets them: to what its default policy gives.
var asSet = KernelTimers{FlowTCP: 30, FlowUDP: 30, Established: 7440, UDPStream: 180, UDP: 30}
