package engine

import (
	"sync"

	"flowd/flow"
)

// Rates are how often things happened, in one second, over the last ten or so.
type Rates struct {
	Created, Offloads, Ended, Recycled float64
	Packets, OffloadedPackets          float64
}

const (
	ratesSpan = 10         // s over which rates are taken
	second    = int64(1e9) // ns
)

// rates remembers the table's counts of the last seconds.
type rates struct {
	mu   sync.Mutex
	ring [ratesSpan + 1]counts
	n    int // how many have ever been noted
}

// counts are what a table has counted by a time, in ns.
type counts struct {
	at int64
	s  flow.Stats
}

// note remembers the counts, once a second.
func (r *rates) note(t *flow.Table, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n > 0 && now < r.newest().at+second {
		return
	}
	r.ring[r.n%len(r.ring)] = counts{now, t.Stats()}
	r.n++
}

func (r *rates) newest() *counts { return &r.ring[(r.n-1)%len(r.ring)] }

// Rates returns them as of the last second.
func (e *Engine) Rates() Rates {
	r := &e.rates
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n < 2 {
		return Rates{}
	}
	oldest := &r.ring[0]
	if r.n > len(r.ring) {
		oldest = &r.ring[r.n%len(r.ring)]
	}
	a, b := &oldest.s, &r.newest().s
	span := float64(r.newest().at-oldest.at) / float64(second)
	per := func(from, to uint64) float64 { return float64(to-from) / span }
	return Rates{
		Created: per(a.Created, b.Created), Offloads: per(a.Offloads, b.Offloads),
		Ended: per(ended(a), ended(b)), Recycled: per(a.Ended[flow.ReasonRecycled], b.Ended[flow.ReasonRecycled]),
		Packets:          per(a.Packets, b.Packets),
		OffloadedPackets: per(a.OffloadedPackets, b.OffloadedPackets),
	}
}

func ended(s *flow.Stats) (n uint64) {
	for _, of := range s.Ended {
		n += of
	}
	return n
}
