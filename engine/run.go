package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"flowd/flow"
)

// tick is how often the engine looks at what is due when nothing else happens.
const tick = 125 * time.Millisecond

// Sources are the streams that feed the engine. Each may be nil.
type Sources struct {
	Events    <-chan []flow.Event // conntrack's events and dumps
	Recycle   func([]flow.Event)  // takes batches of Events back
	Answers   <-chan []flow.Event // to Read requests
	Sightings <-chan []flow.Event // of FIN and RST, from the tap
}

// Run steps through what the sources bring until ctx ends. It fails when the
// stream of events ends before.
func (e *Engine) Run(ctx context.Context, src Sources) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	atOnce := make(chan struct{})
	close(atOnce)
	var more chan struct{} // atOnce while more flows are due than one step looks at
	step := func(batch []flow.Event) {
		if more = nil; e.step(batch) {
			more = atOnce
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-src.Events:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("engine: the stream of conntrack events ended")
			}
			step(batch)
			if src.Recycle != nil {
				src.Recycle(batch)
			}
		case batch, ok := <-src.Answers:
			if !ok {
				src.Answers = nil
			}
			step(batch)
		case batch, ok := <-src.Sightings:
			if !ok {
				src.Sightings = nil
			}
			step(batch)
		case <-ticker.C:
			step(nil)
		case <-more:
			step(nil)
		case c := <-e.commands:
			n := e.evict(c)
			step(nil)
			c.found <- n
		}
	}
}

// step reports whether there is more to do at once.
func (e *Engine) step(batch []flow.Event) bool {
	actions, more := e.Step(batch, e.Now())
	e.kernel.Submit(actions)
	return more
}

// evict is a command: end these connections.
type evict struct {
	flows []flow.Flow
	why   flow.Reason
	found chan int
}

// Evict has the kernel delete these very connections, and returns how many of them
// were still there. Their ends follow in the journal and carry the reason.
func (e *Engine) Evict(ctx context.Context, flows []flow.Flow, why flow.Reason) (int, error) {
	c := evict{flows: flows, why: why, found: make(chan int, 1)}
	select {
	case e.commands <- c:
		return <-c.found, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (e *Engine) evict(c evict) int {
	n := 0
	for i := range c.flows {
		if e.table.Delete(c.flows[i].Handle, c.why, e.Now()) {
			n++
		}
	}
	return n
}

// SetLifetime gives these very connections a lifetime of their own, in seconds; 0
// gives them back to the policy. It returns how many of them were still there.
func (e *Engine) SetLifetime(flows []flow.Flow, seconds uint32) int {
	n := 0
	for i := range flows {
		if e.table.SetLifetime(flows[i].Handle, seconds) {
			n++
		}
	}
	return n
}

// Refresh returns when the table shows the kernel as it was at the time of the
// call or later: counters, offload, and nothing missing.
func (e *Engine) Refresh(ctx context.Context) error {
	return e.syncs.wait(ctx, e.kernel.Refresh())
}

// Synced returns when the table is complete for the first time.
func (e *Engine) Synced(ctx context.Context) error { return e.syncs.wait(ctx, 1) }

// syncs lets goroutines wait for the end of a dump.
type syncs struct {
	mu   sync.Mutex
	done uint32        // number of the newest dump that ended whole
	next chan struct{} // closed at the end of the next one
}

func newSyncs() syncs { return syncs{next: make(chan struct{})} }

func (s *syncs) ended(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = number
	close(s.next)
	s.next = make(chan struct{})
}

func (s *syncs) wait(ctx context.Context, number uint32) error {
	for {
		s.mu.Lock()
		done, next := s.done, s.next
		s.mu.Unlock()
		if done >= number {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
