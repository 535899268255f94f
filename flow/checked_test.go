package flow

import (
	"testing"

	"pgregory.net/rapid"
)

// checked is a table, the model of it and a watcher, that take the same events.
type checked struct {
	*rig
	model   model
	watcher replay
	reads   []Action // not answered yet
	full    bool     // the last Sweep got through
	limited bool     // there is a limit, or was
}

func newChecked(t testing.TB) *checked {
	a := *usual
	a.ports = map[uint16]int64{7: 10} // a policy that gives no more than a RST leaves
	c := &checked{rig: newRig(t), watcher: replay{}}
	c.SetAgeing(&a, DefaultTimers)
	c.model.ages = &a
	c.model.early = func(f *modelFlow) bool {
		slot, _ := c.lookup(&f.Orig)
		at := c.deadline(c.slab.at(slot))
		return at > c.now+second && (f.expires == 0 || f.expires > c.now+second)
	}
	return c
}

// step applies an event to all, has the table swept as the engine does, and
// compares them.
func (c *checked) step(ev *Event) {
	c.Helper()
	for _, f := range c.model.flows {
		slot, _ := c.lookup(&f.Orig)
		f.settled, f.heir = c.slab.at(slot).bits.has(based), c.slab.at(slot).bits.has(heir)
	}
	c.now += second / 8
	c.model.apply(ev, c.now) // first: it asks the table when a flow's life is over
	c.last = c.Apply(nil, ev, c.now)
	audit(c, c.Table)
	c.watcher.apply(c, c.last)
	c.sweep(1 << 20)
	audit(c, c.Table)
	c.compare()
	c.seenAsDocumented(ev)
}

// remove asks for a deletion, as the engine does.
func (c *checked) remove(k Key, why Reason) {
	c.Helper()
	f := c.model.holder(k)
	if f == nil {
		return
	}
	if f.Reason == ReasonNone {
		f.Reason = why
	}
	if !c.Delete(c.flow(f.Orig).Handle, why, c.now) {
		c.Fatalf("Delete(%v): not there", f.Orig)
	}
	c.sweep(1 << 20)
	c.compare()
}

func (c *checked) compare() {
	c.Helper()
	seen := 0
	for f := range c.All() {
		seen++
		want := c.model.holder(f.Orig)
		if want == nil {
			c.Fatalf("flow %v is there, not in the model", f.Orig)
		}
		if public(*f) != want.public() {
			c.Fatalf("flow\n%+v, model\n%+v", public(*f), want.public())
		}
		c.watcher.matches(c, f)
	}
	if seen != len(c.model.flows) || len(c.watcher) != seen {
		c.Fatalf("%d flows, the model has %d, a watcher knows %d", seen, len(c.model.flows), len(c.watcher))
	}
	for _, k := range space {
		c.compareFind(k)
	}
	got := c.Stats()
	got.Flows, got.Offloaded, got.Hardware, got.Candidates, got.HalfOpen = 0, 0, 0, 0, 0 // audit has recounted them
	got.Limit, got.Shortened, got.WheelLag, got.Zoned = 0, 0, 0, 0
	if got != c.model.stats {
		c.Fatalf("stats %+v, model %+v", got, c.model.stats)
	}
}

func (c *checked) compareFind(k Key) {
	want := c.model.holder(k)
	if want == nil {
		want = c.model.holder(k.Reverse())
	}
	got, ok := c.Find(k)
	if ok != (want != nil) || ok && public(got) != want.public() {
		c.Fatalf("Find(%v) is %+v, %v; the model has %+v", k, got, ok, want)
	}
}

// public returns of a flow what the model has too.
func public(f Flow) Flow {
	f.Handle, f.Seen, f.Lifetime, f.Own = Handle{}, 0, 0, false
	return f
}

func (f *modelFlow) public() Flow {
	g := public(f.Flow)
	g.Expires = uint32(f.expires / second)
	return g
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newChecked(t)
		c.TB = tb{t, rt}
		for range 2 { // some 30 deeds each
			rt.Repeat(c.deeds())
		}
	})
}

