package flow

import "testing"

// tuples returns three tuples that have nothing in common.
func tuples(t *testing.T) (a, b, c Key) {
	return key(t, TCP, "10.0.0.1:1", "192.0.2.1:80"), key(t, TCP, "10.0.0.2:2", "192.0.2.2:80"), key(t, UDP, "10.0.0.3:3", "192.0.2.3:53")
}

func TestSyncRepairs(t *testing.T) {
	a, b, c := tuples(t)
	r := newRig(t)
	r.expect("new new", syncStart, event(Sample, a, 1), event(Sample, b, 2), syncEnd)
	if s := r.Stats(); s.Syncs != 1 || s.Repaired != 0 {
		t.Errorf("after the first dump: %d dumps, %d repaired; want 1 and 0", s.Syncs, s.Repaired)
	}
	r.expect("expired:lost", syncStart, event(Sample, a, 1), syncEnd)
	r.gone(b)
	if s := r.Stats(); s.Syncs != 2 || s.Repaired != 1 {
		t.Errorf("one flow's end was missed: %d dumps, %d repaired", s.Syncs, s.Repaired)
	}
	r.expect("new", syncStart, event(Sample, a, 1), event(Sample, c, 3), syncEnd)
	if s := r.Stats(); s.Repaired != 2 || s.Ended[ReasonLost] != 1 {
		t.Errorf("one flow's beginning was missed: %d repaired, %d lost", s.Repaired, s.Ended[ReasonLost])
	}
	r.expect("expired:lost expired:lost", syncStart, syncEnd)
	if r.Len() != 0 {
		t.Errorf("an empty dump leaves %d flows", r.Len())
	}
}

// What an event has shown since the dump began is there, dumped or not.
func TestSyncSparesWhatEventsShow(t *testing.T) {
	a, b, c := tuples(t)
	r := newRig(t)
	r.apply(event(New, a, 1), event(New, c, 3))
	r.expect("new established expired:lost", syncStart, event(New, b, 2), event(Update, a, 1, withStatus(replied), withTCP(TCPEstablished)), syncEnd)
	r.flow(a)
	r.flow(b)
	r.gone(c)
}

// A sighting at the tap says nothing of conntrack's entry.
func TestSyncDoesNotSpareWhatTheTapShows(t *testing.T) {
	a, _, _ := tuples(t)
	r := newRig(t)
	r.apply(event(New, a, 1))
	r.expect("expired:lost", syncStart, sighting(FIN, a), syncEnd)
}

func TestPartialSyncProvesNothing(t *testing.T) {
	a, b, _ := tuples(t)
	r := newRig(t)
	r.apply(syncStart, event(Sample, a, 1), syncEnd)
	r.expect("new", syncStart, event(Sample, b, 2), syncPartial)
	r.flow(a)
	if s := r.Stats(); s.Syncs != 1 || s.SyncsFailed != 1 {
		t.Errorf("%d whole, %d cut short", s.Syncs, s.SyncsFailed)
	}
	r.expect("expired:lost", syncStart, event(Sample, b, 2), syncEnd)
}

// Nothing counts as repaired before the table has been complete once.
func TestFirstSyncRepairsNothing(t *testing.T) {
	a, b, _ := tuples(t)
	r := newRig(t)
	r.apply(event(New, a, 1), syncStart, event(Sample, b, 2), syncPartial)
	r.expect("expired:lost", syncStart, event(Sample, b, 2), syncEnd)
	if n := r.Stats().Repaired; n != 0 {
		t.Errorf("%d repaired by the first dump that came through whole", n)
	}
}

func TestEndedDuringTheDump(t *testing.T) {
	a, b, _ := tuples(t)
	t.Run("stays so", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1), event(New, b, 2))
		r.expect("expired:kernel", syncStart, event(Destroy, a, 1), event(Sample, a, 1), event(Sample, b, 2), syncEnd)
		r.gone(a)
	})
	t.Run("before the table knew it", func(t *testing.T) {
		r := newRig(t)
		r.expect("", syncStart, event(Destroy, a, 1), event(Sample, a, 1), syncEnd)
	})
	t.Run("the next dump may show another", func(t *testing.T) {
		r := newRig(t)
		r.apply(syncStart, event(Destroy, a, 1), syncEnd)
		r.expect("new", syncStart, event(Sample, a, 1), syncEnd)
	})
	t.Run("is not taken for the next connection", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1))
		r.expect("expired:kernel", syncStart, event(Destroy, a, 1))
		r.expect("new", event(Sample, a, 2))
		r.expect("", syncEnd)
	})
}

