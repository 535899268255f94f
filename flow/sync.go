package flow

// finishStretch slots are looked through under one lock at the end of a dump.
const finishStretch = 4096

// finishSync ends a dump: what it did not show, and no event since, is gone.
func (t *Table) finishSync(dst []Change, ev *Event, now int64) []Change {
	whole := ev.Has&Partial == 0
	for from := uint32(0); whole && from < t.slab.next; from += finishStretch {
		dst = t.dropUnseen(dst, from, min(from+finishStretch, t.slab.next), now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.syncing = false
	clear(t.ended)
	if !whole {
		t.stats.SyncsFailed++
		return dst
	}
	t.synced = true
	t.stats.Syncs++
	return dst
}

// dropUnseen ends the flows of some slots that the present round has not shown.
func (t *Table) dropUnseen(dst []Change, from, to uint32, now int64) []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot := from; slot < to; slot++ {
		if !t.slab.used(slot) || t.slab.at(slot).round == t.round {
			continue
		}
		why := t.slab.at(slot).reason
		if why == ReasonNone {
			why = ReasonLost
		}
		if t.synced {
			t.stats.Repaired++
		}
		dst = t.drop(dst, slot, why, now)
	}
	return dst
}
