package flow

import (
	"strings"
	"testing"
)

const (
	replied = StatusSeenReply | StatusConfirmed
	offload = StatusSeenReply | StatusAssured | StatusConfirmed | StatusOffload
	hw      = offload | StatusHWOffload
)

// step is one event of a transition test and the changes that it must make.
type step struct {
	ev   *Event
	want string
}

func TestTCPTransitions(t *testing.T) {
	k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	established := event(Update, k, 1, withStatus(replied), withTCP(TCPEstablished))
	runAll(t, map[string][]step{
		"by the slow path": {
			{event(New, k, 1, withTCP(TCPSynSent)), "new"},
			{event(Update, k, 1, withTCP(TCPSynRecv), withStatus(replied)), ""},
			{established, "established"},
			{established, ""},
			{event(Update, k, 1, withTCP(TCPFinWait)), "closing"},
			{event(Update, k, 1, withTCP(TCPCloseWait)), ""},
			{event(Update, k, 1, withTCP(TCPLastAck)), ""},
			{event(Update, k, 1, withTCP(TCPTimeWait)), "candidate"},
			{event(Update, k, 1, withTCP(TCPTimeWait)), ""},
			{event(Destroy, k, 1), "expired:closed"},
		},
		"reset": {
			{event(New, k, 1, withTCP(TCPEstablished), withStatus(replied)), "new"},
			{event(Update, k, 1, withTCP(TCPClose)), "candidate"},
			{event(Destroy, k, 1), "expired:reset"},
		},
		"offload, on and off": {
			{event(New, k, 1, withTCP(TCPEstablished), withStatus(replied)), "new"},
			{event(Sample, k, 1, withStatus(offload)), "offloaded"},
			{event(Sample, k, 1, withStatus(offload)), ""},
			{event(Update, k, 1, withStatus(hw)), "offloaded"},
			{event(Update, k, 1, withStatus(hw)), ""},
			{event(Update, k, 1, withStatus(offload)), "offloaded"},
			{event(Update, k, 1, withStatus(replied)), "onloaded"},
		},
		"seen offloaded at first": {
			{event(New, k, 1, withStatus(offload)), "new offloaded"},
		},
		"seen closed at first": {
			{event(New, k, 1, withTCP(TCPTimeWait), withStatus(replied)), "new candidate"},
		},
		"all at once": {
			{event(New, k, 1, withTCP(TCPSynSent)), "new"},
			{event(Update, k, 1, withTCP(TCPEstablished), withStatus(offload), withMark(9)), "marked established offloaded"},
		},
		"candidate that lives": {
			{event(New, k, 1, withTCP(TCPTimeWait), withStatus(replied)), "new candidate"},
			{established, "established"},
			{event(Update, k, 1, withTCP(TCPTimeWait)), "candidate"},
			{event(Update, k, 1, withTCP(TCPFinWait)), "closing"},
			{event(Update, k, 1, withTCP(TCPTimeWait)), "candidate"},
		},
	})
}

func TestTransitions(t *testing.T) {
	u := key(t, UDP, "10.0.0.5:1000", "192.0.2.1:53")
	runAll(t, map[string][]step{
		"UDP": {
			{event(New, u, 1), "new"},
			{event(Update, u, 1, withStatus(replied)), "established"},
			{event(Update, u, 1, withStatus(replied|StatusAssured)), ""},
			{event(Destroy, u, 1), "expired:kernel"},
		},
		"mark and labels": {
			{event(New, u, 1, withMark(1), withLabel(5)), "new"},
			{event(Update, u, 1), ""},
			{event(Update, u, 1, withMark(1), withLabel(5)), ""},
			{event(Update, u, 1, withMark(2)), "marked"},
			{event(Update, u, 1, withLabel(127)), "marked"},
			{event(Update, u, 1, withMark(0)), "marked"},
		},
		"no tuple to key it by": {
			{event(New, u, 1, without(HasReply)), ""},
			{event(Update, u, 1, without(HasReply)), ""},
			{event(New, u, 1), "new"},
			{event(Update, u, 1, without(HasReply), withStatus(replied)), "established"},
		},
		"begins with an update": {
			{event(Update, u, 1, withStatus(replied)), "new"},
		},
		"destroy of nothing": {
			{event(Destroy, u, 1), ""},
		},
		"destroy without id": {
			{event(New, u, 1), "new"},
			{event(Destroy, u, 0, without(HasID)), "expired:kernel"},
		},
	})
}

