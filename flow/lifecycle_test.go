package flow

import "testing"

// A program that marks a candidate, flowd among them, does not revive it: no
// packet has come. ctnetlink sends the TCP state with that event, which in the
// flowtable is that of long ago.
func TestCommandRevivesNobody(t *testing.T) {
	r, f := offloaded(t)
	r.expect("candidate", sighting(RST, f.Orig))
	marked := event(Update, f.Orig, 5, withTCP(TCPEstablished), withStatus(offload), withMark(7))
	marked.Has |= Commanded
	r.expect("marked", marked)
	if s := r.flow(f.Orig).State; s != StateClosed {
		t.Errorf("state %v", s)
	}
}

// One-way UDP that began long ago may have had a packet just now: only a handshake
// has its time from its beginning on.
func TestAdoptedOneWayUDP(t *testing.T) {
	r := newRig(t)
	k := key(t, UDP, "10.0.0.1:514", "192.0.2.1:514")
	r.apply(syncStart, event(Sample, k, 1, withStart(r.now-3600*second), withCounters(9000, 0), withTimeout(29)), syncEnd)
	if f := r.flow(k); f.Seen < r.now-5*second {
		t.Errorf("had a packet in the last second, seen %d s ago", (r.now-f.Seen)/second)
	}
}

// conntrack gives UDP the stream's timeout only once it is assured; before it has 30 s.
func TestAdoptedUDPThatIsNotAssured(t *testing.T) {
	r := newRig(t)
	k := key(t, UDP, "10.0.0.1:1000", "192.0.2.1:53")
	r.apply(syncStart, event(Sample, k, 1, withStatus(replied), withStart(r.now-3600*second), withCounters(9, 9), withTimeout(29)), syncEnd)
	if f := r.flow(k); f.Seen < r.now-5*second {
		t.Errorf("had a packet in the last second, seen %d s ago", (r.now-f.Seen)/second)
	}
}

// A start from before the clock was set does not confuse the wheel: the handshake is
// given a moment, and then judged.
func TestAdoptedFromBeforeTheClockWasSet(t *testing.T) {
	r := newRig(t)
	r.now = 2_100_000_000 * second
	k := key(t, TCP, "10.0.0.1:1000", "192.0.2.1:80")
	r.apply(syncStart, event(Sample, k, 1, withTCP(TCPSynSent), withStart(100*second), withTimeout(100)), syncEnd)
	if actions, _ := r.Sweep(nil, r.now+second, 100); len(actions) != 0 {
		t.Errorf("a handshake whose time is not known is asked %v of at once", actions)
	}
	if actions, _ := r.Sweep(nil, r.now+3*second, 100); len(actions) != 1 || actions[0].Verb != Read {
		t.Errorf("a handshake that is over is not asked for: %v", actions)
	}
}

// The end of a flow that was to be deleted has the reason that was asked for, also
// when it is found by the next connection on its tuple.
func TestEndFoundByTheNextConnection(t *testing.T) {
	r := newRig(t)
	k := key(t, TCP, "10.0.0.1:1000", "192.0.2.1:80")
	r.apply(event(New, k, 1))
	r.Delete(r.flow(k).Handle, ReasonCommand, r.now)
	r.expect("evicted:command new", event(New, k, 2))
}

// An established connection with a timeout object of a few seconds has not been reset.
func TestShortTimeoutIsNoRST(t *testing.T) {
	r := newRig(t)
	r.SetAgeing(&ages{established: 10, idle: 10, unreplied: 10, handshake: 30, halfClosed: 10, closing: 5}, DefaultTimers)
	k := key(t, TCP, "10.0.0.1:1000", "192.0.2.1:80")
	r.expect("new", event(New, k, 1, withTCP(TCPSynSent), withTimeout(120)))
	r.expect("", event(Update, k, 1, withTCP(TCPSynRecv), withTimeout(60), withStatus(replied)))
	r.expect("established", event(Update, k, 1, withTCP(TCPEstablished), withTimeout(10), withStatus(replied)))
}

