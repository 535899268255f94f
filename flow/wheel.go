package flow

// wheel is a hierarchical timer wheel (Varghese and Lauck, 1987, scheme 6) whose
// lists run through the records themselves. Level 0 has a bucket for each tick,
// level 1 one for each 256 of them, and so on: what is far away waits in a coarse
// bucket, and moves to finer ones as its time comes near.
//
// Each flow is in one bucket, of its class: the flows of a class are found in the
// order of their time. Buckets are first in, first out, so that flows with one
// and the same lifetime stay in order even where buckets are coarse.
//
// All work is done one flow at a time and can be left at any point: a bucket with
// a million flows stalls nobody.
type wheel struct {
	slab    *slab
	now     uint32 // the tick at hand; all before it is done
	buckets [classes * wheelLevels * wheelSlots]bucket
}

const (
	wheelBits   = 8
	wheelSlots  = 1 << wheelBits
	wheelLevels = 4
	// tickShift: a tick is 2^27 ns, some 134 ms, and a wheel turns in 18 years.
	tickShift = 27
	tick      = int64(1) << tickShift
)

// class says in which order flows go when room is needed.
type class uint32

const (
	classCandidate class = iota // closed
	classHalfOpen               // never answered
	classLive
	classAsked // being judged or deleted: not to be chosen
	classes    = 4
)

// bucket is the ends of a list: slot+1, or 0 when it is empty.
type bucket struct{ head, tail uint32 }

// atEnd marks a link that leads to the bucket's number instead of to a slot+1.
const atEnd = 1 << 31

func bucketOf(c class, level, tick uint32) uint32 {
	return (uint32(c)*wheelLevels+level)*wheelSlots + tick>>(wheelBits*level)%wheelSlots
}

// insert has the wheel come by at a tick; not before the one at hand.
func (w *wheel) insert(slot uint32, c class, at uint32) {
	r := w.slab.at(slot)
	wait := at - w.now
	if int32(wait) < 0 {
		wait, at = 0, w.now
	}
	r.armed = at
	level := uint32(0)
	for wait >= wheelSlots && level < wheelLevels-1 {
		wait >>= wheelBits
		level++
	}
	n := bucketOf(c, level, at)
	b := &w.buckets[n]
	r.next, r.prev = n|atEnd, n|atEnd
	if b.head == 0 {
		b.head = slot + 1
	} else {
		w.slab.at(b.tail - 1).next = slot + 1
		r.prev = b.tail
	}
	b.tail = slot + 1
}

// remove takes a flow out.
func (w *wheel) remove(slot uint32) {
	r := w.slab.at(slot)
	switch {
	case r.prev&atEnd == 0:
		w.slab.at(r.prev - 1).next = r.next
	case r.next&atEnd == 0:
		w.buckets[r.prev&^atEnd].head = r.next
	default:
		w.buckets[r.prev&^atEnd].head = 0
	}
	switch {
	case r.next&atEnd == 0:
		w.slab.at(r.next - 1).prev = r.prev
	case r.prev&atEnd == 0:
		w.buckets[r.next&^atEnd].tail = r.prev
	default:
		w.buckets[r.next&^atEnd].tail = 0
	}
}

// pop takes out a flow whose tick is to or before. Each flow that it touches
// costs one of budget; it stops when that is used up.
func (w *wheel) pop(to uint32, budget *int) (slot uint32, ok bool) {
	for {
		for level := uint32(wheelLevels - 1); level > 0; level-- {
			if w.now%(1<<(wheelBits*level)) == 0 && !w.cascade(level, budget) {
				return 0, false
			}
		}
		for c := range class(classes) {
			if b := &w.buckets[bucketOf(c, 0, w.now)]; b.head != 0 {
				if *budget == 0 {
					return 0, false
				}
				*budget--
				slot := b.head - 1
				w.remove(slot)
				return slot, true
			}
		}
		if int32(to-w.now) <= 0 {
			return 0, false
		}
		w.now++
	}
}

// cascade moves the flows of the bucket that begins at the tick at hand to finer
// ones, and reports whether it got through.
func (w *wheel) cascade(level uint32, budget *int) bool {
	for c := range class(classes) {
		b := &w.buckets[bucketOf(c, level, w.now)]
		for b.head != 0 {
			if *budget == 0 {
				return false
			}
			*budget--
			slot := b.head - 1
			w.remove(slot)
			w.insert(slot, c, w.slab.at(slot).armed)
		}
	}
	return true
}

// first returns a flow of a class whose time comes early, by an order of the
// caller's: of the first few in the earliest bucket of each level, the first.
func (w *wheel) first(c class, before func(a, b *record) bool) (best uint32, found bool) {
	for level := range uint32(wheelLevels) {
		at, step := w.now, uint32(1)<<(wheelBits*level)
		if level > 0 {
			at += step // what stands at the tick at hand is a whole turn away
		}
		for range uint32(wheelSlots) {
			if b := &w.buckets[bucketOf(c, level, at)]; b.head != 0 {
				if slot := w.least(b.head, before); !found || before(w.slab.at(slot), w.slab.at(best)) {
					best, found = slot, true
				}
				break
			}
			at += step
		}
	}
	return best, found
}

// leastOf is how many of a bucket are compared: in a coarse one the first is not
// always the one whose time comes first.
const leastOf = 16

func (w *wheel) least(link uint32, before func(a, b *record) bool) uint32 {
	best := link - 1
	for n := 1; n < leastOf; n++ {
		if link = w.slab.at(link - 1).next; link&atEnd != 0 {
			break
		}
		if before(w.slab.at(link-1), w.slab.at(best)) {
			best = link - 1
		}
	}
	return best
}
