package nft

import "slices"

// A ring remembers the newest generations that a Conn has made itself. If it
// forgets one, a reader of Watch merely checks once more than it had to.
type ring struct {
	ids  [64]uint32 // 0 is no generation
	next int
}

func (r *ring) add(id uint32) {
	r.ids[r.next] = id
	r.next = (r.next + 1) % len(r.ids)
}

func (r *ring) has(id uint32) bool { return id != 0 && slices.Contains(r.ids[:], id) }
