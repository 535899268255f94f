package ct

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"flowd/flow"

	"golang.org/x/sys/unix"
)

const (
	// eventBatch and eventSize bound one read of events. An event is some 300
	// bytes long; the kernel sends each as a datagram of its own.
	eventBatch, eventSize = 64, 4 << 10
	// dumpBatch and dumpSize bound one read of a dump. netlink_recvmsg learns the
	// size from the first read and fills datagrams of up to 32 KiB.
	dumpBatch, dumpSize = 8, 32 << 10
	// batchSize is how many events travel together at the most, batchCount how
	// many batches exist: what is on the way is bounded by their product.
	batchSize, batchCount = 1024, 8
	// nap is how long the reader waits between two looks while events flow. Each
	// wake-up is paid for by the sender in softirq, on the path that sets up the
	// router's flows: woken for every event, a router does 40 % fewer of them.
	nap = time.Millisecond
	// dumpShare bounds what periodic dumps cost, to half a percent of a core: the
	// next one waits at least this many times as long as the last one took.
	dumpShare = 200
)

// ReaderConfig sets up a Reader.
type ReaderConfig struct {
	Buffer  int           // bytes of kernel receive buffer for events; 0: 64 MiB
	Refresh time.Duration // shortest time between two periodic dumps; 0: none unless asked for
}

// ReaderStats counts what the Reader did since it was opened.
type ReaderStats struct {
	Events    uint64        // decoded, of every kind
	Overruns  uint64        // times the kernel dropped events because the buffer was full
	Malformed uint64        // messages that could not be decoded
	Dumps     uint64        // begun
	DumpTime  time.Duration // of the last one
}

// Reader follows conntrack: events as they happen and dumps of the whole table,
// in one stream. It begins with a dump; an overrun leads to another one, and so
// does the periodic refresh that finds out what has no event of its own: a
// flow's counters, and whether it is offloaded.
//
// The order of the stream is such that a table fed with it is exact: events that
// happened before an entry was dumped come before it, and all that happened
// before the dump ended come before its SyncEnd.
type Reader struct {
	events *socket
	dump   *socket
	wake   int // eventfd
	cfg    ReaderConfig

	out  chan []flow.Event
	free chan []flow.Event
	cur  []flow.Event // being filled

	mu     sync.Mutex
	wanted uint32 // number of the newest dump that somebody asked for
	begun  uint32 // number of the newest dump begun

	// Run's own.
	dumpEnd time.Time // of the newest dump
	empty   bool      // it showed nothing, and nothing has happened since

	nEvents, nOverruns, nMalformed, nDumps atomic.Uint64
	dumpTime                               atomic.Int64
}

// NewReader opens the sockets in the network namespace of the calling thread.
// It needs CAP_NET_ADMIN there.
func NewReader(cfg ReaderConfig) (*Reader, error) {
	if cfg.Buffer == 0 {
		cfg.Buffer = 64 << 20
	}
	events, err := openSocket(groupNew|groupUpdate|groupDestroy, eventBatch, eventSize, cfg.Buffer)
	if err != nil {
		return nil, fmt.Errorf("conntrack events: %w", err)
	}
	dump, err := openSocket(0, dumpBatch, dumpSize, 2*dumpBatch*dumpSize)
	if err != nil {
		events.close()
		return nil, fmt.Errorf("conntrack dump: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		events.close()
		dump.close()
		return nil, fmt.Errorf("conntrack events: eventfd: %w", err)
	}
	r := &Reader{
		events: events, dump: dump, wake: wake, cfg: cfg, wanted: 1,
		out: make(chan []flow.Event, batchCount), free: make(chan []flow.Event, batchCount),
	}
	for range batchCount {
		r.free <- make([]flow.Event, 0, batchSize)
	}
	r.cur = <-r.free
	return r, nil
}

// Events returns the stream. Whoever receives a batch owns it until it hands it
// back to Recycle. The channel is closed when Run returns.
func (r *Reader) Events() <-chan []flow.Event { return r.out }

// Recycle gives a batch back to be filled again.
func (r *Reader) Recycle(batch []flow.Event) { r.free <- batch[:0] }

// Refresh asks for a dump that begins after this call and returns its number:
// the SyncEnd that carries this number in ID, or a higher one, closes a dump
// that shows the table as it was at the time of the call or later.
func (r *Reader) Refresh() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = r.begun + 1
	r.kick()
	return r.wanted
}

func (r *Reader) kick() {
	one := [8]byte{}
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(r.wake, one[:]) // cannot block; full means that it is kicked already
}

