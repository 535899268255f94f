package flow

import (
	"slices"
	"testing"
)

// A translated flow is found as its packets look in either direction, before
// and after translation.
func TestFindFromFourSides(t *testing.T) {
	f := natFlow(t)
	r := newRig(t)
	r.apply(event(New, f.Orig, 5, withReply(f.Reply)))
	for _, k := range []Key{f.Orig, f.Orig.Reverse(), f.Reply, f.Reply.Reverse()} {
		if got := r.flow(k); got.Orig != f.Orig || got.Reply != f.Reply || got.ID != 5 {
			t.Errorf("%v finds %v", k, got.Orig)
		}
	}
	zoned := f.Orig
	zoned.Zone = 1
	r.gone(zoned)
	r.apply(event(Destroy, f.Orig, 5))
	for _, k := range []Key{f.Orig, f.Orig.Reverse(), f.Reply, f.Reply.Reverse()} {
		r.gone(k)
	}
}

// A packet's own tuple counts before the same one turned round.
func TestFindPrefersTheTupleItself(t *testing.T) {
	a := key(t, UDP, "10.0.0.1:1", "10.0.0.2:2")
	r := newRig(t)
	r.apply(event(New, a, 1, withReply(key(t, UDP, "10.0.0.2:2", "192.0.2.1:9"))))
	r.apply(event(New, a.Reverse(), 2, withReply(key(t, UDP, "10.0.0.1:1", "192.0.2.2:9"))))
	if got := r.flow(a); got.ID != 1 {
		t.Errorf("%v finds id %d", a, got.ID)
	}
	if got := r.flow(a.Reverse()); got.ID != 2 {
		t.Errorf("%v finds id %d", a.Reverse(), got.ID)
	}
}

// A connection to itself has one tuple for both directions.
func TestSelfConnection(t *testing.T) {
	k := key(t, TCP, "127.0.0.1:7", "127.0.0.1:7")
	r := newRig(t)
	r.expect("new", event(New, k, 1))
	r.expect("established", event(Update, k, 1, withTCP(TCPEstablished)))
	if n := r.index.entries(); n != 1 {
		t.Errorf("%d index entries, want 1", n)
	}
	r.expect("expired:kernel", event(Destroy, k, 1))
	r.gone(k)
}

func TestNewConnectionOnTheSameTuple(t *testing.T) {
	k := key(t, TCP, "10.0.0.5:1000", "192.0.2.1:80")
	for name, ev := range map[string]*Event{
		"new":    event(New, k, 2, withStatus(offload)),
		"update": event(Update, k, 2, withStatus(offload)),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(event(New, k, 1, withMark(3), withCounters(9, 9)))
			r.expect("expired:lost new offloaded", ev)
			if f := r.flow(k); f.ID != 2 || f.Mark != 0 || f.Packets != [2]uint64{} || f.Start != r.now {
				t.Errorf("the new connection inherits from the old one: %+v", f)
			}
			if f := r.last[0].Flow; f.ID != 1 || f.Mark != 3 {
				t.Errorf("the end is that of %+v", f)
			}
			r.expect("", event(Destroy, k, 1))
			if r.flow(k).ID != 2 {
				t.Error("the old connection's end took the new one away")
			}
			r.expect("expired:kernel", event(Destroy, k, 2))
		})
	}
}

// Conntrack has every tuple once: who takes one over ends who had it.
func TestTupleTakenOver(t *testing.T) {
	reply := key(t, TCP, "192.0.2.1:80", "203.0.113.1:5000")
	a, b := key(t, TCP, "10.0.0.1:1", "192.0.2.1:80"), key(t, TCP, "10.0.0.2:1", "192.0.2.1:80")
	t.Run("reply by reply", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1, withReply(reply)))
		r.expect("expired:lost new", event(New, b, 2, withReply(reply)))
		r.gone(a)
		if r.flow(reply).ID != 2 {
			t.Error("the reply finds the old flow")
		}
	})
	t.Run("reply by original", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1, withReply(reply)))
		r.expect("expired:lost new", event(New, reply, 1, withReply(b)))
		r.gone(a)
		if f := r.flow(reply); f.Orig != reply || f.Reply != b {
			t.Errorf("%v finds %v", reply, f.Orig)
		}
	})
	t.Run("both at once", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1), event(New, b, 2))
		r.expect("expired:lost expired:lost new", event(New, a, 3, withReply(b.Reverse())))
		if r.Len() != 1 || r.flow(b).ID != 3 {
			t.Errorf("%d flows, and the reply's tuple finds id %d", r.Len(), r.flow(b).ID)
		}
	})
	t.Run("destroy of who has the reply as original", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1, withReply(reply)))
		r.expect("", event(Destroy, reply, 1))
		if r.flow(a).ID != 1 {
			t.Error("another flow's end took this one away")
		}
	})
}

func TestAll(t *testing.T) {
	r := newRig(t)
	for range r.All() {
		t.Fatal("an empty table yields a flow")
	}
	const n = 3 * chunkSize
	want := map[uint32]bool{}
	for i := range uint32(n) {
		r.Apply(nil, event(New, numbered(i), i), r.now)
		want[i] = true
	}
	for i := uint32(0); i < n; i += 3 {
		r.Apply(nil, event(Destroy, numbered(i), i), r.now)
		delete(want, i)
	}
	for f := range r.All() {
		if !want[f.ID] || f.Orig != numbered(f.ID) {
			t.Fatalf("yields flow %d, %v: not there, or yielded before", f.ID, f.Orig)
		}
		delete(want, f.ID)
	}
	if len(want) != 0 {
		t.Errorf("%d flows not yielded", len(want))
	}
	for range r.All() {
		break // must not go on
	}
}

// Free slots without end are passed over, and not under one lock.
func TestAllPassesOverFreeSlots(t *testing.T) {
	r := newRig(t)
	const n = 2*stretchSlots + 5
	for i := range uint32(n) {
		r.Apply(nil, event(New, numbered(i), i), r.now)
	}
	for i := range uint32(n - 1) {
		r.Apply(nil, event(Destroy, numbered(i), i), r.now)
	}
	var buf [8]Flow
	if got, next := r.stretch(0, buf[:]); got != 0 || next != stretchSlots {
		t.Errorf("one stretch: %d flows, up to slot %d, want none up to %d", got, next, stretchSlots)
	}
	var got []uint32
	for f := range r.All() {
		got = append(got, f.ID)
	}
	if !slices.Equal(got, []uint32{n - 1}) {
		t.Errorf("yields %v, want the last one alone", got)
	}
}

// numbered returns one of many different tuples.
func numbered(i uint32) Key {
	k := Key{SrcPort: uint16(i), DstPort: 443, Family: IPv4, Proto: TCP}
	copy(k.Src[:], []byte{10, byte(i >> 24), byte(i >> 16), byte(i >> 8)})
	copy(k.Dst[:], []byte{192, 0, 2, byte(i)})
	return k
}
