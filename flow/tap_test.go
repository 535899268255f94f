package flow

import (
	"fmt"
	"testing"
)

// offloaded returns a rig with one translated TCP flow in the flowtable.
func offloaded(t *testing.T) (*rig, Flow) {
	f := natFlow(t)
	r := newRig(t)
	r.expect("new offloaded", event(New, f.Orig, 5, withReply(f.Reply), withTCP(TCPEstablished), withStatus(offload)))
	return r, r.flow(f.Orig)
}

func TestFINBothWays(t *testing.T) {
	r, f := offloaded(t)
	r.expect("closing", sighting(FIN, f.Orig))
	if r.flow(f.Orig).State != StateClosing {
		t.Errorf("state %v after one FIN", r.flow(f.Orig).State)
	}
	r.expect("", sighting(FIN, f.Orig))
	r.expect("candidate", sighting(FIN, f.Reply))
	r.expect("", sighting(FIN, f.Reply), sighting(RST, f.Reply))
	if got := r.flow(f.Orig); !got.Candidate || got.State != StateClosed || got.Seen != r.now {
		t.Errorf("after both: %+v", got)
	}
}

func TestFINOfTheReplyFirst(t *testing.T) {
	r, f := offloaded(t)
	r.expect("closing candidate", sighting(FIN, f.Reply), sighting(FIN, f.Orig))
	if why := r.closedReason(f.Orig); why != ReasonClosed {
		t.Errorf("closed by FIN, reason %v", why)
	}
	r.expect("expired:closed", event(Destroy, f.Orig, 5))
}

func TestRST(t *testing.T) {
	for _, reply := range []bool{false, true} {
		r, f := offloaded(t)
		k := f.Orig
		if reply {
			k = f.Reply
		}
		r.expect("candidate", sighting(RST, k))
		if why := r.closedReason(f.Orig); why != ReasonReset {
			t.Errorf("closed by RST, reason %v", why)
		}
		r.expect("expired:reset", event(Destroy, f.Orig, 5))
	}
}

// In the forward hook a packet looks as it does between the translations: turned
// round it is the flow's other tuple.
func TestSightingBetweenTranslations(t *testing.T) {
	r, f := offloaded(t)
	r.expect("closing", sighting(FIN, f.Reply.Reverse())) // of the original direction
	r.expect("", sighting(FIN, f.Orig), sighting(FIN, f.Orig))
	r.expect("candidate", sighting(FIN, f.Orig.Reverse()))
	if why := r.closedReason(f.Orig); why != ReasonClosed {
		t.Errorf("closed by FIN, reason %v", why)
	}
	r, _ = offloaded(t)
	k := key(t, TCP, "10.9.9.9:1", "192.0.2.1:80")
	r.expect("", sighting(RST, k), sighting(FIN, k))
}

// Destroy has the TCP state that conntrack was left with when the flow went to
// the flowtable; that does not undo what the tap has seen.
func TestDestroyDoesNotUndoTheTap(t *testing.T) {
	r, f := offloaded(t)
	r.apply(sighting(RST, f.Orig))
	r.expect("expired:reset", event(Destroy, f.Orig, 5, withTCP(TCPEstablished), withStatus(offload|StatusDying)))
}

// On the slow path conntrack checks sequence numbers; a forged segment closes
// nothing there.
func TestSlowPathTakesConntracksWord(t *testing.T) {
	for _, kind := range []Kind{FIN, RST} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
			r := newRig(t)
			r.apply(event(New, k, 1, withTCP(TCPEstablished), withStatus(replied)))
			r.expect("", sighting(kind, k), sighting(kind, k.Reverse()))
			if s := r.flow(k).State; s != StateEstablished {
				t.Errorf("state %v", s)
			}
			// A dump shows that it lives still; what was seen is forgotten.
			r.expect("", event(Sample, k, 1, withTCP(TCPEstablished), withStatus(replied)))
			r.expect("offloaded", event(Sample, k, 1, withStatus(offload)))
		})
	}
}

// The table learns late that a flow is offloaded: there is no event of its own.
// What the tap saw meanwhile counts then.
func TestSightingBeforeOffloadIsKnown(t *testing.T) {
	k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	r := newRig(t)
	r.apply(event(New, k, 1, withTCP(TCPEstablished), withStatus(replied)))
	r.expect("", sighting(FIN, k), sighting(FIN, k.Reverse()))
	r.expect("offloaded candidate", event(Sample, k, 1, withStatus(offload)))
}

// A candidate that conntrack sees alive in the slow path is one no more.
func TestCandidateCleared(t *testing.T) {
	r, f := offloaded(t)
	r.expect("candidate", sighting(RST, f.Orig))
	r.expect("established onloaded", event(Update, f.Orig, 5, withStatus(replied), withTCP(TCPEstablished)))
	got := r.flow(f.Orig)
	if got.Candidate || got.State != StateEstablished {
		t.Errorf("candidate %v state %v", got.Candidate, got.State)
	}
	for _, c := range r.last {
		if c.Flow.Candidate {
			t.Errorf("%v still shows a candidate", c.Kind)
		}
	}
	r.expect("offloaded", event(Sample, f.Orig, 5, withStatus(offload)))
	r.expect("closing candidate", sighting(FIN, f.Orig), sighting(FIN, f.Reply))
}

