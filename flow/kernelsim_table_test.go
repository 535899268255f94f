package flow

import "math"

// event shows the table the entry, as an event (with what caused it) or a read.
func (k *kernelSim) event(kind Kind, extra Has) {
	if k.ended != 0 && kind != Destroy {
		return
	}
	if kind != Destroy && !k.offloaded() && k.expires <= k.now {
		k.end() // whoever finds an entry expired deletes it
		return
	}
	ev := event(kind, k.orig, 7, withStatus(k.status), withMark(0))
	ev.Has |= extra
	if k.proto == TCP && !(kind.whole() && k.offloaded()) {
		withTCP(k.tcp)(ev)
	}
	if kind != Destroy && !k.offloaded() {
		withTimeout(uint32((k.expires - k.now) / second))(ev)
	}
	if (kind.whole() || kind == Destroy) && !k.nocount {
		withCounters(k.packets[0], k.packets[1])(ev)
	}
	for _, c := range k.tab.Apply(nil, ev, k.now) {
		if c.Kind.Ends() {
			k.why = c
		}
	}
	audit(k, k.tab)
	k.sweep()
}

func (k *kernelSim) end() {
	if k.ended == 0 {
		k.ended = k.now
		k.status |= StatusDying
		k.event(Destroy, 0)
	}
}

// dump has the table see everything.
func (k *kernelSim) dump() {
	k.tab.Apply(nil, syncStart, k.now)
	k.event(Sample, 0)
	k.tab.Apply(nil, syncEnd, k.now)
}

// sweep is the engine's step: what is asked for is answered a little later.
func (k *kernelSim) sweep() {
	for more := true; more; {
		var actions []Action
		actions, more = k.tab.Sweep(nil, k.now, 1024)
		for _, a := range actions {
			k.in(k.soon(), func() { k.obey(a) })
		}
	}
}

func (k *kernelSim) obey(a Action) {
	if k.ended != 0 || a.Orig != k.orig || a.ID != 7 {
		return
	}
	switch a.Verb {
	case Read:
		k.reads++
		k.event(Answer, 0)
	case Remove:
		k.end()
	case Extend:
		if !k.offloaded() {
			k.setExpires(k.now + int64(a.Timeout)*second)
			k.event(Update, Commanded)
		}
	}
}

// engineTick is how often the table is swept when nothing happens.
const engineTick = 125_000_000

// run lets time pass until a time, or the end of the flow.
func (k *kernelSim) run(until int64) {
	for k.ended == 0 {
		next, which := k.nextSweep(), -1
		for i := range k.queue {
			if k.queue[i].at < next {
				next, which = k.queue[i].at, i
			}
		}
		if next > until {
			k.now = until
			return
		}
		k.now = max(k.now, next)
		if which < 0 {
			k.sweep()
			continue
		}
		h := k.queue[which]
		k.queue[which] = k.queue[len(k.queue)-1]
		k.queue = k.queue[:len(k.queue)-1]
		h.do()
	}
}

// nextSweep is the engine's tick at which the wheel comes by the flow: those
// before have nothing to do.
func (k *kernelSim) nextSweep() int64 {
	slot, ok := k.tab.lookup(&k.orig)
	if !ok {
		return math.MaxInt64
	}
	due := k.tab.epoch + int64(k.tab.slab.at(slot).armed)*tick
	phase := int64(k.seed % engineTick)
	return max(k.now, due) + engineTick - 1 - (max(k.now, due)+phase-1)%engineTick
}

// begin is the connection's first packets.
func (k *kernelSim) begin() {
	k.packet(0)
	for _, dir := range []int{1, 0} {
		if k.unanswered {
			break
		}
		k.run(k.now + k.soon())
		k.packet(dir)
	}
	if slot, ok := k.tab.lookup(&k.orig); ok && k.own {
		k.tab.SetLifetime(Handle{slot, k.tab.slab.at(slot).generation}, uint32(k.life))
	}
}

// play runs the story to its end and returns by how much the flow outlived its
// lifetime, in ns; less than 0 is early.
func (k *kernelSim) play() int64 {
	k.begin()
	for _, d := range k.dumps {
		k.in(d, k.dump)
	}
	for i, gap := range k.gaps {
		k.run(k.now + gap)
		if k.ended != 0 {
			break
		}
		k.packet(i % 2)
	}
	life := k.life
	if k.unanswered {
		life = 30
	}
	k.run(k.last + 3*life*second + 100*second)
	if k.ended == 0 {
		k.Fatalf("still there %d s after its last packet", (k.now-k.last)/second)
	}
	return k.ended - k.last - life*second
}