// runAll runs each story on a table of its own.
func runAll(t *testing.T, stories map[string][]step) {
	t.Helper()
	for name, steps := range stories {
		t.Run(name, func(t *testing.T) { runSteps(t, steps) })
	}
}

func runSteps(t *testing.T, steps []step) {
	t.Helper()
	r := newRig(t)
	for i, s := range steps {
		if got := r.apply(s.ev); got != s.want {
			t.Fatalf("step %d: changes %q, want %q", i, got, s.want)
		}
		for _, c := range r.last {
			if c.Time != r.now {
				t.Errorf("step %d: %v at %d, want %d", i, c.Kind, c.Time, r.now)
			}
		}
	}
}

// The changes of one event carry the flow as it is after the event.
func TestChangesCarryTheFlow(t *testing.T) {
	r := newRig(t)
	k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	r.expect("new candidate", event(New, k, 1, withTCP(TCPTimeWait)))
	r.expect("marked established offloaded", event(Update, k, 1, withTCP(TCPEstablished), withStatus(offload), withMark(9)))
	for _, c := range r.last {
		if f := r.flow(k); c.Flow != f {
			t.Errorf("%v carries %+v, the table has %+v", c.Kind, c.Flow, f)
		}
	}
}

func TestFlowFields(t *testing.T) {
	r := newRig(t)
	k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	r.apply(event(New, k, 7, withTimeout(120), withMark(5), withLabel(9), withTCP(TCPEstablished)))
	created := r.now
	want := Flow{
		Handle: r.flow(k).Handle, Lifetime: usual.Lifetime(TCP, 80, StateEstablished), State: StateEstablished,
		Orig: k, Reply: k.Reverse(), ID: 7, Mark: 5, TCP: TCPEstablished, Start: created, Seen: created,
		Expires: uint32(created/second) + 120,
	}
	want.Labels[1] = 1 << 1
	if f := r.flow(k); f != want {
		t.Fatalf("new flow is %+v, want %+v", f, want)
	}
	r.apply(event(Update, k, 7, withStatus(replied)))
	want.Status, want.Seen = replied, r.now
	if f := r.flow(k); f != want {
		t.Fatalf("an event that names the status alone makes %+v, want %+v", f, want)
	}
	// A read shows the entry whole: what is absent is zero. Counters alone tell
	// of packets.
	r.apply(event(Sample, k, 7, withCounters(3, 2), withStart(42)))
	want.Packets, want.Bytes, want.Start = [2]uint64{3, 2}, [2]uint64{300, 200}, 42
	want.Mark, want.Labels, want.Expires, want.Seen = 0, [16]byte{}, 0, r.now
	if f := r.flow(k); f != want {
		t.Fatalf("a read makes %+v, want %+v", f, want)
	}
	r.apply(event(Sample, k, 7, withCounters(3, 2)))
	if f := r.flow(k); f != want {
		t.Fatalf("a read with no more packets makes %+v, want %+v", f, want)
	}
	// Counters that another program has set to zero tell nothing: it may live.
	r.apply(event(Sample, k, 7, withCounters(2, 1)))
	want.Packets, want.Bytes, want.Seen = [2]uint64{2, 1}, [2]uint64{200, 100}, r.now
	if f := r.flow(k); f != want {
		t.Fatalf("a read with fewer packets makes %+v, want %+v", f, want)
	}
	r.apply(event(Sample, k, 7, withCounters(3, 2)))
	want.Packets, want.Bytes, want.Seen = [2]uint64{3, 2}, [2]uint64{300, 200}, r.now
	r.apply(event(Sample, k, 7, withCounters(3, 4)))
	want.Packets[1], want.Bytes[1], want.Seen = 4, 400, r.now
	if f := r.flow(k); f != want {
		t.Fatalf("one more direction: %+v, want %+v", f, want)
	}
}

