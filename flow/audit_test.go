package flow

import "testing"

// audit checks what must hold between any two calls: gauges equal a recount,
// every flow is found by both its keys and stands in the wheel once, and index,
// wheel, pool and slab hold nothing else.
func audit(t testing.TB, tab *Table) {
	t.Helper()
	var want Stats
	links, leaving, pressing := 0, 0, 0
	users := map[uint32]uint32{}
	for slot := range tab.slab.next {
		if !tab.slab.used(slot) {
			continue
		}
		r := tab.slab.at(slot)
		recount(&want, r)
		links++
		if r.reply() != r.orig {
			links++
		}
		for _, k := range []Key{r.orig, r.reply()} {
			if got, ok := tab.lookup(&k); !ok || got != slot {
				t.Fatalf("key %v finds slot %d (%v), want %d", k, got, ok, slot)
			}
		}
		if r.state < r.deriveState() {
			t.Fatalf("flow %v is %v, and should be %v", r.orig, r.state, r.deriveState())
		}
		if r.reason != ReasonNone {
			leaving++
		}
		if r.bits.has(pressed) {
			pressing++
		}
		if r.labels != 0 {
			users[r.labels]++
		}
	}
	if tab.leaving != leaving || tab.pressed != pressing {
		t.Fatalf("%d leaving and %d pressed, recount %d and %d", tab.leaving, tab.pressed, leaving, pressing)
	}
	auditStats(t, tab, &want)
	auditWheel(t, tab)
	auditPool(t, tab, users)
	if used := tab.index.entries(); used != links {
		t.Fatalf("index has %d entries, flows have %d keys", used, links)
	}
	if n := tab.stats.Flows; int(tab.slab.next) != len(tab.slab.free)+n {
		t.Fatalf("slab: %d slots, %d free, %d flows", tab.slab.next, len(tab.slab.free), n)
	}
}

func auditStats(t testing.TB, tab *Table, want *Stats) {
	t.Helper()
	got := tab.Stats()
	if got.Flows != want.Flows || got.Offloaded != want.Offloaded || got.Hardware != want.Hardware ||
		got.Candidates != want.Candidates || got.HalfOpen != want.HalfOpen {
		t.Fatalf("gauges %+v, recount %+v", got, want)
	}
	ended := uint64(0)
	for _, n := range got.Ended {
		ended += n
	}
	if got.Created != ended+uint64(got.Flows) {
		t.Fatalf("%d created, but %d ended and %d there", got.Created, ended, got.Flows)
	}
}

// auditWheel walks every list from both ends.
func auditWheel(t testing.TB, tab *Table) {
	t.Helper()
	in := map[uint32]bool{}
	for n := range tab.wheel.buckets {
		if tab.wheel.buckets[n] == (bucket{}) {
			continue
		}
		bucketSound(t, &tab.wheel, uint32(n), func(slot uint32) {
			r := tab.slab.at(slot)
			if in[slot] || !tab.slab.used(slot) {
				t.Fatalf("slot %d: in the wheel twice %v, used %v", slot, in[slot], tab.slab.used(slot))
			}
			in[slot] = true
			if c := class(n / (wheelLevels * wheelSlots)); c != r.class() {
				t.Fatalf("flow %v (%v, reason %v, bits %b) stands in class %d, is of %d", r.orig, r.state, r.reason, r.bits, c, r.class())
			}
		})
	}
	if len(in) != tab.stats.Flows {
		t.Fatalf("%d flows in the wheel, %d there", len(in), tab.stats.Flows)
	}
}

// bucketSound fails unless the links of a bucket agree both ways, and each flow
// stands where its tick belongs. It is no Helper: that costs more than all the rest.
func bucketSound(t testing.TB, w *wheel, n uint32, each func(slot uint32)) {
	b := w.buckets[n]
	if (b.head == 0) != (b.tail == 0) {
		t.Fatalf("bucket %d: head %d, tail %d", n, b.head, b.tail)
	}
	before := n | atEnd
	for link := b.head; link != 0 && link&atEnd == 0; {
		r := w.slab.at(link - 1)
		if r.prev != before {
			t.Fatalf("bucket %d: slot %d comes after %x, and has %x before it", n, link-1, before, r.prev)
		}
		level := n / wheelSlots % wheelLevels
		if got := bucketOf(class(n/(wheelLevels*wheelSlots)), level, r.armed); got != n {
			t.Fatalf("slot %d armed for %d stands in bucket %d, belongs into %d", link-1, r.armed, n, got)
		}
		if wait := int32(r.armed - w.now); wait < 0 || wait>>(wheelBits*level) > wheelSlots {
			t.Fatalf("slot %d at level %d is armed for %d, and it is %d", link-1, level, r.armed, w.now)
		}
		each(link - 1)
		if r.next&atEnd != 0 && (r.next != n|atEnd || b.tail != link) {
			t.Fatalf("bucket %d ends at slot %d with %x, its tail is %d", n, link-1, r.next, b.tail)
		}
		before, link = link, r.next
	}
}

func auditPool(t testing.TB, tab *Table, users map[uint32]uint32) {
	t.Helper()
	p := &tab.labels
	for ref, n := range users {
		if v := p.values[ref]; v.users != n || p.refs[v.value] != ref {
			t.Fatalf("labels %x have %d users, counted %d; found under %d, want %d", v.value, v.users, n, p.refs[v.value], ref)
		}
	}
	if len(p.refs) != len(users) {
		t.Fatalf("%d labels kept, %d in use", len(p.refs), len(users))
	}
	if n := max(1, len(p.values)) - 1; n != len(p.refs)+len(p.free) {
		t.Fatalf("%d labels, %d of them kept and %d free", n, len(p.refs), len(p.free))
	}
}

func recount(s *Stats, r *record) {
	s.Flows++
	switch r.path() {
	case OffloadHardware:
		s.Hardware++
		s.Offloaded++
	case OffloadSoftware:
		s.Offloaded++
	}
	switch r.state {
	case StateClosed:
		s.Candidates++
	case StateNew:
		s.HalfOpen++
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
