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
	tab := NewTable()
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

func BenchmarkJournal(b *testing.B) {
	j, batch := NewJournal(1<<16), make([]Change, 64)
	b.ReportAllocs()
	for b.Loop() {
		j.Append(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(batch)), "ns/change")
}
