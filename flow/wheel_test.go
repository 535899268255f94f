package flow

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// dueAt is what a plain list knows of a flow in the wheel.
type dueAt struct {
	slot  uint32
	class class
	at    uint32
}

// wheelRig is a wheel and a plain list.
type wheelRig struct {
	slab  slab
	wheel wheel
	list  []dueAt
}

func newWheelRig(now uint32) *wheelRig {
	w := &wheelRig{}
	w.wheel.slab, w.wheel.now = &w.slab, now
	return w
}

func (w *wheelRig) insert(c class, at uint32) uint32 {
	slot := w.slab.take()
	w.wheel.insert(slot, c, at)
	if int32(at-w.wheel.now) < 0 {
		at = w.wheel.now
	}
	w.list = append(w.list, dueAt{slot, c, at})
	return slot
}

func (w *wheelRig) remove(i int) {
	w.wheel.remove(w.list[i].slot)
	w.slab.put(w.list[i].slot)
	w.list = slices.Delete(w.list, i, i+1)
}

// pop takes out what is due, some flows a call, and fails unless it comes in the
// order of ticks and is all that the list has.
func (w *wheelRig) pop(t testing.TB, to uint32, max int) {
	var want, got []dueAt
	for _, d := range w.list {
		if int32(d.at-to) <= 0 {
			want = append(want, d)
		}
	}
	last := w.wheel.now
	for idle := 0; idle < 2; {
		budget := max
		slot, ok := w.wheel.pop(to, &budget)
		if budget < max-1-wheelLevels*len(w.list) || budget < 0 {
			t.Fatalf("budget %d of %d", budget, max)
		}
		if !ok {
			if budget > 0 {
				idle++
			}
			continue
		}
		i := slices.IndexFunc(w.list, func(d dueAt) bool { return d.slot == slot })
		if d := w.list[i]; d.at != w.wheel.now || int32(d.at-last) < 0 {
			t.Fatalf("slot %d, due at %d, comes at %d after %d", slot, d.at, w.wheel.now, last)
		}
		last = w.wheel.now
		got = append(got, w.list[i])
		w.list = slices.Delete(w.list, i, i+1)
		w.slab.put(slot)
	}
	bySlot := func(a, b dueAt) int { return cmp.Compare(a.slot, b.slot) }
	slices.SortFunc(want, bySlot)
	slices.SortFunc(got, bySlot)
	if !slices.Equal(got, want) {
		t.Fatalf("up to %d came %v, want %v", to, got, want)
	}
	if int32(to-w.wheel.now) > 0 {
		t.Fatalf("it is %d, want %d", w.wheel.now, to)
	}
}

// sound fails unless every bucket is and the wheel holds what the list does.
func (w *wheelRig) sound(t testing.TB) {
	n := 0
	for b := range w.wheel.buckets {
		bucketSound(t, &w.wheel, uint32(b), func(slot uint32) {
			n++
			i := slices.IndexFunc(w.list, func(d dueAt) bool { return d.slot == slot })
			if i < 0 || w.list[i].class != class(b/(wheelLevels*wheelSlots)) || w.slab.at(slot).armed != w.list[i].at {
				t.Fatalf("slot %d stands in bucket %d, armed for %d", slot, b, w.slab.at(slot).armed)
			}
		})
	}
	if n != len(w.list) {
		t.Fatalf("%d flows in the wheel, want %d", n, len(w.list))
	}
}

// waits draws how long a flow waits: now, soon, at the borders of the levels, for a
// year and more.
func waits() *rapid.Generator[uint32] {
	borders := []uint32{0, 1, 254, 255, 256, 257, 511, 512, 65279, 65280, 65535, 65536, 65537, 1 << 24, 1<<24 - 1, 235_000_000, 1<<31 - 1}
	return rapid.OneOf(rapid.SampledFrom(borders), rapid.Uint32Range(0, 600), rapid.Uint32Range(0, 1<<17), rapid.Uint32Range(0, 1<<30))
}

