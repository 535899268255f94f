package api

import (
	"testing"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
)

func TestGetStatusAndRuleset(t *testing.T) {
	c, w := serve(t, 64, many(1, 3)...)
	s, err := c.GetStatus(t.Context(), &flowdv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != "1.2.3" || !s.Ready || s.Table.GetFlows() != 3 {
		t.Errorf("status %v", s)
	}
	r, err := c.GetRuleset(t.Context(), &flowdv1.GetRulesetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Nft != w.Ruleset() {
		t.Errorf("ruleset %q", r.Nft)
	}
}

// named is the filter that names a whole tuple.
func named(k flow.Key) *flowdv1.Filter {
	return &flowdv1.Filter{
		Protocol: proto.Uint32(uint32(k.Proto)), Src: k.SrcAddr().String(), Dst: k.DstAddr().String(),
		Sport: proto.Uint32(uint32(k.SrcPort)), Dport: proto.Uint32(uint32(k.DstPort)),
	}
}

// natted is a connection of which all addresses are translated.
func natted() flow.Event {
	ev := entry(tuple(flow.TCP, "10.0.0.5:1000", "192.0.2.1:80", 0), 77)
	ev.Reply = tuple(flow.TCP, "172.16.0.9:8080", "192.0.2.254:2000", 0)
	return ev
}

func TestGetFlowFromEverySide(t *testing.T) {
	nat := natted()
	v6 := entry(tuple(flow.TCP, "[2001:db8::1]:1", "[2001:db8::2]:2", 0), 6)
	c, _ := serve(t, 64, append(many(1, 5), nat, v6)...)
	get := func(q *flowdv1.Filter, want uint32) {
		t.Helper()
		f, err := c.GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: q})
		if err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		if f.Id != want {
			t.Errorf("%v finds flow %d, want %d", q, f.Id, want)
		}
	}
	for _, k := range []flow.Key{nat.Orig, nat.Orig.Reverse(), nat.Reply, nat.Reply.Reverse()} {
		get(named(k), 77)
	}
	get(named(v6.Orig), 6)
	get(&flowdv1.Filter{Id: proto.Uint32(3)}, 3)
}

func TestGetFlowInOneOfTwoZones(t *testing.T) {
	c, _ := serve(t, 64, twoZones()...)
	q := named(twoZones()[0].Orig)
	q.Zone = proto.Uint32(8)
	f, err := c.GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: q})
	if err != nil {
		t.Fatal(err)
	}
	if f.Id != 2 || f.Orig.Zone != 8 {
		t.Errorf("flow %d in zone %d, want 2 in 8", f.Id, f.Orig.Zone)
	}
}

// twoZones are two connections on one tuple.
func twoZones() []flow.Event {
	return []flow.Event{
		entry(tuple(flow.TCP, "10.0.0.1:1", "192.0.2.1:80", 7), 1),
		entry(tuple(flow.TCP, "10.0.0.1:1", "192.0.2.1:80", 8), 2),
	}
}

// Reading the kernel first shows what no event has told.
func TestGetFlowReadsTheKernel(t *testing.T) {
	ev := entry(tuple(flow.TCP, "10.0.0.1:1", "192.0.2.1:80", 0), 1)
	c, w := serve(t, 64, ev)
	w.kernel.count(ev.Orig, 9)
	f, err := c.GetFlow(t.Context(), &flowdv1.GetFlowRequest{Filter: named(ev.Orig)})
	if err != nil {
		t.Fatal(err)
	}
	if f.PacketsOrig != 9 || f.PacketsReply != 9 {
		t.Errorf("packets %d and %d, want those of now, 9 and 9", f.PacketsOrig, f.PacketsReply)
	}
}

func TestHealth(t *testing.T) {
	_, conn := dial(t, start(t, 64))
	r, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health %v", r.Status)
	}
}

func TestReflection(t *testing.T) {
	_, conn := dial(t, start(t, 64))
	s, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range r.GetListServicesResponse().GetService() {
		if service.Name == flowdv1.Flowd_ServiceDesc.ServiceName {
			return
		}
	}
	t.Errorf("reflection does not show the service: %v", r)
}
