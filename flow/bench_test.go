package flow

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

var huge = flag.Bool("huge", false, "benchmark tables of 4 million flows too, which take some 2 GB")

// sizes runs a benchmark on tables of each size.
func sizes(b *testing.B, run func(b *testing.B, n uint32)) {
	for _, n := range []uint32{1_000_000, 4_000_000} {
		if n > 1_000_000 && !*huge {
			continue
		}
		b.Run(fmt.Sprintf("flows=%dM", n/1_000_000), func(b *testing.B) {
			b.ReportAllocs()
			run(b, n)
		})
	}
}

// scattered turns 0, 1, 2 ... n-1 into all of them in no order, so that caches
// help no more than they do on a router. 1<<32 and an odd number have no
// common divisor; what falls outside of n is turned again.
func scattered(i, n uint32) uint32 {
	bits := uint32(1)
	for bits < n {
		bits <<= 1
	}
	for i = i * 2654435769 & (bits - 1); i >= n; {
		i = i * 2654435769 & (bits - 1)
	}
	return i
}

// filled returns a table of n flows in the flowtable.
func filled(n uint32) *Table {
	tab := NewTable(usual, DefaultTimers)
	var buf []Change
	for i := range n {
		buf = tab.Apply(buf[:0], event(New, numbered(i), i, withStatus(offload)), second)
	}
	return tab
}

func BenchmarkInsert(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		tab, buf := filled(n), make([]Change, 0, 8)
		ev := event(New, Key{}, 0, withStatus(offload))
		i := uint32(0)
		for b.Loop() {
			if i%(n/4) == 0 && i > 0 {
				b.StopTimer() // no table grows out of its size
				tab = filled(n)
				b.StartTimer()
			}
			ev.Orig, ev.ID = numbered(n+i%(n/4)), n+i
			ev.Reply = ev.Orig.Reverse()
			buf = tab.Apply(buf[:0], ev, second)
			i++
		}
	})
}

// benchApply times one event on flows of a full table in no order.
func benchApply(b *testing.B, kind Kind, opts ...opt) {
	sizes(b, func(b *testing.B, n uint32) {
		tab, buf := filled(n), make([]Change, 0, 8)
		ev := event(kind, Key{}, 0, opts...)
		i := uint32(0)
		for b.Loop() {
			ev.ID = scattered(i%n, n)
			ev.Orig = numbered(ev.ID)
			ev.Packets[0]++
			buf = tab.Apply(buf[:0], ev, second)
			i++
		}
	})
}

func BenchmarkUpdate(b *testing.B) { benchApply(b, Update, withStatus(replied), without(HasReply)) }

func BenchmarkSample(b *testing.B) { benchApply(b, Sample, withStatus(offload), withCounters(1, 1)) }

// BenchmarkDestroy has each flow come again, so that the table stays full; the
// time of that is not counted.
func BenchmarkDestroy(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		tab, buf := filled(n), make([]Change, 0, 8)
		end, again := event(Destroy, Key{}, 0), event(New, Key{}, 0)
		i := uint32(0)
		for b.Loop() {
			if i%n == 0 && i > 0 {
				b.StopTimer()
				for j := range n {
					again.ID, again.Orig, again.Reply = j, numbered(j), numbered(j).Reverse()
					buf = tab.Apply(buf[:0], again, second)
				}
				b.StartTimer()
			}
			end.ID = scattered(i%n, n)
			end.Orig = numbered(end.ID)
			buf = tab.Apply(buf[:0], end, second)
			i++
		}
	})
}

func benchFind(b *testing.B, hit bool) {
	sizes(b, func(b *testing.B, n uint32) {
		tab := filled(n)
		i := uint32(0)
		for b.Loop() {
			k := numbered(scattered(i%n, n))
			if !hit {
				k.DstPort++
			}
			if _, ok := tab.Find(k); ok != hit {
				b.Fatalf("%v found: %v", k, ok)
			}
			i++
		}
	})
}

func BenchmarkFindHit(b *testing.B) { benchFind(b, true) }

func BenchmarkFindMiss(b *testing.B) { benchFind(b, false) }

// BenchmarkAll lists the table whole.
func BenchmarkAll(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		tab := filled(n)
		for b.Loop() {
			got := uint32(0)
			for range tab.All() {
				got++
			}
			if got != n {
				b.Fatalf("%d flows", got)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/flow")
	})
}

// BenchmarkSyncEnd ends a dump that has shown every flow: the table is looked
// through under one lock.
func BenchmarkSyncEnd(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		tab := filled(n)
		for b.Loop() {
			if changes := tab.Apply(nil, syncEnd, second); len(changes) != 0 {
				b.Fatalf("%d changes", len(changes))
			}
		}
	})
}

