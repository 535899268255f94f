package api

import (
	"context"
	"errors"

	"flowd/api/flowdv1"
	"flowd/flow"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// watchBatch is how many changes are taken from the journal, and sent, at a time.
const watchBatch = 256

// watchStride is how many changes may go by unsent, because no filter matches,
// before the watcher is told how far it has come.
const watchStride = 1 << 12

// Watch implements flowdv1.FlowdServer.
func (s *Server) Watch(req *flowdv1.WatchRequest, out grpc.ServerStreamingServer[flowdv1.WatchResponse]) error {
	q, err := fromFilter(req.Filter)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	journal := s.backend.Journal()
	seq := req.SinceSeq
	if seq == 0 {
		seq = journal.Next()
	}
	if seq > journal.Next() {
		return status.Errorf(codes.OutOfRange, "change %d does not exist yet, the next is %d: the daemon was started anew; list again", seq, journal.Next())
	}
	// The first, empty message says from where on nothing will be missed.
	if err := out.Send(&flowdv1.WatchResponse{NextSeq: seq}); err != nil {
		return err
	}
	sent := seq
	buf := make([]flow.Change, watchBatch)
	for {
		n, err := journal.Since(seq, buf)
		if errors.Is(err, flow.ErrLost) {
			return status.Errorf(codes.DataLoss, "%v (change %d is no longer kept, the next is %d)", err, seq, journal.Next())
		}
		seq += uint64(n)
		batch := &flowdv1.WatchResponse{NextSeq: seq}
		for i := range buf[:n] {
			if q.Match(&buf[i].Flow) {
				batch.Changes = append(batch.Changes, toChange(&buf[i], s.clock().shift))
			}
		}
		if len(batch.Changes) > 0 || seq-sent >= watchStride {
			sent = seq
			if err := out.Send(batch); err != nil {
				return err
			}
		}
		if n > 0 {
			continue
		}
		select {
		case <-journal.Grown(seq):
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

// endsKept is how many ends an answer describes in full.
const endsKept = 1000

// ends waits until certain connections have ended.
type ends struct {
	journal *flow.Journal
	table   *flow.Table
	seq     uint64
	open    map[connection]struct{}
	shift   int64 // of the clock
	res     *flowdv1.EvictFlowsResponse
}

type connection struct {
	orig flow.Key
	id   uint32
}

// followEnds waits for the ends of flows that were there when change number seq
// was not yet.
func followEnds(b Backend, flows []flow.Flow, seq uint64, shift int64) *ends {
	e := &ends{
		journal: b.Journal(), table: b.Table(), seq: seq,
		shift: shift, open: make(map[connection]struct{}, len(flows)), res: &flowdv1.EvictFlowsResponse{},
	}
	for i := range flows {
		e.open[connection{flows[i].Orig, flows[i].ID}] = struct{}{}
	}
	return e
}

// wait returns when all have ended or ctx ends.
func (e *ends) wait(ctx context.Context) *flowdv1.EvictFlowsResponse {
	buf := make([]flow.Change, watchBatch)
	for len(e.open) > 0 && ctx.Err() == nil {
		n, err := e.journal.Since(e.seq, buf)
		if errors.Is(err, flow.ErrLost) {
			e.seq = e.journal.Next()
			e.checkTable()
			continue
		}
		e.seq += uint64(n)
		e.take(buf[:n])
		if n > 0 {
			continue
		}
		select {
		case <-e.journal.Grown(e.seq):
		case <-ctx.Done():
		}
	}
	e.res.Remaining = uint64(len(e.open))
	return e.res
}

func (e *ends) take(changes []flow.Change) {
	for i := range changes {
		c := connection{changes[i].Flow.Orig, changes[i].Flow.ID}
		if _, ok := e.open[c]; !ok || !changes[i].Kind.Ends() {
			continue
		}
		delete(e.open, c)
		e.res.Evicted++
		if len(e.res.Ended) < endsKept {
			e.res.Ended = append(e.res.Ended, toChange(&changes[i], e.shift))
		}
	}
}

// checkTable finds the ends that went by while the journal was too fast.
func (e *ends) checkTable() {
	for c := range e.open {
		if f, ok := e.table.Find(c.orig); !ok || f.ID != c.id {
			delete(e.open, c)
			e.res.Evicted++
		}
	}
}
