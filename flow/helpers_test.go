package flow

import (
	"net/netip"
	"strings"
	"testing"
)

// ages are lifetimes in seconds. A port's holds for established flows.
type ages struct {
	established, idle, unreplied, handshake, halfClosed, closing int64
	ports                                                        map[uint16]int64
}

// usual are the policy's defaults.
var usual = &ages{established: 7440, idle: 180, unreplied: 30, handshake: 30, halfClosed: 900, closing: 5}

func (a *ages) Lifetime(p Proto, port uint16, s State) int64 {
	life := a.idle
	if p == TCP {
		life = a.established
	}
	if own, ok := a.ports[port]; ok {
		life = own
	}
	switch {
	case s == StateClosed:
		life = a.closing
	case s == StateClosing:
		life = a.halfClosed
	case s == StateNew && p == TCP:
		life = a.handshake
	case s == StateNew:
		life = min(life, a.unreplied)
	}
	return life * second
}

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
	return &rig{TB: t, Table: NewTable(usual, DefaultTimers), now: 1_000_000 * second}
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
	return f
}

// closedReason returns how a flow that is there came to be closed.
func (r *rig) closedReason(k Key) Reason {
	r.Helper()
	slot, ok := r.lookup(&k)
	if !ok {
		r.Fatalf("no flow %v", k)
	}
	return r.slab.at(slot).closedReason()
}

// gone fails if a tuple finds a flow.
func (r *rig) gone(k Key) {
	r.Helper()
	if f, ok := r.Find(k); ok {
		r.Fatalf("flow %v id %d is there, want none", f.Orig, f.ID)
	}
}