// The wheel does what a plain list does, wherever it begins; 2^32 ticks are a turn.
func TestWheelAgainstList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		starts := []uint32{0, 1, 255, 256, 65535, 65536, 1<<24 - 3, 1<<31 - 5, 1<<32 - 300, 1<<32 - 1}
		w := newWheelRig(rapid.SampledFrom(starts).Draw(rt, "start"))
		tt := tb{t, rt}
		rt.Repeat(map[string]func(*rapid.T){
			"insert": func(rt *rapid.T) {
				c := class(rapid.Uint32Range(0, classes-1).Draw(rt, "class"))
				w.insert(c, w.wheel.now+waits().Draw(rt, "wait"))
			},
			"insert late": func(rt *rapid.T) { w.insert(classLive, w.wheel.now-rapid.Uint32Range(0, 1000).Draw(rt, "by")) },
			"remove": func(rt *rapid.T) {
				if len(w.list) > 0 {
					w.remove(rapid.IntRange(0, len(w.list)-1).Draw(rt, "which"))
				}
			},
			"pop": func(rt *rapid.T) {
				by := rapid.OneOf(rapid.Uint32Range(0, 600), rapid.Uint32Range(0, 1<<18)).Draw(rt, "by")
				w.pop(tt, w.wheel.now+by, rapid.SampledFrom([]int{1, 2, 5, 1000}).Draw(rt, "max"))
			},
			"pop the next": func(rt *rapid.T) {
				if len(w.list) == 0 {
					return
				}
				next := slices.MinFunc(w.list, func(a, b dueAt) int { return cmp.Compare(a.at-w.wheel.now, b.at-w.wheel.now) })
				if next.at-w.wheel.now < 1<<20 { // each tick on the way is looked at
					w.pop(tt, next.at, 3)
				}
			},
			"": func(*rapid.T) { w.sound(tt) },
		})
	})
}

// A flow that waits for a year comes after a year, to the tick.
func TestWheelYear(t *testing.T) {
	if testing.Short() {
		t.Skip("looks at each tick of a year")
	}
	const year = uint32(365 * 86400 * second >> tickShift)
	w := newWheelRig(1<<32 - 1000)
	start := w.wheel.now
	w.insert(classLive, start+year)
	w.insert(classLive, start+year+1)
	w.insert(classCandidate, start+year-1)
	w.pop(t, start+year-2, 10)
	w.pop(t, start+year-1, 10)
	w.pop(t, start+year, 10)
	w.pop(t, start+year+1, 10)
}

// Flows of one tick come in the order in which they were inserted, even where they
// waited in coarse buckets.
func TestWheelFirstInFirstOut(t *testing.T) {
	for _, wait := range []uint32{3, 255, 256, 1000, 65536, 100_000, 1 << 24} {
		w := newWheelRig(77)
		var want []uint32
		for range 50 {
			want = append(want, w.insert(classLive, 77+wait))
		}
		for _, slot := range want {
			budget := 1000
			got, ok := w.wheel.pop(77+wait, &budget)
			if !ok || got != slot {
				t.Fatalf("wait of %d: slot %d (%v) comes, want %d", wait, got, ok, slot)
			}
		}
	}
}

// A bucket of any size is worked off in pieces, which move or return no more flows
// than they are told to.
func TestWheelBudget(t *testing.T) {
	for _, wait := range []uint32{5, 1000, 70_000} {
		t.Run(fmt.Sprint(wait), func(t *testing.T) {
			w := newWheelRig(0)
			const n = 1000
			for range n {
				w.insert(classLive, wait)
			}
			calls, came := 0, 0
			for came < n {
				budget := 10
				for {
					_, ok := w.wheel.pop(wait, &budget)
					if !ok {
						break
					}
					came++
				}
				calls++
				if budget != 0 && came < n {
					t.Fatalf("stopped with %d to spare, after %d flows", budget, came)
				}
			}
			if want := n / 10 * wheelLevels; calls > want {
				t.Errorf("%d calls of 10 for %d flows, want at most %d", calls, n, want)
			}
		})
	}
}

// first finds the flow of a class whose time comes first; of flows that wait in one
// coarse bucket, one of those.
func TestWheelFirst(t *testing.T) {
	earlier := func(a, b *record) bool { return int32(a.armed-b.armed) < 0 }
	for name, tc := range map[string]struct{ now, ago, first, second uint32 }{
		"two ticks":                     {0, 0, 5, 6},
		"two levels":                    {0, 0, 255, 256},
		"behind the turn of level 0":    {200, 190, 300, 450},
		"coarse ones":                   {0, 0, 1000, 3000},
		"behind the turn of level 1":    {65500, 0, 66000, 66500},
		"two coarse levels":             {65500, 65500, 65540, 125_500},
		"a whole turn away":             {1, 0, 2, 65536},
		"the last before a turn":        {255, 200, 256, 511},
		"where the ticks begin anew":    {1<<32 - 100, 0, 1<<32 - 50, 20},
		"where they begin anew, coarse": {1<<32 - 100, 0, 300, 900},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWheelRig(tc.now)
			w.wheel.now = tc.now - tc.ago // it was far away when it was inserted
			want := w.insert(classLive, tc.first)
			for to := w.wheel.now; to != tc.now; {
				to++
				budget := 10
				w.wheel.pop(to, &budget)
			}
			w.insert(classLive, tc.second)
			w.insert(classHalfOpen, tc.now+1)
			got, ok := w.wheel.first(classLive, earlier)
			if !ok || got != want {
				t.Errorf("first is slot %d (%v), want %d", got, ok, want)
			}
			if _, ok := w.wheel.first(classCandidate, earlier); ok {
				t.Error("a class without flows has a first one")
			}
		})
	}
}
