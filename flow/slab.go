package flow

// slab keeps flows in chunks that never move, so that growing copies nothing
// and the garbage collector, finding no pointers, looks at none of it.
type slab struct {
	chunks []*chunk
	free   []uint32 // slots to use again, newest last
	next   uint32   // first slot never used
}

const chunkSize = 1024

type chunk struct {
	flows [chunkSize]Flow
	used  [chunkSize]bool
}

func (s *slab) at(slot uint32) *Flow {
	return &s.chunks[slot/chunkSize].flows[slot%chunkSize]
}

func (s *slab) used(slot uint32) bool {
	return s.chunks[slot/chunkSize].used[slot%chunkSize]
}

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
		}
	}
	c := s.chunks[slot/chunkSize]
	c.flows[slot%chunkSize] = Flow{}
	c.used[slot%chunkSize] = true
	return slot
}

func (s *slab) put(slot uint32) {
	s.chunks[slot/chunkSize].used[slot%chunkSize] = false
	s.free = append(s.free, slot)
}
