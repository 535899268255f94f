package flow

// pressure is how full the table is, and what follows from it.
type pressure struct {
	limit int   // flows; 0: as many as come
	level int64 // of pressureLevels: how much lifetimes are shortened
	since int64 // when that was last changed

	created uint64 // flows created by the beginning of the tick at hand
	tick    uint32
	burst   int // flows created in the last tick
}

const (
	// pressureLevels: at the highest a lifetime is a third of what it was. pf(4)
	// scales in the same way, from adaptive.start, 60 % of its limit, on to 120 %.
	pressureLevels     = 16
	pressureFromTenths = 6
)

func (p *pressure) shorten(life int64) int64 { return life - life/(3*pressureLevels)*2*p.level }

// room is how many flows there may be before some must go. It is less than the limit
// by what comes while the kernel deletes: some 30 ms on a router that is busy.
func (p *pressure) room() int { return p.limit - min(p.burst/4, p.limit/8) }

// measure keeps count of how fast flows come.
func (p *pressure) measure(created uint64, tick uint32) {
	if tick == p.tick {
		return
	}
	p.burst = int(created-p.created) / int(tick-p.tick)
	p.created, p.tick = created, tick
}

// levelOf is the level for a number of flows.
func (p *pressure) levelOf(flows int) int64 {
	start := p.limit * pressureFromTenths / 10
	if p.limit == 0 || flows <= start {
		return 0
	}
	return int64(min((flows-start)*pressureLevels/(p.limit-start), pressureLevels))
}

// SetLimit sets how many flows there may be; 0 sets no limit. At the limit the one
// nearest to its end goes for each that comes.
func (t *Table) SetLimit(flows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pressure.limit = flows
}

// relieve shortens lifetimes when the table fills, and lengthens them when it
// empties: at most once a second, as each time all flows are looked through.
func (t *Table) relieve(now int64) {
	level := t.pressure.levelOf(t.stats.Flows)
	switch {
	case level == t.pressure.level, now < t.pressure.since+second,
		level < t.pressure.level && t.pressure.levelOf(t.stats.Flows+t.pressure.limit/64) >= t.pressure.level:
		return
	}
	if level > t.pressure.level {
		t.rearm = 0
	}
	t.pressure.level, t.pressure.since = level, now
}

// recycle makes room: candidates go first, then what was never answered, then what
// has the least life left. A flow that may be alive is asked for first, and spared
// if it is; but only once, as something has to go. While a dump runs, events may have
// been lost, and what seems never answered is asked for too. It reports whether more
// are to go than it has come to.
func (t *Table) recycle(now int64, max int) (more bool) {
	for range max {
		if !t.crowded(t.pressed) {
			return false
		}
		slot, ok := t.victim()
		if !ok {
			return false
		}
		r := t.slab.at(slot)
		if r.state == StateNew && !t.syncing || r.bits.has(spared) || r.state == StateClosed && !r.offloaded() {
			t.remove(slot, ReasonRecycled, now)
			continue
		}
		if !r.bits.has(asked) {
			t.ask(r, Read)
		}
		r.set(asked | pressed)
		t.pressed++
		t.arm(slot, now+retry)
	}
	return t.crowded(t.pressed)
}

// crowded tells whether more flows must go than those that are about to.
func (t *Table) crowded(going int) bool {
	return t.pressure.limit > 0 && t.stats.Flows-t.leaving-going > t.pressure.room()
}

func (t *Table) victim() (uint32, bool) {
	for c := classCandidate; c <= classLive; c++ {
		if slot, ok := t.wheel.first(c, t.earlier); ok {
			return slot, true
		}
	}
	return 0, false
}

func (t *Table) earlier(a, b *record) bool { return t.deadline(a) < t.deadline(b) }
