package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// live asks for a lifetime of some seconds.
func live(q *flowdv1.Filter, seconds uint32) *flowdv1.UpdateFlowRequest {
	return &flowdv1.UpdateFlowRequest{Filter: q, LifetimeS: proto.Uint32(seconds)}
}

// zoned is named with the zone.
func zoned(k flow.Key) *flowdv1.Filter {
	q := named(k)
	q.Zone = proto.Uint32(uint32(k.Zone))
	return q
}

// However a flow is named, the kernel's table is not read for it.
func TestUpdateFlow(t *testing.T) {
	nat := natted()
	c, w := serve(t, 64, append(many(1, 5), nat)...)
	w.kernel.setDeaf()
	filters := []*flowdv1.Filter{{Id: proto.Uint32(77)}}
	for _, k := range []flow.Key{nat.Orig, nat.Orig.Reverse(), nat.Reply, nat.Reply.Reverse()} {
		filters = append(filters, named(k), zoned(k))
	}
	for i, q := range filters {
		want := uint32(60 + i)
		f, err := c.UpdateFlow(t.Context(), live(q, want))
		if err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		if f.Id != 77 || f.LifetimeS != want || !f.OwnLifetime || f.GetExpiresS() > want || f.GetExpiresS() < want-10 {
			t.Errorf("%v: has become %v", q, f)
		}
		f, err = c.UpdateFlow(t.Context(), live(q, 0))
		if err != nil || f.LifetimeS != 180 || f.OwnLifetime {
			t.Errorf("%v: given back it is %v, %v", q, f, err)
		}
	}
	for f := range w.Table().All() {
		if f.Own {
			t.Errorf("flow %d has a lifetime of its own", f.ID)
		}
	}
}

func TestUpdateFlowToTheLongest(t *testing.T) {
	c, _ := serve(t, 64, many(1, 1)...)
	f, err := c.UpdateFlow(t.Context(), live(zoned(many(1, 1)[0].Orig), maxLifetime))
	if err != nil || f.LifetimeS != maxLifetime {
		t.Errorf("lifetime %d, %v; want %d", f.GetLifetimeS(), err, maxLifetime)
	}
}

func TestUpdateFlowInOneOfTwoZones(t *testing.T) {
	c, w := serve(t, 64, twoZones()...)
	f, err := c.UpdateFlow(t.Context(), live(zoned(twoZones()[1].Orig), 60))
	if err != nil || f.Id != 2 || f.Orig.Zone != 8 || f.LifetimeS != 60 {
		t.Errorf("flow %v, %v, want 2 in zone 8", f, err)
	}
	if other, _ := w.Table().Find(twoZones()[0].Orig); other.Own {
		t.Error("the flow in the other zone is changed too")
	}
}

// A tuple may be that of a flow before translation and that of another after it.
func TestUpdateFlowOfTwoOnOneTuple(t *testing.T) {
	one := natted()
	other := entry(tuple(flow.TCP, "10.0.0.6:5", "192.0.2.6:6", 0), 78)
	other.Reply = one.Orig.Reverse()
	c, _ := serve(t, 64, one, other)
	if _, err := c.UpdateFlow(t.Context(), live(zoned(one.Orig), 60)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("error %v", err)
	}
	q := zoned(one.Orig)
	q.Id = proto.Uint32(78)
	if f, err := c.UpdateFlow(t.Context(), live(q, 60)); err != nil || f.Id != 78 {
		t.Errorf("flow %v, %v, want 78", f, err)
	}
}

// What no event has told of yet is looked for in the kernel.
func TestUpdateFlowThatIsNotKnownYet(t *testing.T) {
	ev := many(1, 1)[0]
	c, w := serve(t, 64)
	w.kernel.mu.Lock()
	w.kernel.entries[ev.Orig] = ev
	w.kernel.mu.Unlock()
	if f, err := c.UpdateFlow(t.Context(), live(zoned(ev.Orig), 60)); err != nil || f.LifetimeS != 60 {
		t.Errorf("flow %v, %v", f, err)
	}
}

// A flow that is being deleted is not kept by a longer life.
func TestUpdateFlowThatIsBeingDeleted(t *testing.T) {
	ev := many(1, 1)[0]
	c, w := serve(t, 64, ev)
	w.kernel.setDeaf()
	f, _ := w.Table().Find(ev.Orig)
	if _, err := w.Evict(t.Context(), []flow.Flow{f}, flow.ReasonCommand); err != nil {
		t.Fatal(err)
	}
	_, err := c.UpdateFlow(t.Context(), live(zoned(ev.Orig), 60))
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "the flow is being deleted already: command" {
		t.Errorf("error %v", err)
	}
}

// A flow lives as long as it is told, and not as the policy says.
func TestUpdatedFlowEndsInTime(t *testing.T) {
	for _, seconds := range []uint32{10, 300} {
		synctest.Test(t, func(t *testing.T) {
			ev := many(1, 1)[0]
			ev.Packets, ev.Has = [2]uint64{1, 1}, ev.Has|flow.HasCounters
			w := start(t, 64)
			w.kernel.create(ev)
			w.settle(t)
			begun := time.Now()
			if _, err := (&Server{backend: w}).UpdateFlow(t.Context(), live(zoned(ev.Orig), seconds)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var end flow.Change
			for buf, seq := make([]flow.Change, 64), uint64(1); !end.Kind.Ends(); {
				n, err := w.Journal().Since(seq, buf)
				if err != nil || ctx.Err() != nil {
					t.Fatal(err, ctx.Err())
				}
				if seq += uint64(n); n > 0 {
					end = buf[n-1]
					continue
				}
				select {
				case <-w.Journal().Grown(seq):
				case <-ctx.Done():
				}
			}
			want := time.Duration(seconds) * time.Second
			if took := time.Since(begun); took < want-time.Second || took > want+2*time.Second {
				t.Errorf("ended after %v, want %v", took, want)
			}
			if c := toChange(&end, 0); c.Event != "expired" || c.Reason != "idle" || c.Flow.LifetimeS != seconds {
				t.Errorf("the end is %v", c)
			}
		})
	}
}

// BenchmarkUpdateFlow is what it takes in a table of 100,000 flows, without the
// socket, of a flow whose zone is named or is not.
func BenchmarkUpdateFlow(b *testing.B) {
	w := start(b, 1<<17)
	flows := many(1, 100_000)
	w.kernel.create(flows...)
	w.settle(b)
	s := &Server{backend: w}
	for name, q := range map[string]*flowdv1.Filter{"zone": zoned(flows[50_000].Orig), "any": named(flows[50_000].Orig)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.UpdateFlow(b.Context(), live(q, 60)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
