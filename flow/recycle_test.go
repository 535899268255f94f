package flow

import (
	"fmt"
	"testing"
)

// herd is a table of many flows whose kernel answers and deletes at once.
type herd struct {
	*rig
	alive map[uint32]bool // ids of flows that a read shows new packets of
	tally map[uint32]uint64
	ended map[uint32]Change
	reads map[uint32]int
	most  int // flows there ever were after a Sweep was obeyed
}

func newHerd(t testing.TB, limit int) *herd {
	h := &herd{rig: newRig(t), alive: map[uint32]bool{}, tally: map[uint32]uint64{}, ended: map[uint32]Change{}, reads: map[uint32]int{}}
	h.SetLimit(limit)
	return h
}

// tell applies an event and has the requests that follow obeyed.
func (h *herd) tell(ev *Event) {
	for _, c := range h.Apply(nil, ev, h.now) {
		if c.Kind.Ends() {
			h.ended[c.Flow.ID] = c
		}
	}
}

func (h *herd) settle() {
	for {
		actions, more := h.Sweep(nil, h.now, 64)
		for _, a := range actions {
			f, ok := h.Find(a.Orig)
			switch {
			case !ok || f.ID != a.ID:
			case a.Verb == Remove:
				h.tell(event(Destroy, a.Orig, a.ID))
			case a.Verb == Read:
				h.reads[a.ID]++
				if h.alive[a.ID] {
					h.tally[a.ID]++
				}
				opts := []opt{withStatus(f.Status), withCounters(h.tally[a.ID], h.tally[a.ID])}
				if f.Orig.Proto == TCP && f.Offload() == OffloadNone {
					opts = append(opts, withTCP(f.TCP))
				}
				h.tell(event(Answer, a.Orig, a.ID, opts...))
			}
		}
		if !more && len(actions) == 0 {
			break
		}
	}
	h.most = max(h.most, h.Len())
}

// pass lets time go by.
func (h *herd) pass(ns int64) {
	for end := h.now + ns; h.now < end; {
		h.now += 250_000_000
		h.settle()
	}
}

func (h *herd) add(from, n uint32, opts ...opt) {
	for i := from; i < from+n; i++ {
		h.tell(event(New, numbered(i), i, opts...))
		h.settle()
	}
}

func (h *herd) there(from, n uint32) (left int) {
	for i := from; i < from+n; i++ {
		if _, ok := h.ended[i]; !ok {
			left++
		}
	}
	return left
}

// A flood of connections that are never answered pushes out itself, and no flow
// that lives; candidates go before.
func TestRecycleFlood(t *testing.T) {
	h := newHerd(t, 1000)
	h.add(0, 300, withStatus(offload))
	h.add(1000, 100, withStatus(replied), withTCP(TCPTimeWait))
	for i := range uint32(300) {
		h.alive[i] = true
	}
	h.add(10_000, 5000, withTCP(TCPSynSent), withTimeout(120))
	if n := h.there(0, 300); n != 300 {
		t.Errorf("%d of 300 living flows are left", n)
	}
	if n := h.there(1000, 100); n != 0 {
		t.Errorf("%d candidates are left", n)
	}
	if n := h.there(14_500, 500); n != 500 {
		t.Errorf("%d of the newest 500 are left: the oldest had to go", n)
	}
	if h.most > 1000 {
		t.Errorf("%d flows, the limit is 1000", h.most)
	}
	for id, c := range h.ended {
		if c.Kind != Recycled || c.Reason != ReasonRecycled {
			t.Fatalf("flow %d ended as %v, %v", id, c.Kind, c.Reason)
		}
	}
	audit(t, h.Table)
}

// Candidates go first, then what was never answered, then what has the least life
// left: each class until nothing of it is left.
func TestRecycleOrder(t *testing.T) {
	h := newHerd(t, 0)
	h.add(0, 100, withStatus(replied), withTCP(TCPEstablished)) // 7440 s
	h.add(100, 100, withStatus(replied), withTCP(TCPFinWait))   // 900 s
	h.add(200, 100, withTCP(TCPSynSent))
	h.add(300, 100, withStatus(replied), withTCP(TCPTimeWait))
	for step, want := range [][4]int{{100, 100, 100, 50}, {100, 100, 100, 0}, {100, 100, 50, 0}, {100, 100, 0, 0}, {100, 50, 0, 0}, {100, 0, 0, 0}, {50, 0, 0, 0}} {
		h.SetLimit(350 - 50*step)
		h.settle()
		got := [4]int{h.there(0, 100), h.there(100, 100), h.there(200, 100), h.there(300, 100)}
		if got != want {
			t.Fatalf("limit %d: %v are left, want %v", 350-50*step, got, want)
		}
	}
}

