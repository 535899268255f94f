package flow

import "slices"

// sweep has the table swept, and holds what it asks for against the model.
func (c *checked) sweep(max int) {
	flows := c.Len()
	actions, more := c.Sweep(nil, c.now, max)
	c.full = !more
	for _, a := range actions {
		f := c.model.holder(a.Orig)
		switch {
		case f == nil || f.Orig != a.Orig || f.ID != a.ID:
			if a.Verb == Remove || a.Verb == Extend {
				continue // it has ended since it was asked for
			}
		case a.Verb == Read:
			f.asked = c.now
			c.reads = append(c.reads, a)
		case a.Verb == Extend:
			c.extendAllowed(f, &a)
			f.expires, f.asked = c.now+int64(a.Timeout)*second, c.now
		case a.Verb == Remove:
			c.removeAllowed(f, flows)
		}
	}
	if c.full {
		c.overdue()
	}
}

// removeAllowed fails if there is no ground for a flow to be deleted: its
// lifetime without a packet, as far as events told, a command, or want of room.
func (c *checked) removeAllowed(f *modelFlow, flows int) {
	c.Helper()
	now := c.flow(f.Orig)
	if f.Reason != ReasonNone {
		return // it was asked for before
	}
	f.Reason = now.Reason
	switch silent := c.now - f.shown; now.Reason {
	case ReasonRecycled:
		if limit := c.Stats().Limit; !c.limited || limit > 0 && flows <= limit-limit/8-1 {
			c.Fatalf("recycled: %v, one of %d flows with a limit of %d", f.Orig, flows, limit)
		}
	default:
		if want := f.overReason(); now.Reason != want {
			c.Fatalf("%v %v is removed as %v, want %v", f.State, f.Orig, now.Reason, want)
		}
		if c.limited {
			silent *= 3 // its lifetime was up to that much shorter
		}
		if silent < now.Lifetime {
			c.Fatalf("%v %v is removed as %v after %d ms of silence, its lifetime is %d s",
				f.State, f.Orig, now.Reason, silent/1e6, now.Lifetime/second)
		}
	}
}

// extendAllowed fails unless the kernel would end a flow before its life is over, and
// is told to give it enough time; or it is a candidate that has a second left or less,
// and gets no more.
func (c *checked) extendAllowed(f *modelFlow, a *Action) {
	c.Helper()
	now := c.flow(f.Orig)
	silent, until, life := c.now-f.shown, c.now+int64(a.Timeout)*second, now.Lifetime
	if c.limited {
		life /= 3 // it may have been so much shorter
	}
	switch {
	case f.Status&StatusOffload != 0 || f.Reason != ReasonNone:
		c.Fatalf("%v is given time, status %x, reason %v", f.Orig, f.Status, f.Reason)
	case f.Candidate && (a.Reopen || silent < life-second || until < f.shown+life || until > now.Seen+now.Lifetime+2*second+tick && a.Timeout > 1):
		c.Fatalf("candidate %v (%v) is given %d s after %d ms of silence", f.Orig, f.TCP, a.Timeout, silent/1e6)
	case f.Candidate:
	case f.expires > c.now+margin || f.expires == 0 || until < now.Seen+life || a.Reopen != (f.TCP == TCPClose && f.State == StateClosing):
		c.Fatalf("%v (%v) is given %d s, reopened %v; it had %d ms, and its life %d ms", f.Orig, f.TCP,
			a.Timeout, a.Reopen, (f.expires-c.now)/1e6, (now.Seen+now.Lifetime-c.now)/1e6)
	}
}

// overdue fails if a flow that is over by what the table itself shows of it was not
// asked for: each second, or two where it was asked for again to make room.
func (c *checked) overdue() {
	for _, m := range c.model.flows {
		f, _ := c.Find(m.Orig)
		over := f.Seen + f.Lifetime + second + eighth + 2*tick
		slot, _ := c.lookup(&m.Orig)
		soon := int32(c.slab.at(slot).armed-c.wheel.now) <= 2 // its lifetime has just been made shorter
		if f.Reason == ReasonNone && over < c.now && m.asked < c.now-2*retry-2*tick && !soon {
			c.Fatalf("%v is over for %d ms and was asked for %d ms ago", f.Orig, (c.now-f.Seen-f.Lifetime)/1e6, (c.now-m.asked)/1e6)
		}
	}
}

// wait lets time pass, with the table swept now and then.
func (c *checked) wait(eighths int64, max int) {
	c.Helper()
	for range eighths {
		c.now += second / 8
		if eighths < 100 || c.now%second == 0 {
			c.sweep(max)
		}
	}
	for c.sweep(max); !c.full; c.sweep(max) {
	}
	audit(c, c.Table)
	c.compare()
}

// silence answers a read with what is known already: if the flow's life is over it
// is removed, with the reason that its state has.
func (c *checked) silence(k Key) {
	c.Helper()
	f := c.model.holder(k)
	if f == nil || f.asked == 0 || f.Reason != ReasonNone || slices.Contains(c.model.ended, connection{f.Orig, f.ID}) {
		return
	}
	ev := event(Answer, f.Orig, f.ID, withReply(f.Reply), withStatus(f.Status), withMark(f.Mark), withTCP(f.TCP), withCounters(0, 0))
	ev.Packets, ev.Labels = f.Packets, f.Labels
	ev.Has |= HasLabels
	if f.Status&StatusOffload != 0 || f.Orig.Proto != TCP {
		ev.Has &^= HasTCP
	}
	if f.expires > c.now && f.Status&StatusOffload == 0 {
		withTimeout(uint32((f.expires - c.now) / second))(ev)
	}
	slot, _ := c.lookup(&f.Orig)
	r := c.slab.at(slot)
	over, state := r.bits.has(asked) && c.deadline(r) <= c.now, f.State
	c.step(ev)
	if g := c.model.holder(k); g != f || !over || f.State != state || f.Candidate && f.Status&StatusOffload != 0 {
		return
	}
	if f.Candidate && f.expires == c.now+second {
		return // it is left to expire: asked again, it is removed
	}
	if got := c.flow(f.Orig); got.Reason != f.overReason() {
		c.Fatalf("%v is over and was shown to be silent; its reason is %v", f.Orig, got.Reason)
	}
}

// seenAsDocumented fails unless Seen is when the flow last showed a packet, or later,
// and what an event showed just now has been seen now.
func (c *checked) seenAsDocumented(ev *Event) {
	c.Helper()
	for _, m := range c.model.flows {
		f := c.flow(m.Orig)
		switch {
		case f.Seen > c.now:
			c.Fatalf("%v was seen in the future", f.Orig)
		case f.Seen < m.shown && f.State != StateNew:
			c.Fatalf("%v was seen %d ms before it showed a packet", f.Orig, (m.shown-f.Seen)/1e6)
		case ev.Orig == f.Orig && m.shown == c.now && f.Seen != c.now:
			c.Fatalf("%v has shown a packet, and is seen %d ms ago", f.Orig, (c.now-f.Seen)/1e6)
		}
	}
}

func (c *checked) limit(flows int) {
	c.SetLimit(flows)
	c.limited = c.limited || flows > 0
}
