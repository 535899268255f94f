package flow

// slab keeps flows in chunks that never move, so that growing copies nothing
// and the garbage collector, finding no pointers, looks at none of it.
type slab struct {
	chunks []*chunk
	taken  []uint64 // a bit for each slot: beside the chunks, which fill whole pages so
	free   []uint32 // slots to use again, newest last
	next   uint32   // first slot never used
}

const chunkSize = 1024

type chunk [chunkSize]record

func (s *slab) at(slot uint32) *record { return &s.chunks[slot/chunkSize][slot%chunkSize] }

func (s *slab) used(slot uint32) bool { return s.taken[slot/64]&(1<<(slot%64)) != 0 }

// take returns a zeroed slot.
func (s *slab) take() uint32 {
	var slot uint32
	if n := len(s.free); n > 0 {
		slot, s.free = s.free[n-1], s.free[:n-1]
	} else {
		slot = s.next
		s.next++
		if int(slot/chunkSize) == len(s.chunks) {
			s.chunks = append(s.chunks, new(chunk))
			s.taken = append(s.taken, make([]uint64, chunkSize/64)...)
		}
	}
	*s.at(slot) = record{generation: s.at(slot).generation + 1}
	s.taken[slot/64] |= 1 << (slot % 64)
	return slot
}

func (s *slab) put(slot uint32) {
	s.taken[slot/64] &^= 1 << (slot % 64)
	s.free = append(s.free, slot)
}