// Stats returns the counters as they are now.
func (r *Reader) Stats() ReaderStats {
	return ReaderStats{
		Events: r.nEvents.Load(), Overruns: r.nOverruns.Load(), Malformed: r.nMalformed.Load(),
		Dumps: r.nDumps.Load(), DumpTime: time.Duration(r.dumpTime.Load()),
	}
}

// Run reads until ctx ends, and closes the sockets. It keeps one OS thread.
func (r *Reader) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, r.kick)
	defer func() {
		stop()
		r.events.close()
		r.dump.close()
		unix.Close(r.wake)
		close(r.out)
	}()
	for ctx.Err() == nil {
		if at, ok := r.nextDump(); ok && !time.Now().Before(at) {
			if err := r.sync(ctx); err != nil {
				return err
			}
		}
		n, err := r.drain(ctx)
		if err != nil {
			return err
		}
		r.flush(ctx)
		if n > 0 {
			ts := unix.NsecToTimespec(int64(nap))
			unix.Nanosleep(&ts, nil) // the thread is the reader's own: no need to hand it over
			continue
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
	return nil
}

// nextDump tells when the next dump is to begin, if any is. One that was asked
// for waits as long as the last one took, so that dumping never takes more than
// half of the reader's time, whatever happens. An empty table needs no refresh:
// the kernel walks all of its hash for each dump, however little is in it.
func (r *Reader) nextDump() (time.Time, bool) {
	r.mu.Lock()
	asked := r.wanted > r.begun
	r.mu.Unlock()
	took := time.Duration(r.dumpTime.Load())
	switch {
	case asked:
		return r.dumpEnd.Add(took), true
	case r.cfg.Refresh > 0 && !r.empty:
		return r.dumpEnd.Add(max(r.cfg.Refresh, dumpShare*took)), true
	}
	return time.Time{}, false
}

// wait sleeps until there is an event, somebody kicks, or the next dump is due.
func (r *Reader) wait() error {
	timeout := -1
	if at, ok := r.nextDump(); ok {
		timeout = int(max(0, time.Until(at).Milliseconds()+1))
	}
	fds := []unix.PollFd{{Fd: int32(r.events.fd), Events: unix.POLLIN}, {Fd: int32(r.wake), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("conntrack events: poll: %w", err)
	}
	if fds[1].Revents != 0 {
		var b [8]byte
		unix.Read(r.wake, b[:]) // empties it; nothing to learn from how often it was kicked
	}
	return nil
}

// drain reads events until there are none and returns how many came. An
// overrun is counted and has the next dump begin at once.
func (r *Reader) drain(ctx context.Context) (int, error) {
	total := 0
	for ctx.Err() == nil {
		n, err := r.events.read(false)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return total, nil
		case errors.Is(err, unix.ENOBUFS):
			r.nOverruns.Add(1)
			r.again()
			continue
		case err != nil:
			return total, fmt.Errorf("conntrack events: read: %w", err)
		}
		for i := range n {
			msg, whole := r.events.message(i)
			if !whole {
				r.nMalformed.Add(1)
				continue
			}
			r.add(ctx, msg, 0)
		}
		total += n
	}
	return total, nil
}

// add decodes one message onto the current batch; kind, if not 0, overrides.
func (r *Reader) add(ctx context.Context, msg []byte, kind flow.Kind) {
	ev := r.room(ctx)
	if err := decode(ev, msg); err != nil {
		r.nMalformed.Add(1)
		r.cur = r.cur[:len(r.cur)-1]
		return
	}
	if kind != 0 {
		ev.Kind = kind
	}
	r.empty = false
	r.nEvents.Add(1)
}

// room returns the next free place in the current batch, sending it off first
// when it is full. Somebody slow downstream stops the reader here; events then
// wait in the kernel's buffer.
func (r *Reader) room(ctx context.Context) *flow.Event {
	if len(r.cur) == cap(r.cur) {
		r.flush(ctx)
	}
	r.cur = r.cur[:len(r.cur)+1]
	return &r.cur[len(r.cur)-1]
}

func (r *Reader) flush(ctx context.Context) {
	if len(r.cur) == 0 {
		return
	}
	if ctx.Err() != nil {
		r.cur = r.cur[:0] // nobody reads any more
		return
	}
	r.out <- r.cur // never blocks: there are as many places as batches
	select {
	case r.cur = <-r.free:
	case <-ctx.Done():
		r.cur = make([]flow.Event, 0, batchSize)
	}
}