// deeds are what may happen to a table.
func (c *checked) deeds() map[string]func(*rapid.T) {
	draw := func(kinds ...Kind) func(*rapid.T) {
		return func(rt *rapid.T) { c.step(anyEvent(kinds...).Draw(rt, "event")) }
	}
	return map[string]func(*rapid.T){
		"new":     draw(New),
		"update":  draw(Update),
		"sample":  draw(Sample),
		"answer":  draw(Answer),
		"destroy": draw(Destroy),
		"close":   draw(FIN, FIN, RST),
		"start":   func(*rapid.T) { c.step(syncStart) },
		"end":     func(rt *rapid.T) { c.step(rapid.SampledFrom([]*Event{syncEnd, syncPartial}).Draw(rt, "end")) },
		"delete": func(rt *rapid.T) {
			why := rapid.SampledFrom([]Reason{ReasonCommand, ReasonClosed, ReasonReset}).Draw(rt, "why")
			c.remove(rapid.SampledFrom(space).Draw(rt, "orig"), why)
		},
		"wait": func(rt *rapid.T) {
			c.wait(rapid.Int64Range(1, 8*60).Draw(rt, "eighths"), rapid.SampledFrom([]int{1, 3, 1 << 20}).Draw(rt, "max"))
		},
		"silence": func(rt *rapid.T) { c.silence(rapid.SampledFrom(space).Draw(rt, "orig")) },
		"lifetime": func(rt *rapid.T) {
			if f, ok := c.Find(rapid.SampledFrom(space).Draw(rt, "orig")); ok {
				c.SetLifetime(f.Handle, rapid.SampledFrom([]uint32{0, 1, 20, 1000}).Draw(rt, "own"))
			}
		},
		"limit": func(rt *rapid.T) { c.limit(rapid.SampledFrom([]int{0, 0, 3, 6}).Draw(rt, "limit")) },
	}
}

// tb has a rapid test fail where a helper wants a testing.TB.
type tb struct {
	testing.TB
	rt *rapid.T
}

func (t tb) Helper()                   { t.rt.Helper() }
func (t tb) Fatalf(f string, a ...any) { t.rt.Fatalf(f, a...) }

// FuzzApply reads each eight bytes as an event, with whatever fields; the table
// must do as the model does.
func FuzzApply(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 1, 0xff, 3, 2, 1, 7, 0, 0, 1, 0, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0, 0, 3, 0, 0, 1, 0xff, 0, 0, 0})
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 4, 2, 1, 1, 0xff, 3, 1, 7, 3, 2, 1, 1, 0xff, 3, 1, 7, 4, 2, 1, 1, 0xff, 3, 1, 7, 6, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newChecked(t)
		c.limit(len(data) % 16)
		for range min(len(data)/8, 64) {
			c.step(eventFrom(data))
			if data[4]&data[5]&0x81 == 0x81 {
				c.wait(int64(data[6])*8, 1+int(data[7]))
			}
			data = data[8:]
		}
	})
}

// eventFrom makes an event of eight bytes.
func eventFrom(b []byte) *Event {
	orig := space[int(b[1])%len(space)]
	ev := event(Kind(b[0]%9), orig, uint32(b[3]%4))
	ev.Reply = replyOf(orig, b[2]&1 != 0)
	if b[2]&2 != 0 {
		ev.Reply = space[int(b[2]>>2)%len(space)]
		ev.Reply.Proto = orig.Proto
	}
	ev.Has = Has(b[4]) | Has(b[5])<<8
	ev.Status = statuses[int(b[6]>>4)%len(statuses)]
	ev.TCP = TCPState(b[6]&0xf) % (TCPSynSent2 + 1)
	withMark(uint32(b[7] & 1))(ev)
	ev.Labels[b[7]>>4] = b[7] & 2
	ev.Packets, ev.Bytes = [2]uint64{uint64(b[7] & 7), uint64(b[7] >> 5)}, [2]uint64{uint64(b[7]), uint64(b[7])}
	ev.Timeout, ev.Start = uint32(b[7]&0xf), int64(b[7])
	ev.Has = Has(b[4]) | Has(b[5])<<8
	return ev
}
