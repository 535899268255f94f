package api

import (
	"context"
	"time"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// MaxLifetime is the longest that a flow may be given, and a configuration may say:
// it is far below the 24 days that the kernel's clock can tell (nf_ct_expires,
// net/netfilter/nf_conntrack.h, at HZ=1000).
const MaxLifetime = 240 * time.Hour

// maxLifetime is MaxLifetime in s.
const maxLifetime = uint32(MaxLifetime / time.Second)

// UpdateFlow implements flowdv1.FlowdServer.
func (s *Server) UpdateFlow(ctx context.Context, req *flowdv1.UpdateFlowRequest) (*flowdv1.Flow, error) {
	q, err := fromSingle(req.Filter)
	if err != nil {
		return nil, err
	}
	switch {
	case req.LifetimeS == nil:
		return nil, status.Error(codes.InvalidArgument, "nothing is to be changed: set lifetime_s, to 0 to give the flow back to the policy")
	case *req.LifetimeS > maxLifetime:
		return nil, status.Errorf(codes.InvalidArgument,
			"lifetime_s %d: not from 1 to %d, nor 0 to give the flow back to the policy", *req.LifetimeS, maxLifetime)
	}
	flows := s.known(q)
	if len(flows) == 0 {
		if flows, err = s.match(ctx, q); err != nil {
			return nil, err
		}
	}
	f, err := single(flows)
	if err != nil {
		return nil, err
	}
	if f.Reason != flow.ReasonNone {
		return nil, status.Errorf(codes.NotFound, "the flow is being deleted already: %v", f.Reason)
	}
	s.backend.SetLifetime(flows, *req.LifetimeS)
	now, ok := s.backend.Table().Get(f.Handle)
	if !ok {
		return nil, errNoFlow // it ended meanwhile
	}
	return toFlow(&now, s.clock()), nil
}

// known returns the flows that the table has of a filter that names one. A whole
// tuple is looked up, whatever the size of the table; only where there are zones, and
// the filter names none, it may be that of several flows.
func (s *Server) known(q *flow.Filter) []flow.Flow {
	k, whole := q.Key()
	if !whole || q.Zone == nil && s.backend.Table().Stats().Zoned > 0 {
		return s.scan(q)
	}
	// The tuple may be that of one flow, and turned round that of another: where
	// addresses are translated these are two.
	var flows []flow.Flow
	for _, k := range [...]flow.Key{k, k.Reverse()} {
		f, ok := s.backend.Table().Find(k)
		if ok && q.Match(&f) && (len(flows) == 0 || flows[0].Handle != f.Handle) {
			flows = append(flows, f)
		}
	}
	return flows
}
