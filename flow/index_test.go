package flow

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// entryOf is an entry in the words of a test: what was inserted.
type entryOf struct {
	hash  uint64
	slot  uint32
	reply bool
}

// has tells whether the index finds an entry, and only under its own hash.
func (x *index) has(e entryOf) bool {
	slot, ok := x.find(e.hash, func(slot uint32, reply bool) bool { return slot == e.slot && reply == e.reply })
	return ok && slot == e.slot
}

// few draws hashes of which many collide, in whole or in where they belong, and
// of which many belong to the last places of a shard, so that entries go on at
// its first ones.
func few() *rapid.Generator[uint64] {
	return rapid.Custom(func(t *rapid.T) uint64 {
		shard := rapid.SampledFrom([]uint64{0, 255}).Draw(t, "shard")
		home := rapid.SampledFrom([]uint64{0, 1, 13, 14, 15, 31}).Draw(t, "home")
		tag := rapid.Uint64Range(0, 2).Draw(t, "tag")
		return shard<<56 | at(home, 32) | tag
	})
}

// at is the least hash that belongs to a place of a shard of some size.
func at(home, size uint64) uint64 { return (home<<32 + size - 1) / size }

// The index does what a map of entries does.
func TestIndexAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		model := map[entryOf]bool{}
		free := uint32(0)
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				e := entryOf{few().Draw(t, "hash"), free, rapid.Bool().Draw(t, "reply")}
				free++
				x.insert(e.hash, e.slot, e.reply)
				model[e] = true
			},
			"remove": func(t *rapid.T) {
				e := pick(t, model)
				x.remove(e.hash, e.slot, e.reply)
				delete(model, e)
			},
			"remove another slot": func(t *rapid.T) {
				e := pick(t, model)
				x.remove(e.hash, free+1, e.reply)
			},
			"remove the other direction": func(t *rapid.T) {
				e := pick(t, model)
				x.remove(e.hash, e.slot, !e.reply)
			},
			"": func(t *rapid.T) { compareIndex(t, x, model) },
		})
	})
}

func pick(t *rapid.T, model map[entryOf]bool) entryOf {
	if len(model) == 0 {
		t.Skip("empty")
	}
	n := rapid.Uint32().Draw(t, "which")
	var best entryOf // of a map in no order, the choice must depend on what was drawn alone
	first := true
	for e := range model {
		if first || (e.slot-n) < (best.slot-n) {
			best, first = e, false
		}
	}
	return best
}

func compareIndex(t *rapid.T, x *index, model map[entryOf]bool) {
	for e := range model {
		if !x.has(e) {
			t.Fatalf("%+v is not found", e)
		}
	}
	used := 0
	for i := range x.shards {
		used += x.shards[i].used
	}
	if n := x.entries(); n != len(model) || used != n {
		t.Fatalf("%d entries, %d said to be used, want %d", n, used, len(model))
	}
	if slot, ok := x.find(1<<40|7, func(uint32, bool) bool { return true }); ok {
		t.Fatalf("a hash that nobody inserted finds slot %d", slot)
	}
}

// A chain that goes over the end of a shard closes up after a removal at each of
// its places, whatever entry stands where it belongs.
func TestIndexRemoveAcrossTheEnd(t *testing.T) {
	homes := []uint64{14, 14, 15, 14, 0, 15, 1} // at 14, 15, 0, 1, 2, 3, 4
	for gone := range homes {
		t.Run(fmt.Sprint(gone), func(t *testing.T) {
			x := newIndex()
			for i, h := range homes {
				x.insert(at(h, 16), uint32(i), false)
			}
			if n := len(x.shards[0].entries); n != 16 {
				t.Fatalf("shard has %d places; the test wants 16", n)
			}
			x.remove(at(homes[gone], 16), uint32(gone), false)
			for i, h := range homes {
				if got := x.has(entryOf{at(h, 16), uint32(i), false}); got != (i != gone) {
					t.Errorf("entry %d found: %v", i, got)
				}
			}
		})
	}
}

func TestIndexGrows(t *testing.T) {
	x := newIndex()
	const n = 1000 // into one shard, most of one home
	for i := range uint32(n) {
		x.insert(uint64(i)<<12, i, i%2 == 0)
		if s := &x.shards[0]; s.used*8 > len(s.entries)*7+8 {
			t.Fatalf("%d of %d places used", s.used, len(s.entries))
		}
	}
	for i := range uint32(n) {
		if !x.has(entryOf{uint64(i) << 12, i, i%2 == 0}) {
			t.Fatalf("entry %d lost as the shard grew", i)
		}
	}
	for i := range uint32(n) {
		x.remove(uint64(i)<<12, i, i%2 == 0)
	}
	if n := x.entries(); n != 0 {
		t.Errorf("%d entries left after all were removed", n)
	}
}

func TestIndexEmpty(t *testing.T) {
	x := newIndex()
	x.remove(1, 1, false)
	if slot, ok := x.find(1, func(uint32, bool) bool { return true }); ok {
		t.Errorf("an empty index finds slot %d", slot)
	}
}

// Entries that happen to stand where a key belongs cost no look at their flows.
func TestIndexAsksForTheSameHashAlone(t *testing.T) {
	x := newIndex()
	for i := range uint32(10) {
		x.insert(uint64(i)|3<<30, i, false)
	}
	var asked []uint32
	x.find(5|3<<30, func(slot uint32, _ bool) bool {
		asked = append(asked, slot)
		return false
	})
	if !slices.Equal(asked, []uint32{5}) {
		t.Errorf("asked for slots %v, want 5 alone", asked)
	}
}

// The largest slot that fits keeps its number and its direction.
func TestIndexLargestSlot(t *testing.T) {
	x := newIndex()
	const slot = 1<<31 - 2
	x.insert(^uint64(0), slot, true)
	if !x.has(entryOf{^uint64(0), slot, true}) {
		t.Error("the largest slot is not found")
	}
}

// Equal keys hash alike, and a key that differs in any field hashes otherwise.
func TestIndexHash(t *testing.T) {
	x := newIndex()
	k := key(t, TCP, "192.0.2.1:1000", "198.51.100.2:443")
	same := k
	if x.hash(&k) != x.hash(&same) {
		t.Error("equal keys hash differently")
	}
	for name, change := range map[string]func(*Key){
		"source": func(k *Key) { k.Src[15]++ }, "destination": func(k *Key) { k.Dst[0]++ },
		"source port": func(k *Key) { k.SrcPort++ }, "destination port": func(k *Key) { k.DstPort++ },
		"zone": func(k *Key) { k.Zone++ }, "family": func(k *Key) { k.Family = IPv6 }, "protocol": func(k *Key) { k.Proto = UDP },
	} {
		other := k
		change(&other)
		if x.hash(&k) == x.hash(&other) {
			t.Errorf("a key with another %s hashes alike", name)
		}
	}
}
