package flow

import (
	"net/netip"
	"strings"
	"testing"
)

// second is a second of the table's time.
const second = int64(1e9)

// key makes the Key of two "address:port" texts.
func key(t testing.TB, proto Proto, src, dst string) Key {
	t.Helper()
	k, err := MakeKey(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), 0)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ptr[T any](v T) *T { return &v }

// opt sets an optional field of an event.
type opt func(*Event)

func withReply(k Key) opt { return func(ev *Event) { ev.Reply = k; ev.Has |= HasReply } }

func withStatus(s Status) opt { return func(ev *Event) { ev.Status = s; ev.Has |= HasStatus } }

func withTCP(s TCPState) opt { return func(ev *Event) { ev.TCP = s; ev.Has |= HasTCP } }

func withMark(m uint32) opt { return func(ev *Event) { ev.Mark = m; ev.Has |= HasMark } }

func withTimeout(s uint32) opt { return func(ev *Event) { ev.Timeout = s; ev.Has |= HasTimeout } }

func withStart(ns int64) opt { return func(ev *Event) { ev.Start = ns; ev.Has |= HasStart } }

func withLabel(n int) opt {
	return func(ev *Event) { ev.Labels[n/8] |= 1 << (n % 8); ev.Has |= HasLabels }
}

func withCounters(orig, reply uint64) opt {
	return func(ev *Event) {
		ev.Packets, ev.Bytes = [2]uint64{orig, reply}, [2]uint64{orig * 100, reply * 100}
		ev.Has |= HasCounters
	}
}

// without takes fields away that event has set.
func without(has Has) opt { return func(ev *Event) { ev.Has &^= has } }

// event makes an event as the kernel sends them: with id and both tuples.
func event(kind Kind, orig Key, id uint32, opts ...opt) *Event {
	ev := &Event{Kind: kind, Orig: orig, Reply: orig.Reverse(), ID: id, Has: HasReply | HasID}
	for _, o := range opts {
		o(ev)
	}
	return ev
}

// sighting is a FIN or RST as the tap reports it: a tuple and nothing else.
func sighting(kind Kind, k Key) *Event { return &Event{Kind: kind, Orig: k} }

var (
	syncStart   = &Event{Kind: SyncStart}
	syncEnd     = &Event{Kind: SyncEnd}
	syncPartial = &Event{Kind: SyncEnd, Has: Partial}
)

// rig is a table under test and its clock.
type rig struct {
	testing.TB
	*Table
	now  int64
	last []Change // what the last apply changed
}

func newRig(t testing.TB) *rig {
	return &rig{TB: t, Table: NewTable(), now: 1_000_000 * second}
}

// apply takes events in, one second apart, audits the table after each, and
// returns the names of the changes; an end has its reason behind a colon.
func (r *rig) apply(events ...*Event) string {
	r.Helper()
	r.last = nil
	for _, ev := range events {
		r.now += second
		r.last = r.Apply(r.last, ev, r.now)
		audit(r, r.Table)
	}
	return changeNamesOf(r.last)
}

func changeNamesOf(changes []Change) string {
	var words []string
	for i := range changes {
		w := changes[i].Kind.String()
		if changes[i].Kind.Ends() {
			w += ":" + changes[i].Reason.String()
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// expect applies events and fails unless they change what is wanted.
func (r *rig) expect(want string, events ...*Event) {
	r.Helper()
	if got := r.apply(events...); got != want {
		r.Fatalf("changes %q, want %q", got, want)
	}
}

// flow returns the flow of a tuple, which must be there.
func (r *rig) flow(k Key) Flow {
	r.Helper()
	f, ok := r.Find(k)
	if !ok {
		r.Fatalf("no flow %v", k)
	}
	f.stamped = false // Start tells
	return f
}

// gone fails if a tuple finds a flow.
func (r *rig) gone(k Key) {
	r.Helper()
	if f, ok := r.Find(k); ok {
		r.Fatalf("flow %v id %d is there, want none", f.Orig, f.ID)
	}
}

// audit checks what must hold between any two events: gauges equal a recount,
// every flow is found by both its keys, and index and slab hold nothing else.
func audit(t testing.TB, tab *Table) {
	t.Helper()
	var want Stats
	links := 0
	for slot := range tab.slab.next {
		if !tab.slab.used(slot) {
			continue
		}
		f := tab.slab.at(slot)
		recount(&want, f)
		links++
		if f.Reply != f.Orig {
			links++
		}
		for _, k := range []Key{f.Orig, f.Reply} {
			if got, ok := tab.lookup(&k); !ok || got != slot {
				t.Fatalf("key %v finds slot %d (%v), want %d", k, got, ok, slot)
			}
		}
		if f.Candidate != (f.State == StateClosed) {
			t.Fatalf("flow %v: state %v, candidate %v", f.Orig, f.State, f.Candidate)
		}
	}
	got := tab.Stats()
	if got.Flows != want.Flows || got.Offloaded != want.Offloaded || got.Hardware != want.Hardware || got.Candidates != want.Candidates {
		t.Fatalf("gauges %+v, recount %+v", got, want)
	}
	ended := uint64(0)
	for _, n := range got.Ended {
		ended += n
	}
	if got.Created != ended+uint64(got.Flows) {
		t.Fatalf("%d created, but %d ended and %d there", got.Created, ended, got.Flows)
	}
	if used := tab.index.entries(); used != links {
		t.Fatalf("index has %d entries, flows have %d keys", used, links)
	}
	if int(tab.slab.next) != len(tab.slab.free)+got.Flows {
		t.Fatalf("slab: %d slots, %d free, %d flows", tab.slab.next, len(tab.slab.free), got.Flows)
	}
}

func recount(s *Stats, f *Flow) {
	s.Flows++
	switch f.Offload() {
	case OffloadHardware:
		s.Hardware++
		s.Offloaded++
	case OffloadSoftware:
		s.Offloaded++
	}
	if f.Candidate {
		s.Candidates++
	}
}

// entries counts what the shards hold, and not what they say they hold.
func (x *index) entries() int {
	n := 0
	for i := range x.shards {
		for _, e := range x.shards[i].entries {
			if e != 0 {
				n++
			}
		}
	}
	return n
}