func TestEndOfFlowRecord(t *testing.T) {
	r := newRig(t)
	k := key(t, UDP, "10.0.0.5:1000", "192.0.2.1:53")
	r.apply(event(New, k, 1))
	seen := r.now
	r.expect("expired:kernel", event(Destroy, k, 1, withCounters(8, 9), withStart(5), withStatus(replied|StatusDying)))
	f := r.last[0].Flow
	if f.Packets != [2]uint64{8, 9} || f.Bytes != [2]uint64{800, 900} || f.Start != 5 {
		t.Errorf("final counters %v %v start %d", f.Packets, f.Bytes, f.Start)
	}
	if f.Seen != seen {
		t.Errorf("its end is no packet: seen at %d, want %d", f.Seen, seen)
	}
	if f.Reason != ReasonKernel {
		t.Errorf("the record's reason is %v", f.Reason)
	}
	r.gone(k)
}

func TestEndReasons(t *testing.T) {
	k := key(t, UDP, "10.0.0.5:1000", "192.0.2.1:53")
	for name, tc := range map[string]struct {
		timeout uint32 // of the last event, a second before the end
		destroy *Event
		want    string
	}{
		"ran out":                         {1, event(Destroy, k, 1), "expired:idle"},
		"ran out long ago":                {0, event(Destroy, k, 1), "expired:idle"},
		"within the kernel's second":      {2, event(Destroy, k, 1), "expired:idle"},
		"before its time":                 {30, event(Destroy, k, 1), "expired:kernel"},
		"the kernel says how long it had": {1, event(Destroy, k, 1, withTimeout(20)), "expired:kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(event(New, k, 1, withTimeout(tc.timeout), withStatus(replied)))
			r.expect(tc.want, tc.destroy)
			r.apply(event(New, k, 1, withTimeout(tc.timeout)))
			r.expect(strings.ReplaceAll(tc.want, "idle", "half-open"), tc.destroy)
		})
	}
}

func TestDelete(t *testing.T) {
	r := newRig(t)
	k := key(t, UDP, "10.0.0.5:1000", "192.0.2.1:53")
	if r.Delete(Handle{}, ReasonCommand, r.now) {
		t.Error("a flow that is not there can be deleted")
	}
	r.apply(event(New, k, 1))
	h := r.flow(k).Handle
	if r.Delete(Handle{h.slot, h.generation + 1}, ReasonCommand, r.now) || r.Delete(Handle{h.slot + 1, h.generation}, ReasonCommand, r.now) {
		t.Error("another flow's handle deletes this one")
	}
	if f := r.flow(k); f.Reason != ReasonNone {
		t.Errorf("the flow is marked %v", f.Reason)
	}
	if !r.Delete(h, ReasonCommand, r.now) || !r.Delete(h, ReasonClosed, r.now) {
		t.Error("a flow that is there cannot be deleted")
	}
	r.expect("evicted:command", event(Destroy, k, 1))
	r.gone(k)
	if n := r.Stats().Ended[ReasonCommand]; n != 1 {
		t.Errorf("%d flows ended by command, want 1", n)
	}
	if _, ok := r.Get(h); ok || r.Delete(h, ReasonCommand, r.now) {
		t.Error("a handle outlives its flow")
	}
	r.apply(event(New, k, 2)) // in the same place
	if _, ok := r.Get(h); ok || r.Delete(h, ReasonCommand, r.now) {
		t.Error("a handle names the next flow in its place")
	}
}

func TestStatsCount(t *testing.T) {
	r := newRig(t)
	a, b := key(t, TCP, "10.0.0.1:1", "192.0.2.1:80"), key(t, TCP, "10.0.0.2:1", "192.0.2.1:80")
	r.apply(event(New, a, 1, withStatus(offload)), event(New, b, 2, withStatus(hw)))
	r.apply(sighting(RST, a), event(Update, b, 2, withStatus(offload)))
	s := r.Stats()
	if s.Flows != 2 || s.Offloaded != 2 || s.Hardware != 0 || s.Candidates != 1 || s.Created != 2 || s.Offloads != 2 {
		t.Errorf("stats %+v", s)
	}
	r.apply(event(Update, b, 2, withStatus(replied)), event(Update, b, 2, withStatus(offload)), event(Destroy, a, 1))
	s = r.Stats()
	if s.Flows != 1 || s.Offloads != 3 || s.Candidates != 0 || s.Ended[ReasonReset] != 1 || r.Len() != 1 {
		t.Errorf("stats %+v", s)
	}
}