// Of one class those go whose life is over first, whatever lifetimes they have.
func TestRecycleLeastLifeFirst(t *testing.T) {
	h := newHerd(t, 0)
	lives := []uint32{60, 90, 300, 20_000, 100_000}
	for i, own := range lives {
		h.add(uint32(100*i), 100, withStatus(replied), withTCP(TCPEstablished))
		for j := range uint32(100) {
			h.SetLifetime(h.flow(numbered(uint32(100*i)+j)).Handle, own)
		}
	}
	for i := range lives[1:] {
		h.SetLimit(400 - 100*i)
		h.settle()
		for j := range lives {
			want := 100
			if j <= i {
				want = 0
			}
			if got := h.there(uint32(100*j), 100); got != want {
				t.Fatalf("limit %d: %d flows of %d s are left, want %d", 400-100*i, got, lives[j], want)
			}
		}
	}
}

// Where all live something has to go all the same, and nobody is asked for without end.
func TestRecycleAllAlive(t *testing.T) {
	h := newHerd(t, 100)
	for i := range uint32(2000) {
		h.alive[i] = true
	}
	h.add(0, 300, withStatus(offload))
	if h.most > 100 {
		t.Errorf("%d flows, the limit is 100", h.most)
	}
	if n := h.there(0, 300); n < 80 || n > 100 {
		t.Errorf("%d flows are left", n)
	}
	most := 0
	for _, n := range h.reads {
		most = max(most, n)
	}
	if most > 20 {
		t.Errorf("a flow was asked for %d times", most)
	}
	audit(t, h.Table)
}

// A limit that is taken away leaves everything as it is.
func TestRecycleNoLimit(t *testing.T) {
	h := newHerd(t, 10)
	h.add(0, 10, withStatus(offload))
	h.SetLimit(0)
	h.add(100, 500, withStatus(offload))
	if n := h.Len(); n < 500 {
		t.Errorf("%d flows without a limit", n)
	}
}

// With the table filling lifetimes shorten, to a third at the most, and flows that
// are there already are looked at in time for that.
func TestPressure(t *testing.T) {
	for _, tc := range []struct{ flows, shortened int }{{600, 0}, {700, 16}, {800, 33}, {900, 50}, {999, 62}} {
		t.Run(fmt.Sprint(tc.flows), func(t *testing.T) {
			h := newHerd(t, 0)
			h.add(0, uint32(tc.flows), withStatus(replied))
			h.pass(second)
			h.SetLimit(1000)
			h.pass(2 * second)
			if got := h.Stats().Shortened; got != tc.shortened {
				t.Errorf("shortened by %d %%, want %d", got, tc.shortened)
			}
			f := h.flow(numbered(0))
			if want := usual.Lifetime(TCP, 443, StateEstablished) * int64(100-tc.shortened) / 100; f.Lifetime < want-100*second || f.Lifetime > want+100*second {
				t.Errorf("lifetime %d s, want %d s", f.Lifetime/second, want/second)
			}
		})
	}
}

// Flows armed for their whole lifetime end in the shortened one.
func TestPressureRearms(t *testing.T) {
	h := newHerd(t, 0)
	h.Table.ageing = &ages{established: 300, idle: 300, unreplied: 300, handshake: 300, halfClosed: 300, closing: 5}
	h.add(0, 800, withStatus(replied))
	first := h.now
	h.SetLimit(1000)
	h.pass(195 * second) // a third less
	if n := h.Len(); n != 800 {
		t.Fatalf("%d of 800 flows left after %d s", n, (h.now-first)/second)
	}
	h.pass(10 * second)
	if n := h.Len(); n == 800 || n == 0 {
		t.Fatalf("%d of 800 flows left after %d s: some must go, and give the rest time", n, (h.now-first)/second)
	}
	h.pass(100 * second)
	if n := h.Len(); n != 0 {
		t.Fatalf("%d of 800 flows left after %d s", n, (h.now-first)/second)
	}
	if got := h.Stats().Shortened; got != 0 {
		t.Errorf("still shortened by %d %% with %d flows", got, h.Len())
	}
	for _, c := range h.ended {
		if c.Reason != ReasonIdle || c.Kind != Expired {
			t.Fatalf("ended as %v, %v", c.Kind, c.Reason)
		}
	}
}