// An event that brings the kernel's expiry nearer has the flow looked at in time.
func TestExpiryComesNearer(t *testing.T) {
	r := newRig(t)
	k := key(t, UDP, "10.0.0.1:1000", "192.0.2.1:53")
	r.apply(event(New, k, 1, withStatus(replied), withTimeout(600)))
	r.Sweep(nil, r.now, 100)
	r.apply(event(Update, k, 1, withStatus(replied|StatusAssured), withTimeout(20)))
	for end := r.now + 19*second; r.now < end; r.now += second {
		if actions, _ := r.Sweep(nil, r.now, 100); len(actions) > 0 {
			return
		}
	}
	t.Error("the kernel ends it before its lifetime, and nobody looks at it")
}

// A closed flow of the slow path is not deleted: a next connection may go on with its
// entry. It is given what it has left, and deleted only if it is there still.
func TestClosedIsLeftToExpire(t *testing.T) {
	r := newRig(t)
	k := key(t, TCP, "10.0.0.1:1000", "192.0.2.1:80")
	r.apply(event(New, k, 1, withTCP(TCPClose), withStatus(replied), withTimeout(10)))
	begin := r.now
	var asked []Action
	for ; r.now < begin+10*second && len(asked) == 0; r.now += tick {
		asked, _ = r.Sweep(nil, r.now, 100)
	}
	if len(asked) != 1 || asked[0].Verb != Extend || asked[0].Timeout != 1 || asked[0].Reopen {
		t.Fatalf("asked %+v of a closed flow, want it given a second", asked)
	}
	late := r.now - begin + second - usual.closing*second
	if late < 0 || late > 3*tick {
		t.Errorf("it ends %d ms after the closing time", late/1e6)
	}
	r.now += second + 2*tick
	if asked, _ = r.Sweep(nil, r.now, 100); len(asked) != 1 || asked[0].Verb != Read {
		t.Fatalf("asked %+v of what should have expired, want a read", asked)
	}
	r.Apply(nil, event(Answer, k, 1, withTCP(TCPClose), withStatus(replied), withTimeout(0)), r.now)
	if asked, _ = r.Sweep(nil, r.now, 100); len(asked) != 1 || asked[0].Verb != Remove {
		t.Fatalf("asked %+v of what has not expired, want it removed", asked)
	}
	r.expect("evicted:reset", event(Destroy, k, 1))
}

// Packets that are learnt of after a flow was in the flowtable were there, once.
func TestOffloadedPackets(t *testing.T) {
	r := newRig(t)
	k := key(t, UDP, "10.0.0.1:1000", "192.0.2.1:53")
	for i, step := range []struct {
		ev             *Event
		all, offloaded uint64
	}{
		{event(New, k, 1, withStatus(replied)), 0, 0},
		{event(Answer, k, 1, withStatus(replied), withCounters(2, 1)), 3, 0},
		{event(Update, k, 1, withStatus(offload)), 3, 0},
		{event(Update, k, 1, withStatus(replied)), 3, 0},
		{event(Answer, k, 1, withStatus(replied), withCounters(12, 1)), 13, 10},
		{event(Answer, k, 1, withStatus(replied), withCounters(12, 6)), 18, 10},
		{event(Answer, k, 1, withStatus(offload), withCounters(13, 6)), 19, 11},
		{event(Destroy, k, 1, withCounters(20, 6)), 26, 18},
	} {
		r.apply(step.ev)
		if s := r.Stats(); s.Packets != step.all || s.OffloadedPackets != step.offloaded {
			t.Errorf("step %d: %d packets, %d of them offloaded, want %d and %d", i, s.Packets, s.OffloadedPackets, step.all, step.offloaded)
		}
	}
}

// A flow that was asked for to make room is not deleted when there is room by then.
func TestRoomByThen(t *testing.T) {
	h := newHerd(t, 3)
	for i := range uint32(4) {
		h.tell(event(New, numbered(i), i, withStatus(offload)))
	}
	asked, _ := h.Sweep(nil, h.now, 100)
	if len(asked) == 0 || asked[0].Verb != Read {
		t.Fatalf("asked %+v with one flow too many, want a read", asked)
	}
	h.SetLimit(100)
	h.tell(event(Answer, asked[0].Orig, asked[0].ID, withStatus(offload), withCounters(0, 0)))
	if asked, _ = h.Sweep(nil, h.now, 100); len(asked) != 0 {
		t.Errorf("asked %+v with room for all", asked)
	}
}