// Only TCP closes: what the tap says of another protocol's tuple is void.
func TestSightingOfUDP(t *testing.T) {
	k := key(t, UDP, "10.0.0.5:1000", "192.0.2.1:53")
	r := newRig(t)
	r.apply(event(New, k, 1, withStatus(offload)))
	r.expect("", sighting(RST, k), sighting(FIN, k), sighting(FIN, k.Reverse()))
}

// Back from the flowtable, conntrack may not believe a RST: the state stays
// established, but the timeout becomes that of a closed connection.
func TestRSTThatLeavesTheTimeoutAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		ev   *Event
		want string
	}{
		"timeout of a RST": {event(Update, natFlow(t).Orig, 5, withStatus(replied), withTCP(TCPEstablished), withTimeout(10)), "onloaded candidate"},
		"longer":           {event(Update, natFlow(t).Orig, 5, withStatus(replied), withTCP(TCPEstablished), withTimeout(11)), "onloaded"},
		"none told":        {event(Update, natFlow(t).Orig, 5, withStatus(replied), withTCP(TCPEstablished)), "onloaded"},
		"in another state": {event(Update, natFlow(t).Orig, 5, withStatus(replied), withTCP(TCPFinWait), withTimeout(10)), "onloaded closing"},
		"in the flowtable": {event(Update, natFlow(t).Orig, 5, withStatus(offload), withTCP(TCPEstablished), withTimeout(10)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, f := offloaded(t)
			r.expect(tc.want, tc.ev)
			f = r.flow(f.Orig)
			if !f.Candidate {
				return
			}
			if why := r.closedReason(f.Orig); why != ReasonReset {
				t.Errorf("reason %v", why)
			}
			r.expect("established", event(Update, f.Orig, 5, withTCP(TCPEstablished), withTimeout(300)))
		})
	}
}

// A connection that only grows old comes down to the same timeout, and is none
// that a RST has closed; nor is one that was never known to have longer.
func TestAgeingIsNoRST(t *testing.T) {
	k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	r := newRig(t)
	for left := uint32(12); left > 0; left-- {
		want := ""
		if left == 12 {
			want = "new"
		}
		r.expect(want, event(Update, k, 1, withStatus(replied), withTCP(TCPEstablished), withTimeout(left)))
	}
	r = newRig(t)
	r.expect("new", event(Update, k, 1, withStatus(replied), withTCP(TCPEstablished), withTimeout(5)))
}

// The tap tells of a FIN or RST up to 0.3 s late: what it says of a tuple just after
// another connection has ended on it is of that one.
func TestSightingOfTheOneBefore(t *testing.T) {
	for _, wait := range []int64{0, tapDelay - 1, tapDelay} {
		r := newRig(t)
		k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
		r.apply(event(New, k, 1, withTCP(TCPEstablished), withStatus(offload)))
		r.Apply(nil, event(Destroy, k, 1), r.now)
		r.Apply(nil, event(New, k, 2, withTCP(TCPEstablished), withStatus(offload)), r.now)
		r.Apply(nil, sighting(RST, k), r.now+wait)
		want := StateEstablished
		if wait == tapDelay {
			want = StateClosed
		}
		if s := r.flow(k).State; s != want {
			t.Errorf("a RST %d ms after it began leaves it %v, want %v", wait/1e6, s, want)
		}
	}
}

// One FIN opens nothing again that conntrack has closed, but its word after that is
// that of a flow with one FIN.
func TestSightingOpensNothing(t *testing.T) {
	for _, state := range []TCPState{TCPTimeWait, TCPClose} {
		k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
		r := newRig(t)
		r.expect("new candidate", event(New, k, 1, withTCP(state), withStatus(replied)))
		r.expect("", sighting(FIN, k))
		r.expect("closing", event(Answer, k, 1, withTCP(state), withStatus(replied), withTimeout(10)))
		r.expect("candidate", event(Answer, k, 1, withTCP(state), withStatus(replied), withTimeout(9)), sighting(FIN, k.Reverse()))
	}
}

// A read that shows so little time after the flowtable needs a RST beside it.
func TestReadThatLooksReset(t *testing.T) {
	read := event(Answer, natFlow(t).Orig, 5, withStatus(replied), withTCP(TCPEstablished), withTimeout(9))
	r, _ := offloaded(t)
	r.expect("onloaded", read)
	r, f := offloaded(t)
	r.expect("candidate onloaded", sighting(RST, f.Orig), read)
	r, f = offloaded(t)
	r.expect("onloaded candidate", read, sighting(RST, f.Orig))
}
