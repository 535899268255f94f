package api

import (
	"context"
	"errors"
	"io"
	"testing"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/protobuf/proto"
)

// listing reads a stream of flows to its end.
type listing struct {
	flows    map[uint32]*flowdv1.Flow // by id
	messages int
	nextSeq  uint64
}

// list lists what a filter selects; between is called after the first message.
func list(t *testing.T, c flowdv1.FlowdClient, req *flowdv1.ListFlowsRequest, between func()) listing {
	t.Helper()
	s, err := c.ListFlows(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	l := listing{flows: map[uint32]*flowdv1.Flow{}}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		if l.nextSeq != 0 {
			t.Error("a message comes after the last one, which has next_seq")
		}
		l.nextSeq = m.NextSeq
		for _, f := range m.Flows {
			if l.flows[f.Id] != nil {
				t.Errorf("flow %d comes twice", f.Id)
			}
			l.flows[f.Id] = f
		}
		if l.messages++; l.messages == 1 && between != nil {
			between()
		}
	}
}

func TestListEmpty(t *testing.T) {
	c, _ := serve(t, 64)
	if l := list(t, c, &flowdv1.ListFlowsRequest{}, nil); len(l.flows) != 0 || l.messages != 1 || l.nextSeq != 1 {
		t.Errorf("%d flows in %d messages, next_seq %d; want one message with next_seq 1", len(l.flows), l.messages, l.nextSeq)
	}
}

func TestListIsComplete(t *testing.T) {
	const n = 5000
	c, _ := serve(t, 8192, many(1, n)...)
	l := list(t, c, &flowdv1.ListFlowsRequest{}, nil)
	if len(l.flows) != n || l.messages < n/listBatch {
		t.Errorf("%d flows in %d messages, want %d", len(l.flows), l.messages, n)
	}
	if l.nextSeq != n+1 {
		t.Errorf("next_seq %d after %d changes", l.nextSeq, n)
	}
}

// A full last message is followed by an empty one.
func TestListOfWholeMessages(t *testing.T) {
	c, _ := serve(t, 2048, many(1, 2*listBatch)...)
	l := list(t, c, &flowdv1.ListFlowsRequest{}, nil)
	if len(l.flows) != 2*listBatch || l.messages != 3 || l.nextSeq == 0 {
		t.Errorf("%d flows in %d messages, next_seq %d", len(l.flows), l.messages, l.nextSeq)
	}
}

func TestListFilter(t *testing.T) {
	marked := entry(tuple(flow.TCP, "10.9.0.1:1", "192.0.2.1:80", 0), 900)
	marked.Mark, marked.Has = 0x12, marked.Has|flow.HasMark
	c, _ := serve(t, 64, append(many(1, 5), marked)...)
	for name, tc := range map[string]struct {
		q    *flowdv1.Filter
		want int
	}{
		"all":      {nil, 6},
		"empty":    {&flowdv1.Filter{}, 6},
		"network":  {&flowdv1.Filter{Src: "10.9.0.0/16"}, 1},
		"protocol": {&flowdv1.Filter{Protocol: proto.Uint32(17)}, 5},
		"mark":     {&flowdv1.Filter{Mark: proto.Uint32(0xf2), MarkMask: 0xf}, 1},
		"state":    {&flowdv1.Filter{State: flowdv1.State_STATE_NEW.Enum()}, 0},
		"offload":  {&flowdv1.Filter{Offload: flowdv1.Offload_OFFLOAD_NONE.Enum()}, 6},
		"none":     {&flowdv1.Filter{Id: proto.Uint32(12345)}, 0},
	} {
		if l := list(t, c, &flowdv1.ListFlowsRequest{Filter: tc.q}, nil); len(l.flows) != tc.want || l.nextSeq == 0 {
			t.Errorf("%s: %d flows, want %d; next_seq %d", name, len(l.flows), tc.want, l.nextSeq)
		}
	}
}

// Reading the kernel first shows what no event has told.
func TestListReadsTheKernel(t *testing.T) {
	c, w := serve(t, 64, many(1, 1)...)
	w.kernel.count(many(1, 1)[0].Orig, 9)
	for _, tc := range []struct {
		cached bool
		want   uint64
	}{{true, 0}, {false, 9}} {
		l := list(t, c, &flowdv1.ListFlowsRequest{Cached: tc.cached}, nil)
		if got := l.flows[1].GetPacketsOrig(); got != tc.want {
			t.Errorf("cached %v: %d packets, want %d", tc.cached, got, tc.want)
		}
	}
}

// A cached listing does not ask the kernel.
func TestListCached(t *testing.T) {
	c, w := serve(t, 64, many(1, 5)...)
	w.kernel.setDeaf()
	if l := list(t, c, &flowdv1.ListFlowsRequest{Cached: true}, nil); len(l.flows) != 5 {
		t.Errorf("%d flows, want 5", len(l.flows))
	}
}

// A listing and the changes from its next_seq on are the table, whatever happens
// while it is listed.
func TestListThenWatchMissesNothing(t *testing.T) {
	const n = 5000
	c, w := serve(t, 1<<16, many(1, n)...)
	churn := func() {
		for i := uint32(0); i < 1000; i += 100 {
			w.kernel.create(many(n+1+i, 100)...)
			for _, ev := range many(1+3*i, 100) {
				w.kernel.destroy(ev.Orig)
			}
		}
	}
	l := list(t, c, &flowdv1.ListFlowsRequest{}, churn)
	w.settle(t)
	last := w.Journal().Next()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Watch(ctx, &flowdv1.WatchRequest{SinceSeq: l.nextSeq})
	if err != nil {
		t.Fatal(err)
	}
	for seq := l.nextSeq; seq < last; {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range m.Changes {
			if change.Seq != seq {
				t.Fatalf("change %d, want %d", change.Seq, seq)
			}
			seq++
			if l.flows[change.Flow.Id] = change.Flow; change.Reason != "" {
				delete(l.flows, change.Flow.Id)
			}
		}
	}
	if len(l.flows) != w.Table().Len() {
		t.Errorf("a watcher knows %d flows, the table has %d", len(l.flows), w.Table().Len())
	}
	for f := range w.Table().All() {
		if l.flows[f.ID] == nil {
			t.Errorf("a watcher does not know flow %d", f.ID)
		}
	}
}
