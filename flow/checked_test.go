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
}

func newChecked(t testing.TB) *checked {
	return &checked{rig: newRig(t), watcher: replay{}}
}

// step applies an event to all and compares them.
func (c *checked) step(ev *Event) {
	c.Helper()
	c.apply(ev)
	c.model.apply(ev, c.now)
	c.watcher.apply(c, c.last)
	c.compare()
}

// remove asks for a deletion, as the engine does.
func (c *checked) remove(k Key, id uint32, why Reason) {
	c.Helper()
	f := c.model.holder(k)
	want := f != nil && f.ID == id
	if want && f.Reason == ReasonNone {
		f.Reason = why
	}
	if got := c.Delete(k, id, why); got != want {
		c.Fatalf("Delete(%v, %d) is %v, want %v", k, id, got, want)
	}
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
		if public(*f) != want.Flow {
			c.Fatalf("flow\n%+v, model\n%+v", public(*f), want.Flow)
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
	got.Flows, got.Offloaded, got.Hardware, got.Candidates = 0, 0, 0, 0 // audit has recounted them
	if got != c.model.stats {
		c.Fatalf("stats %+v, model %+v", got, c.model.stats)
	}
}

func (c *checked) compareFind(k Key) {
	c.Helper()
	want := c.model.holder(k)
	if want == nil {
		want = c.model.holder(k.Reverse())
	}
	got, ok := c.Find(k)
	if ok != (want != nil) || ok && public(got) != want.Flow {
		c.Fatalf("Find(%v) is %+v, %v; the model has %+v", k, got, ok, want)
	}
}

// space is a small world in which tuples clash: two clients, a server that they
// reach directly or translated to one and the same address, the way back, and a
// connection to itself. Odd places hold what the even ones are answered with.
var space = makeSpace()

func makeSpace() []Key {
	addr := func(n byte, port uint16) (a [16]byte, p uint16) { return [16]byte{10, 0, 0, n}, port }
	var keys []Key
	for _, proto := range []Proto{TCP, UDP} {
		add := func(src, dst byte, sport, dport uint16) {
			k := Key{Family: IPv4, Proto: proto}
			k.Src, k.SrcPort = addr(src, sport)
			k.Dst, k.DstPort = addr(dst, dport)
			keys = append(keys, k)
		}
		add(1, 9, 1000, 80) // client to server
		add(9, 1, 80, 1000)
		add(2, 9, 1000, 80) // another client
		add(9, 2, 80, 1000)
		add(1, 9, 1001, 80) // either client, translated
		add(9, 254, 80, 5000)
		add(3, 3, 7, 7) // to itself
	}
	return keys
}

// replyOf picks what a tuple is answered with: turned round, or translated.
func replyOf(orig Key, translated bool) Key {
	reply := orig.Reverse()
	if translated {
		reply.Dst, reply.DstPort = [16]byte{10, 0, 0, 254}, 5000
	}
	return reply
}

var statuses = []Status{0, replied, offload, hw, StatusSeenReply | StatusDying, offload | StatusDying}

// anyEvent draws events as the kernel sends them, in any order.
func anyEvent(kinds ...Kind) *rapid.Generator[*Event] {
	return rapid.Custom(func(t *rapid.T) *Event {
		orig := rapid.SampledFrom(space).Draw(t, "orig")
		ev := event(rapid.SampledFrom(kinds).Draw(t, "kind"), orig, rapid.Uint32Range(1, 3).Draw(t, "id"))
		ev.Reply = replyOf(orig, rapid.Bool().Draw(t, "translated"))
		ev.Has |= Has(rapid.Uint16().Draw(t, "has")) &^ Partial
		if rapid.IntRange(0, 3).Draw(t, "whole") > 0 {
			ev.Has |= HasID | HasReply
		}
		ev.Status = rapid.SampledFrom(statuses).Draw(t, "status")
		ev.Mark, ev.Timeout = rapid.Uint32Range(0, 1).Draw(t, "mark"), rapid.SampledFrom([]uint32{0, 1, 10, 11, 60}).Draw(t, "timeout")
		ev.Labels[3] = byte(ev.Mark << 2)
		ev.TCP = TCPState(rapid.Uint8Range(0, uint8(TCPSynSent2)).Draw(t, "tcp"))
		withCounters(rapid.Uint64Range(0, 3).Draw(t, "packets"), rapid.Uint64Range(0, 3).Draw(t, "answers"))(ev)
		return ev
	})
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newChecked(t)
		c.TB = tb{t, rt}
		draw := func(kinds ...Kind) func(*rapid.T) {
			return func(rt *rapid.T) { c.step(anyEvent(kinds...).Draw(rt, "event")) }
		}
		actions := map[string]func(*rapid.T){
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
				c.remove(rapid.SampledFrom(space).Draw(rt, "orig"), rapid.Uint32Range(1, 3).Draw(rt, "id"), why)
			},
		}
		for range 8 { // some 30 events each
			rt.Repeat(actions)
		}
	})
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
		for range min(len(data)/8, 200) {
			c.step(eventFrom(data))
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
