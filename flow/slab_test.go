package flow

import "testing"

func TestSlabGivesZeroedSlotsOnce(t *testing.T) {
	var s slab
	seen := map[uint32]bool{}
	const n = 2*chunkSize + 1
	for range n {
		slot := s.take()
		if seen[slot] || !s.used(slot) {
			t.Fatalf("slot %d: given twice %v, used %v", slot, seen[slot], s.used(slot))
		}
		seen[slot] = true
		s.at(slot).id = slot
	}
	if len(s.chunks) != 3 {
		t.Errorf("%d flows take %d chunks, want 3", n, len(s.chunks))
	}
	for slot := range seen {
		if s.at(slot).id != slot {
			t.Fatalf("slot %d was written by slot %d", slot, s.at(slot).id)
		}
	}
}

func TestSlabUsesSlotsAgain(t *testing.T) {
	var s slab
	a, b := s.take(), s.take()
	kept := s.at(b)
	s.at(a).mark = 7
	s.put(a)
	if s.used(a) || !s.used(b) {
		t.Fatalf("used after put: %v, and the other %v", s.used(a), s.used(b))
	}
	again := s.take()
	if again != a {
		t.Errorf("took slot %d, want %d again", again, a)
	}
	if *s.at(again) != (record{generation: 2}) {
		t.Errorf("a slot used again holds %+v", *s.at(again))
	}
	for range chunkSize {
		s.take()
	}
	if s.at(b) != kept {
		t.Error("a flow moved as the slab grew")
	}
}
