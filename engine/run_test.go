package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"flowd/flow"
)

// running is an engine that runs, and the ends of its sources that a test holds.
type running struct {
	testing.TB
	*Engine
	kernel                     *kernelStub
	events, answers, sightings chan []flow.Event
	recycled                   [][]flow.Event
	stop                       context.CancelFunc
	ended                      chan error
	ctx                        context.Context
}

// run starts an engine within a bubble; when the test ends so does the engine.
func run(t *testing.T, test func(r *running)) {
	synctest.Test(t, func(t *testing.T) {
		k := &kernelStub{number: 1}
		r := &running{
			TB: t, Engine: New(defaults(), k, 1024), kernel: k,
			events: make(chan []flow.Event), answers: make(chan []flow.Event), sightings: make(chan []flow.Event),
			ended: make(chan error, 1),
		}
		r.ctx, r.stop = context.WithCancel(t.Context())
		defer r.stop()
		src := Sources{
			Events: r.events, Answers: r.answers, Sightings: r.sightings,
			Recycle: func(batch []flow.Event) { r.recycled = append(r.recycled, batch) },
		}
		go func() { r.ended <- r.Run(r.ctx, src) }()
		test(r)
		r.stop()
		synctest.Wait()
	})
}

// send hands events to the engine and waits until they are worked off.
func (r *running) send(to chan []flow.Event, events ...flow.Event) {
	r.Helper()
	to <- events
	synctest.Wait()
}

// pending starts a call that must not return yet, and returns what it will.
func (r *running) pending(call func() error) chan error {
	r.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	r.waiting(done)
	return done
}

func (r *running) waiting(done chan error) {
	r.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		r.Fatalf("returned already: %v", err)
	default:
	}
}

// returned fails unless a call has returned, with the error that is wanted.
func (r *running) returned(done chan error, want error) {
	r.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			r.Fatalf("error %v, want %v", err, want)
		}
	default:
		r.Fatal("does not return")
	}
}

var conn = func() flow.Key {
	k, err := tuple(flow.TCP, "10.0.0.1:1000", "192.0.2.1:80")
	if err != nil {
		panic(err)
	}
	return k
}()

// about makes an event of the one connection of these tests.
func about(kind flow.Kind, id uint32) flow.Event {
	return flow.Event{
		Kind: kind, Orig: conn, Reply: conn.Reverse(), ID: id, Has: flow.HasReply | flow.HasID | flow.HasStatus,
		Status: flow.StatusSeenReply | flow.StatusOffload,
	}
}

func syncEnd(number uint32, has flow.Has) flow.Event {
	return flow.Event{Kind: flow.SyncEnd, ID: number, Has: has}
}

func TestRefreshWaitsForALaterDump(t *testing.T) {
	run(t, func(r *running) {
		r.kernel.number = 5 // number 4 is under way
		done := r.pending(func() error { return r.Refresh(r.ctx) })
		r.send(r.events, syncEnd(4, 0))
		r.waiting(done)
		r.send(r.events, syncEnd(5, flow.Partial))
		r.waiting(done)
		r.send(r.events, syncEnd(6, 0))
		r.returned(done, nil)
		r.kernel.number = 7
		done = r.pending(func() error { return r.Refresh(r.ctx) })
		r.send(r.events, syncEnd(7, 0))
		r.returned(done, nil)
	})
}

// What a dump showed is in the table when Refresh returns.
func TestRefreshReturnsWithTheTableDone(t *testing.T) {
	run(t, func(r *running) {
		got := make(chan bool, 1)
		go func() {
			err := r.Refresh(r.ctx)
			_, ok := r.Table().Find(conn)
			got <- ok && err == nil
		}()
		synctest.Wait()
		r.send(r.events, flow.Event{Kind: flow.SyncStart, ID: 1}, about(flow.Sample, 1), syncEnd(1, 0))
		if !<-got {
			r.Error("Refresh returned before the table was complete")
		}
	})
}

func TestSynced(t *testing.T) {
	run(t, func(r *running) {
		first := r.pending(func() error { return r.Synced(r.ctx) })
		second := r.pending(func() error { return r.Synced(r.ctx) })
		r.send(r.events, syncEnd(1, flow.Partial))
		r.waiting(first)
		r.send(r.events, syncEnd(2, 0))
		r.returned(first, nil)
		r.returned(second, nil)
		if err := r.Synced(r.ctx); err != nil {
			r.Error(err)
		}
	})
}

