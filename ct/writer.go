package ct

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"flowd/flow"

	"golang.org/x/sys/unix"
)

// writeBatch is how many requests go to the kernel in one send: beyond 256 the
// cost of the system call no longer shows.
const writeBatch = 256

// WriterStats counts what became of the requests.
type WriterStats struct {
	Done   uint64 // acknowledged by the kernel
	Absent uint64 // entry gone already, or another connection's by now: nothing to do
	Failed uint64
}

// Writer sends requests about single entries to the kernel. What waits is a set
// keyed by connection, so that a slow kernel merges requests instead of queueing
// them: of two about the same connection the one with the higher Verb counts, and of
// two with the same the later.
type Writer struct {
	sock    *socket
	seq     uint32
	answers chan []flow.Event
	onError func(flow.Action, error)

	mu      sync.Mutex
	pending map[connection]flow.Action
	wake    chan struct{}

	nDone, nAbsent, nFailed atomic.Uint64
}

type connection struct {
	orig flow.Key
	id   uint32
}

// NewWriter opens the socket in the network namespace of the calling thread. It
// needs CAP_NET_ADMIN there. onError is told, from Run's goroutine, of each
// request that failed for another reason than that the entry is gone.
func NewWriter(onError func(flow.Action, error)) (*Writer, error) {
	// An answer to a Read is some 400 bytes long, an acknowledgement 36.
	sock, err := openSocket(0, 64, 4<<10, 4<<20)
	if err != nil {
		return nil, fmt.Errorf("conntrack requests: %w", err)
	}
	// The kernel answers before sendto returns; the timeout only guards against
	// an answer that the kernel could not allocate.
	tv := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(sock.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		sock.close()
		return nil, fmt.Errorf("conntrack requests: receive timeout: %w", err)
	}
	return &Writer{
		sock: sock, answers: make(chan []flow.Event, 1), onError: onError,
		pending: make(map[connection]flow.Action), wake: make(chan struct{}, 1),
	}, nil
}

// Answers returns what Read requests brought. It is closed when Run
// returns.
func (w *Writer) Answers() <-chan []flow.Event { return w.answers }

// Stats returns the counters as they are now.
func (w *Writer) Stats() WriterStats {
	return WriterStats{Done: w.nDone.Load(), Absent: w.nAbsent.Load(), Failed: w.nFailed.Load()}
}

// Submit adds requests to those that wait. It never blocks.
func (w *Writer) Submit(actions []flow.Action) {
	if len(actions) == 0 {
		return
	}
	w.mu.Lock()
	for _, a := range actions {
		c := connection{a.Orig, a.ID}
		if a.Verb >= w.pending[c].Verb {
			w.pending[c] = a
		}
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) take(dst []flow.Action) []flow.Action {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, a := range w.pending {
		if len(dst) == cap(dst) {
			break
		}
		dst = append(dst, a)
		delete(w.pending, c)
	}
	return dst
}

// Run sends until ctx ends, and closes the socket.
func (w *Writer) Run(ctx context.Context) error {
	defer close(w.answers)
	defer w.sock.close()
	actions := make([]flow.Action, 0, writeBatch)
	var e encoder
	for {
		actions = w.take(actions[:0])
		if len(actions) == 0 {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		answers, err := w.exchange(&e, actions)
		if err != nil {
			return err
		}
		if len(answers) == 0 {
			continue
		}
		select {
		case w.answers <- answers:
		case <-ctx.Done():
			return nil
		}
	}
}

// exchange sends one batch and reads until each request is acknowledged.
func (w *Writer) exchange(e *encoder, actions []flow.Action) ([]flow.Event, error) {
	e.buf = e.buf[:0]
	first := w.seq + 1
	w.seq += uint32(len(actions))
	for i := range actions {
		e.action(&actions[i], first+uint32(i))
	}
	if err := w.sock.send(e.buf); err != nil {
		// Short of memory: whoever asked will ask again.
		w.nFailed.Add(uint64(len(actions)))
		w.onError(actions[0], fmt.Errorf("%d requests not sent: %w", len(actions), err))
		return nil, nil
	}
	var answers []flow.Event
	for open := len(actions); open > 0; {
		n, err := w.sock.read(true)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
			w.nFailed.Add(uint64(open))
			w.onError(actions[0], fmt.Errorf("%d of %d requests unanswered: %w", open, len(actions), err))
			return answers, nil
		}
		if err != nil {
			return nil, fmt.Errorf("conntrack requests: read: %w", err)
		}
		for i := range n {
			data, _ := w.sock.message(i)
			eachMessage(data, func(typ, _ uint16, seq uint32, msg []byte) error {
				at := seq - first
				if at >= uint32(len(actions)) {
					return nil // late, of a batch that was given up
				}
				if typ == unix.NLMSG_ERROR {
					open--
					w.account(actions[at], messageError(msg))
					return nil
				}
				var ev flow.Event
				if decode(&ev, msg) == nil {
					ev.Kind = flow.Answer
					answers = append(answers, ev)
				}
				return nil
			})
		}
	}
	return answers, nil
}

func (w *Writer) account(a flow.Action, err error) {
	switch {
	case err == nil:
		w.nDone.Add(1)
	case errors.Is(err, unix.ENOENT):
		w.nAbsent.Add(1)
	default:
		w.nFailed.Add(1)
		w.onError(a, err)
	}
}
