package api

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "write the errors of the calls to testdata/errors.golden")

// whole is a filter that names a whole tuple, which is not there.
func whole() *flowdv1.Filter { return named(tuple(flow.TCP, "10.0.0.9:9", "192.0.2.9:9", 0)) }

// with changes a filter that names a whole tuple.
func with(change func(*flowdv1.Filter)) *flowdv1.Filter {
	q := whole()
	change(q)
	return q
}

var badFilters = []struct {
	name string
	q    *flowdv1.Filter
}{
	{"protocol", &flowdv1.Filter{Protocol: proto.Uint32(256)}},
	{"address", &flowdv1.Filter{Src: "nonsense"}},
	{"prefix", &flowdv1.Filter{Dst: "192.0.2.0/33"}},
	{"port", &flowdv1.Filter{Sport: proto.Uint32(65536)}},
	{"zone", &flowdv1.Filter{Zone: proto.Uint32(65536)}},
	{"state", &flowdv1.Filter{State: flowdv1.State(4).Enum()}},
	{"negative state", &flowdv1.Filter{State: flowdv1.State(-1).Enum()}},
	{"offload", &flowdv1.Filter{Offload: flowdv1.Offload(3).Enum()}},
	{"families", &flowdv1.Filter{Src: "192.0.2.1", Dst: "2001:db8::1"}},
	{"mask without mark", &flowdv1.Filter{MarkMask: 0xf}},
	{"several things", &flowdv1.Filter{Protocol: proto.Uint32(999), Src: "x", Dport: proto.Uint32(1 << 20)}},
}

// TestErrors compares code and message of each error with a golden file.
func TestErrors(t *testing.T) {
	var out strings.Builder
	tell := func(name string, err error) {
		s := status.Convert(err)
		fmt.Fprintf(&out, "%s\n    %v: %s\n", name, s.Code(), strings.ReplaceAll(s.Message(), "\n", "\n        "))
	}
	c, _ := serve(t, 64, append(many(1, 70), twoZones()...)...)
	for _, bad := range badFilters {
		_, err := c.GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: bad.q})
		tell("filter: "+bad.name, err)
	}
	for _, q := range []struct {
		name string
		q    *flowdv1.Filter
	}{
		{"no filter", nil},
		{"part of a tuple", with(func(q *flowdv1.Filter) { q.Dport = nil })},
		{"prefix", with(func(q *flowdv1.Filter) { q.Src = "10.0.0.0/24" })},
		{"not there", whole()},
		{"id not there", &flowdv1.Filter{Id: proto.Uint32(12345)}},
		{"several zones", named(twoZones()[0].Orig)},
	} {
		_, err := c.GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: q.q})
		tell("get: "+q.name, err)
		_, err = c.UpdateFlow(t.Context(), &flowdv1.UpdateFlowRequest{Filter: q.q, LifetimeS: proto.Uint32(60)})
		tell("update: "+q.name, err)
	}
	_, err := c.UpdateFlow(t.Context(), &flowdv1.UpdateFlowRequest{Filter: named(twoZones()[0].Orig)})
	tell("update: nothing", err)
	_, err = c.UpdateFlow(t.Context(), &flowdv1.UpdateFlowRequest{Filter: whole(), LifetimeS: proto.Uint32(maxLifetime + 1)})
	tell("update: too long", err)
	_, err = c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{})
	tell("evict: no filter", err)
	_, err = c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{Filter: &flowdv1.Filter{}})
	tell("evict: empty filter", err)
	_, err = c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{Filter: whole()})
	tell("evict: not there", err)
	tell("watch: future", firstError(t, c, &flowdv1.WatchRequest{SinceSeq: 74}))
	tell("watch: too late", firstError(t, c, &flowdv1.WatchRequest{SinceSeq: 8}))
	tell("get: the kernel does not answer", deafKernel(t))
	golden(t, "testdata/errors.golden", out.String())
}

// Every call that takes a filter checks it.
func TestEveryCallChecksItsFilter(t *testing.T) {
	c, _ := serve(t, 64, many(1, 1)...)
	for _, bad := range badFilters {
		_, want := c.GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: bad.q})
		_, update := c.UpdateFlow(t.Context(), &flowdv1.UpdateFlowRequest{Filter: bad.q, LifetimeS: proto.Uint32(1)})
		_, evict := c.EvictFlows(t.Context(), &flowdv1.EvictFlowsRequest{Filter: bad.q, All: true})
		s, err := c.ListFlows(t.Context(), &flowdv1.ListFlowsRequest{Filter: bad.q})
		if err != nil {
			t.Fatal(err)
		}
		_, listed := s.Recv()
		for call, err := range map[string]error{
			"UpdateFlow": update, "EvictFlows": evict, "ListFlows": listed, "Watch": firstError(t, c, &flowdv1.WatchRequest{Filter: bad.q}),
		} {
			if err == nil || err.Error() != want.Error() {
				t.Errorf("%s: %s: %v, want %v", bad.name, call, err, want)
			}
		}
	}
}

// firstError watches until there is an error.
func firstError(t *testing.T, c flowdv1.FlowdClient, req *flowdv1.WatchRequest) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Watch(ctx, req)
	for err == nil {
		_, err = s.Recv()
	}
	return err
}

// deafKernel is what a call returns when the kernel's table cannot be read.
func deafKernel(t *testing.T) (err error) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 64)
		w.kernel.setDeaf()
		_, err = (&Server{backend: w}).GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: whole()})
	})
	return err
}

// golden compares a text with a file, or writes the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update rewrites it):\n%s", file, got)
	}
}