func TestWaitsEndWithTheirContext(t *testing.T) {
	run(t, func(r *running) {
		for name, call := range map[string]func(context.Context) error{
			"Refresh": r.Refresh, "Synced": r.Synced,
		} {
			ctx, cancel := context.WithTimeout(r.ctx, time.Second)
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				r.Errorf("%s: %v, want that its time is over", name, err)
			}
			cancel()
		}
		r.stop()
		synctest.Wait() // nobody takes commands any more
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if n, err := r.Evict(ctx, nil, flow.ReasonCommand); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			r.Errorf("Evict: %d, %v, want that its time is over", n, err)
		}
	})
}

func TestEvict(t *testing.T) {
	run(t, func(r *running) {
		r.send(r.events, about(flow.New, 1))
		f, _ := r.Table().Find(conn)
		flows := []flow.Flow{f, {}, {Orig: conn, ID: 1}}
		n, err := r.Evict(r.ctx, flows, flow.ReasonCommand)
		if n != 1 || err != nil {
			r.Errorf("Evict: %d, %v; want 1", n, err)
		}
		synctest.Wait()
		if got := r.kernel.take(); len(got) != 1 || got[0] != (flow.Action{Verb: flow.Remove, Orig: conn, ID: 1}) {
			r.Errorf("the kernel is asked %v", got)
		}
		r.send(r.events, about(flow.Destroy, 1))
		buf := make([]flow.Change, 8)
		n, err = r.Journal().Since(1, buf)
		if err != nil || n != 3 || buf[2].Kind != flow.Evicted || buf[2].Reason != flow.ReasonCommand {
			r.Errorf("%d changes, the last %v for %q, %v", n, buf[n-1].Kind, buf[n-1].Reason, err)
		}
	})
}

// Time alone leads to the next step: nothing has to happen.
func TestTicks(t *testing.T) {
	run(t, func(r *running) {
		r.send(r.events, about(flow.New, 1))
		r.send(r.sightings, flow.Event{Kind: flow.RST, Orig: conn})
		if got := r.kernel.take(); len(got) != 1 || got[0].Verb != flow.Read {
			r.Fatalf("asked %v of a new candidate, want a read", got)
		}
		for _, wait := range []time.Duration{time.Second, 4 * time.Second} {
			time.Sleep(wait + tick)
			synctest.Wait()
			if got := r.kernel.take(); len(got) != 1 || got[0].Verb != flow.Read {
				r.Fatalf("asked %v after %v, want a read", got, wait)
			}
			silent := about(flow.Answer, 1)
			silent.Has |= flow.HasCounters
			r.send(r.answers, silent)
		}
		if got := r.kernel.take(); len(got) != 1 || got[0].Verb != flow.Remove {
			r.Fatalf("asked %v of a silent candidate, want a removal", got)
		}
	})
}

func TestBatchesAreGivenBack(t *testing.T) {
	run(t, func(r *running) {
		batch := []flow.Event{about(flow.New, 1)}
		r.send(r.answers, about(flow.Sample, 1))
		r.send(r.sightings, flow.Event{Kind: flow.FIN, Orig: conn})
		r.send(r.events, batch...)
		if len(r.recycled) != 1 || len(r.recycled[0]) != 1 || r.recycled[0][0] != batch[0] {
			r.Errorf("given back: %v", r.recycled)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	run(t, func(r *running) {
		r.stop()
		r.returned(r.ended, nil)
	})
}

func TestRunFailsWhenEventsEnd(t *testing.T) {
	run(t, func(r *running) {
		close(r.events)
		synctest.Wait()
		if err := <-r.ended; err == nil || err.Error() != "engine: the stream of conntrack events ended" {
			r.Errorf("error %v", err)
		}
	})
}

// A reader that is told to end closes its stream: that is no failure.
func TestRunEndsWhenAllEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // either case of the select may come first
			ctx, stop := context.WithCancel(t.Context())
			stop()
			events := make(chan []flow.Event)
			close(events)
			e := New(defaults(), &kernelStub{}, 8)
			if err := e.Run(ctx, Sources{Events: events}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The other sources may end, or not be there.
func TestRunWithoutOtherSources(t *testing.T) {
	run(t, func(r *running) {
		close(r.answers)
		close(r.sightings)
		r.send(r.events, about(flow.New, 1))
		if r.Table().Len() != 1 {
			t.Error("events are not taken in any more")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		events := make(chan []flow.Event)
		ctx, stop := context.WithCancel(t.Context())
		e := New(defaults(), &kernelStub{}, 8)
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx, Sources{Events: events}) }()
		events <- []flow.Event{about(flow.New, 1)}
		synctest.Wait()
		if e.Table().Len() != 1 {
			t.Error("events are not taken in")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