// BenchmarkCollect times a full garbage collection with a table in memory, and
// reports what a flow takes of it.
func BenchmarkCollect(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		before := heap()
		tab := filled(n)
		size := heap() - before
		var times []time.Duration
		for b.Loop() {
			start := time.Now()
			runtime.GC()
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		b.ReportMetric(float64(size)/float64(n), "B/flow")
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "median-ms")
		runtime.KeepAlive(tab)
	})
}

// heap returns the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkWheel inserts a flow into the wheel and takes another out, of a full table.
func BenchmarkWheel(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		tab := filled(n)
		i := uint32(0)
		for b.Loop() {
			slot := scattered(i%n, n)
			tab.wheel.remove(slot)
			tab.wheel.insert(slot, classLive, tab.wheel.now+1+i%100_000)
			i++
		}
	})
}

// BenchmarkWheelPop takes flows out whose lifetimes all end within an hour; they wait
// in coarse buckets first. The rest of the time is that of moving them.
func BenchmarkWheelPop(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		const hour = uint32(3600 * second >> tickShift)
		tab := filled(n)
		var popped uint32
		to := tab.wheel.now
		again := func() {
			for slot := range n {
				tab.wheel.remove(slot)
				tab.wheel.insert(slot, classLive, tab.wheel.now+1+scattered(slot, n)%hour)
			}
			popped, to = 0, tab.wheel.now+hour
		}
		again()
		for b.Loop() {
			if popped == n {
				b.StopTimer()
				for slot := range n {
					tab.wheel.insert(slot, classLive, tab.wheel.now)
				}
				again()
				b.StartTimer()
			}
			for budget := 1000; ; budget = 1000 {
				if _, ok := tab.wheel.pop(to, &budget); ok {
					break
				}
				if budget > 0 {
					b.Fatalf("%d of %d flows come", popped, n)
				}
			}
			popped++
		}
	})
}

// BenchmarkExpire has all flows of a table fall due within one second: Sweeps of 1024
// ask for them, the answers show silence, and they are removed. longest-ms is the
// longest time that one Sweep held the table.
func BenchmarkExpire(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		var longest, sweeps time.Duration
		for b.Loop() {
			b.StopTimer()
			tab := filled(n)
			b.StartTimer()
			l, s := expireAll(b, tab)
			longest, sweeps = max(longest, l), sweeps+s
		}
		b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
		b.ReportMetric(float64(sweeps.Milliseconds())/float64(b.N), "sweeps-ms")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/flow")
	})
}

func expireAll(b *testing.B, tab *Table) (longest, sweeps time.Duration) {
	now := 2*second + usual.established*second
	var actions []Action
	var buf []Change
	answer, end := event(Answer, Key{}, 0, withStatus(offload), withCounters(0, 0)), event(Destroy, Key{}, 0)
	for tab.Len() > 0 {
		start := time.Now()
		var more bool
		actions, more = tab.Sweep(actions[:0], now, 1024)
		took := time.Since(start)
		longest, sweeps = max(longest, took), sweeps+took
		for i := range actions {
			ev := answer
			if actions[i].Verb == Remove {
				ev = end
			}
			ev.Orig, ev.ID = actions[i].Orig, actions[i].ID
			buf = tab.Apply(buf[:0], ev, now)
		}
		if !more {
			now += second / 4
		}
	}
	return longest, sweeps
}

// BenchmarkRecycle has a flow come to a full table, another be chosen for it, and
// that end.
func BenchmarkRecycle(b *testing.B) {
	sizes(b, func(b *testing.B, n uint32) {
		tab := filled(n)
		tab.Sweep(nil, 60*second, 1024)
		tab.SetLimit(int(n))
		ev := event(New, Key{}, 0, withStatus(offload))
		answer, end := event(Answer, Key{}, 0, withStatus(offload), withCounters(0, 0)), event(Destroy, Key{}, 0)
		var buf []Change
		var actions []Action
		now, i := 61*second, n
		for b.Loop() {
			ev.Orig, ev.ID = numbered(i), i
			ev.Reply = ev.Orig.Reverse()
			buf = tab.Apply(buf[:0], ev, now)
			for range 2 { // a read, and after its answer the removal
				actions, _ = tab.Sweep(actions[:0], now, 1024)
				for i := range actions {
					what := answer
					if actions[i].Verb == Remove {
						what = end
					}
					what.Orig, what.ID = actions[i].Orig, actions[i].ID
					buf = tab.Apply(buf[:0], what, now)
				}
			}
			now += 10_000
			i++
		}
		if got := uint32(tab.Len()); got > n {
			b.Fatalf("%d flows", got)
		}
	})
}

func BenchmarkJournal(b *testing.B) {
	j, batch := NewJournal(1<<16), make([]Change, 64)
	b.ReportAllocs()
	for b.Loop() {
		j.Append(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(batch)), "ns/change")
}
