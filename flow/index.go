package flow

import "hash/maphash"

// index maps the keys of both directions to slots of the slab. It is split into
// shards that grow one at a time, so that no insertion ever waits for the whole
// to be copied; each shard is open addressing with linear probing. An entry is a
// word: the low half of the key's hash, and slot and direction. Deletion shifts
// the entries behind back, so there are no tombstones to clean up.
//
// A shard grows by a quarter when it is full to seven eighths, and places an entry
// by the share of its size that the hash is of 2^32 (Lemire, 2016, "A fast
// alternative to the modulo reduction"): so it takes some 21 bytes a flow, 23 at the most.
//
// The hash is seeded per process: who chooses tuples cannot choose collisions.
type index struct {
	seed   maphash.Seed
	shards [indexShards]shard
}

const indexShards = 256

type shard struct {
	entries []uint64 // 0: free; else tag<<32 | (slot+1)<<1 | direction
	used    int
}

func newIndex() *index { return &index{seed: maphash.MakeSeed()} }

func (x *index) hash(k *Key) uint64 { return maphash.Comparable(x.seed, *k) }

func (x *index) shard(h uint64) *shard { return &x.shards[h>>56] }

func entry(h uint64, slot uint32, reply bool) uint64 {
	e := h<<32 | uint64(slot+1)<<1
	if reply {
		e |= 1
	}
	return e
}

func (s *shard) home(e uint64) int { return int(e >> 32 * uint64(len(s.entries)) >> 32) }

// after is the place behind another.
func (s *shard) after(i int) int {
	if i++; i == len(s.entries) {
		return 0
	}
	return i
}

// distance is how many places lie from one to another, going forward.
func (s *shard) distance(from, to int) int {
	if to -= from; to < 0 {
		to += len(s.entries)
	}
	return to
}

// insert adds an entry; the caller knows that the key is not there yet.
func (x *index) insert(h uint64, slot uint32, reply bool) {
	s := x.shard(h)
	if s.used*8 >= len(s.entries)*7 {
		s.grow()
	}
	s.put(entry(h, slot, reply))
}

func (s *shard) put(e uint64) {
	i := s.home(e)
	for s.entries[i] != 0 {
		i = s.after(i)
	}
	s.entries[i] = e
	s.used++
}

func (s *shard) grow() {
	old := s.entries
	s.entries = make([]uint64, max(16, len(old)+len(old)/4))
	s.used = 0
	for _, e := range old {
		if e != 0 {
			s.put(e)
		}
	}
}

// remove takes out exactly the entry of this hash, slot and direction.
func (x *index) remove(h uint64, slot uint32, reply bool) {
	s := x.shard(h)
	if len(s.entries) == 0 {
		return
	}
	want := entry(h, slot, reply)
	i := s.home(want)
	for s.entries[i] != want {
		if s.entries[i] == 0 {
			return
		}
		i = s.after(i)
	}
	s.used--
	for j := s.after(i); s.entries[j] != 0; j = s.after(j) {
		// The entry at j may move into the hole at i when its home does not lie
		// cyclically in (i, j].
		if home := s.home(s.entries[j]); s.distance(home, j) >= s.distance(i, j) {
			s.entries[i] = s.entries[j]
			i = j
		}
	}
	s.entries[i] = 0
}

// find calls match for each slot that may hold the key, until one does.
func (x *index) find(h uint64, match func(slot uint32, reply bool) bool) (uint32, bool) {
	s := x.shard(h)
	if len(s.entries) == 0 {
		return 0, false
	}
	tag := h << 32
	for i := s.home(tag); s.entries[i] != 0; i = s.after(i) {
		e := s.entries[i]
		if e>>32 != tag>>32 {
			continue
		}
		slot := uint32(e)>>1 - 1
		if match(slot, e&1 != 0) {
			return slot, true
		}
	}
	return 0, false
}
