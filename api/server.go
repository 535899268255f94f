// Package api serves flowd's interface to other programs, gRPC over a unix
// socket, and is its client. The wire format and its reference documentation are
// in flowdv1/flowd.proto.
package api

import (
	"context"
	"errors"
	"time"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

const (
	// listBatch flows travel in one message: some 100 bytes each, well below
	// gRPC's limit of 4 MiB for a message, and far above what a message costs.
	listBatch = 512
	// evictWait, and evictEach for each flow, is how long a caller waits to see
	// flows end: a loaded router still deletes 10,000 a second.
	evictWait = 2 * time.Second
	evictEach = 100 * time.Microsecond
	// refreshWait is how long a caller waits for the kernel's table to be read.
	refreshWait = 30 * time.Second
)

// Backend is what the server serves.
type Backend interface {
	Table() *flow.Table
	Journal() *flow.Journal
	// Now is the table's time, in ns since the epoch.
	Now() int64
	// Refresh returns when the table shows the kernel as of now or later.
	Refresh(context.Context) error
	// Evict asks for the deletion of these connections and returns how many were
	// still there; their ends follow in the journal.
	Evict(ctx context.Context, flows []flow.Flow, why flow.Reason) (int, error)
	// SetLifetime gives these connections a lifetime of their own, in seconds, or
	// with 0 back to the policy, and returns how many were still there.
	SetLifetime(flows []flow.Flow, seconds uint32) int
	Status() *flowdv1.Status
	// Ruleset is the ruleset in force, in nft syntax.
	Ruleset() string
}

// Server answers the calls of flowd.proto.
type Server struct {
	flowdv1.UnimplementedFlowdServer
	backend Backend
}

// NewServer returns a gRPC server for the backend, with reflection and the
// standard health service.
func NewServer(b Backend) *grpc.Server {
	s := grpc.NewServer()
	flowdv1.RegisterFlowdServer(s, &Server{backend: b})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	return s
}

// GetStatus implements flowdv1.FlowdServer.
func (s *Server) GetStatus(context.Context, *flowdv1.GetStatusRequest) (*flowdv1.Status, error) {
	return s.backend.Status(), nil
}

// GetRuleset implements flowdv1.FlowdServer.
func (s *Server) GetRuleset(context.Context, *flowdv1.GetRulesetRequest) (*flowdv1.Ruleset, error) {
	return &flowdv1.Ruleset{Nft: s.backend.Ruleset()}, nil
}

// ListFlows implements flowdv1.FlowdServer.
func (s *Server) ListFlows(req *flowdv1.ListFlowsRequest, out grpc.ServerStreamingServer[flowdv1.ListFlowsResponse]) error {
	q, err := fromFilter(req.Filter)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if !req.Cached {
		if err := s.refresh(out.Context()); err != nil {
			return err
		}
	}
	next, now := s.backend.Journal().Next(), s.clock()
	batch := &flowdv1.ListFlowsResponse{}
	for f := range s.backend.Table().All() {
		if !q.Match(f) {
			continue
		}
		batch.Flows = append(batch.Flows, toFlow(f, now))
		if len(batch.Flows) == listBatch {
			if err := out.Send(batch); err != nil {
				return err
			}
			batch = &flowdv1.ListFlowsResponse{}
		}
	}
	batch.NextSeq = next
	return out.Send(batch)
}

// GetFlow implements flowdv1.FlowdServer.
func (s *Server) GetFlow(ctx context.Context, req *flowdv1.GetFlowRequest) (*flowdv1.Flow, error) {
	q, err := fromSingle(req.Filter)
	if err != nil {
		return nil, err
	}
	flows, err := s.match(ctx, q)
	if err != nil {
		return nil, err
	}
	f, err := single(flows)
	if err != nil {
		return nil, err
	}
	return toFlow(f, s.clock()), nil
}

// fromSingle is fromFilter for one that must name a flow.
func fromSingle(m *flowdv1.Filter) (*flow.Filter, error) {
	q, err := fromFilter(m)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if _, whole := q.Key(); !whole && q.ID == nil {
		return nil, status.Error(codes.InvalidArgument,
			"one flow is named by protocol, source, destination and both ports, or by its conntrack id; to see many, list them")
	}
	return q, nil
}

// single returns the only one of the flows that a filter selects.
func single(flows []flow.Flow) (*flow.Flow, error) {
	switch len(flows) {
	case 0:
		return nil, errNoFlow
	case 1:
		return &flows[0], nil
	}
	return nil, status.Errorf(codes.FailedPrecondition,
		"%d flows match, the first two in zones %d and %d with ids %d and %d: name the zone or the id",
		len(flows), flows[0].Orig.Zone, flows[1].Orig.Zone, flows[0].ID, flows[1].ID)
}

var errNoFlow = status.Error(codes.NotFound, "no such flow; list the flows to see which there are")

func (s *Server) clock() clock {
	now := s.backend.Now()
	return clock{now: now, shift: time.Now().UnixNano() - now}
}

// match reads the kernel and returns the flows that a filter selects.
func (s *Server) match(ctx context.Context, q *flow.Filter) ([]flow.Flow, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	return s.scan(q), nil
}

// scan looks the table through for the flows that a filter selects.
func (s *Server) scan(q *flow.Filter) []flow.Flow {
	var flows []flow.Flow
	for f := range s.backend.Table().All() {
		if q.Match(f) {
			flows = append(flows, *f)
		}
	}
	return flows
}

func (s *Server) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	err := s.backend.Refresh(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return status.Errorf(codes.DeadlineExceeded, "the kernel's connection table was not read within %v; \"cached\" lists what is known", refreshWait)
	}
	return err
}

// EvictFlows implements flowdv1.FlowdServer.
func (s *Server) EvictFlows(ctx context.Context, req *flowdv1.EvictFlowsRequest) (*flowdv1.EvictFlowsResponse, error) {
	q, err := fromFilter(req.Filter)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if *q == (flow.Filter{}) && !req.All {
		return nil, status.Error(codes.InvalidArgument, "an empty filter would evict every flow: set all (flowctl: --all) if that is what is meant")
	}
	seq := s.backend.Journal().Next() // from here on no end of a flow that matches is missed
	flows, err := s.match(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(flows) == 0 {
		return nil, status.Error(codes.NotFound, "no flow matches; list the flows to see which there are")
	}
	ends := followEnds(s.backend, flows, seq, s.clock().shift)
	if _, err := s.backend.Evict(ctx, flows, flow.ReasonCommand); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, evictWait+time.Duration(len(flows))*evictEach)
	defer cancel()
	return ends.wait(ctx), nil
}