// An entry that a dump shows although it has ended since must not push out the
// next connection on its tuple.
func TestNewConnectionDuringTheDump(t *testing.T) {
	a, b, _ := tuples(t)
	old := event(Sample, a, 1, withMark(1))
	t.Run("is kept", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1))
		r.expect("expired:kernel new", syncStart, event(Destroy, a, 1), event(New, a, 2))
		r.expect("", old, syncEnd)
		if f := r.flow(a); f.ID != 2 || f.Mark != 0 {
			t.Errorf("id %d mark %d after the dump", f.ID, f.Mark)
		}
	})
	t.Run("and ends too", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1))
		r.expect("expired:kernel new expired:kernel", syncStart, event(Destroy, a, 1), event(New, a, 2), event(Destroy, a, 2))
		r.expect("", old, event(Sample, a, 2), syncEnd)
		r.gone(a)
	})
	t.Run("with the same id", func(t *testing.T) { // the kernel's ids come again
		r := newRig(t)
		r.apply(event(New, a, 1))
		r.expect("expired:kernel new", syncStart, event(Destroy, a, 1), event(New, a, 1))
		r.expect("", old, syncEnd)
		if f := r.flow(a); f.Mark != 0 {
			t.Error("the ended entry's mark came over the new connection's")
		}
	})
	t.Run("that uses the reply tuple of the old one", func(t *testing.T) {
		r := newRig(t)
		r.apply(event(New, a, 1))
		r.expect("expired:kernel new", syncStart, event(Destroy, a, 1), event(New, b, 2, withReply(a.Reverse())))
		r.expect("", old, syncEnd)
		r.flow(b)
	})
}

// The kernel sends Destroy before it takes an entry off its lists, so that a
// dump that begins in between still shows it.
func TestDyingEntryInADump(t *testing.T) {
	a, _, _ := tuples(t)
	dying := event(Sample, a, 1, withStatus(replied|StatusDying))
	r := newRig(t)
	r.apply(event(New, a, 1), event(Destroy, a, 1))
	r.expect("", syncStart, dying, syncEnd)
	r.gone(a)
	r.apply(event(New, a, 2))
	r.expect("", syncStart, dying, event(Sample, a, 2), syncEnd)
	if r.flow(a).ID != 2 {
		t.Error("an entry being deleted pushed out the connection after it")
	}
	r.expect("", syncStart, event(Sample, a, 2, withStatus(StatusDying)), syncEnd)
	r.flow(a) // its Destroy is still to come
}

// The answer to a single read may come after the end of what was read.
func TestSampleOutsideDump(t *testing.T) {
	a, b, _ := tuples(t)
	r := newRig(t)
	r.apply(event(New, a, 1), event(New, b, 2), event(Destroy, a, 1))
	r.expect("", event(Answer, a, 1))
	r.gone(a)
	r.expect("", syncStart, event(Answer, a, 1), syncPartial) // not in a dump either
	r.gone(a)
	r.expect("new", event(New, a, 3))
	r.expect("", event(Answer, a, 1, withCounters(9, 9)))
	if f := r.flow(a); f.ID != 3 || f.Packets[0] != 0 {
		t.Errorf("a late answer of id 1 makes flow %+v", f)
	}
	r.expect("marked", event(Answer, a, 3, withMark(1)))
}

// The end that a dump finds has the reason that it was asked for with.
func TestSyncFindsAskedForEnd(t *testing.T) {
	a, _, _ := tuples(t)
	r := newRig(t)
	r.apply(event(New, a, 1))
	r.Delete(r.flow(a).Handle, ReasonCommand, r.now)
	r.expect("evicted:command", syncStart, syncEnd)
}

// The number of the dump goes round after 65536 of them.
func TestManySyncs(t *testing.T) {
	a, b, _ := tuples(t)
	r := newRig(t)
	r.apply(event(New, a, 1), event(New, b, 2))
	for range 1<<16 + 1 {
		for _, ev := range []*Event{syncStart, event(Sample, a, 1), syncPartial} {
			r.Apply(nil, ev, r.now)
		}
	}
	r.expect("expired:lost", syncStart, event(Sample, a, 1), syncEnd)
	r.flow(a)
}
