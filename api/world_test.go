package api

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"flowd/api/flowdv1"
	"flowd/engine"
	"flowd/flow"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ageing has flows live for minutes.
type ageing struct{}

func (ageing) Lifetime(flow.Proto, uint16, flow.State) int64 { return int64(3 * time.Minute) }

// world is a backend: an engine, and a kernel whose connections a test makes.
type world struct {
	*engine.Engine
	kernel      *kernel
	beforeEvict func() // called between the listing and the eviction, when set
}

func (w *world) Status() *flowdv1.Status {
	return &flowdv1.Status{Version: "1.2.3", Ready: true, Table: &flowdv1.Status_Table{Flows: uint64(w.Table().Len())}}
}

func (w *world) Ruleset() string { return "table inet flowd {\n}\n" }

func (w *world) Evict(ctx context.Context, flows []flow.Flow, why flow.Reason) (int, error) {
	if w.beforeEvict != nil {
		w.beforeEvict()
	}
	return w.Engine.Evict(ctx, flows, why)
}

// start runs an engine with a journal of the given size until the test ends.
func start(t testing.TB, journal int) *world {
	t.Helper()
	k := &kernel{entries: map[flow.Key]flow.Event{}, wake: make(chan struct{}, 1)}
	w := &world{Engine: engine.New(engine.Config{Ageing: ageing{}, Timers: flow.DefaultTimers}, k, journal), kernel: k}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	events := make(chan []flow.Event)
	all.Go(func() { k.run(ctx, events) })
	all.Go(func() {
		if err := w.Run(ctx, engine.Sources{Events: events}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	return w
}

// dial serves a backend to a client of its own, both in this process.
func dial(t *testing.T, b Backend) (flowdv1.FlowdClient, *grpc.ClientConn) {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := NewServer(b)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:flowd",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return flowdv1.NewFlowdClient(conn), conn
}

// serve starts a world that has flows, and a client of it.
func serve(t *testing.T, journal int, flows ...flow.Event) (flowdv1.FlowdClient, *world) {
	t.Helper()
	w := start(t, journal)
	w.kernel.create(flows...)
	w.settle(t)
	c, _ := dial(t, w)
	return c, w
}

// settle waits until the table shows all that the kernel did so far.
func (w *world) settle(t testing.TB) {
	t.Helper()
	if err := w.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// kernel is as much of conntrack as it takes: entries, dumps and events. Events
// of one call are one batch, and so one step of the engine.
type kernel struct {
	mu      sync.Mutex
	entries map[flow.Key]flow.Event
	pending [][]flow.Event
	dumps   uint32
	deaf    bool // does not do what it is asked
	wake    chan struct{}
}

// run sends what is pending until ctx ends.
func (k *kernel) run(ctx context.Context, events chan<- []flow.Event) {
	for {
		k.mu.Lock()
		batches := k.pending
		k.pending = nil
		k.mu.Unlock()
		for _, b := range batches {
			select {
			case events <- b:
			case <-ctx.Done():
				return
			}
		}
		if len(batches) > 0 {
			continue
		}
		select {
		case <-k.wake:
		case <-ctx.Done():
			return
		}
	}
}

// emit is called with the lock held.
func (k *kernel) emit(events []flow.Event) {
	k.pending = append(k.pending, events)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// create makes connections.
func (k *kernel) create(entries ...flow.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range entries {
		k.entries[entries[i].Orig] = entries[i]
	}
	k.emit(entries)
}

// count has a connection show packets in both directions, of which no event tells.
func (k *kernel) count(orig flow.Key, packets uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ev := k.entries[orig]
	ev.Packets, ev.Has = [2]uint64{packets, packets}, ev.Has|flow.HasCounters
	k.entries[orig] = ev
}

// destroy ends connections.
func (k *kernel) destroy(origs ...flow.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var events []flow.Event
	for _, orig := range origs {
		if ev, ok := k.entries[orig]; ok {
			ev.Kind = flow.Destroy
			events = append(events, ev)
			delete(k.entries, orig)
		}
	}
	k.emit(events)
}

// Submit implements engine.Kernel: connections that are to be read or removed are.
func (k *kernel) Submit(actions []flow.Action) {
	var origs []flow.Key
	for _, a := range actions {
		switch {
		case !k.has(a):
		case a.Verb == flow.Remove:
			origs = append(origs, a.Orig)
		case a.Verb == flow.Read:
			k.answer(a.Orig)
		}
	}
	if len(origs) > 0 {
		k.destroy(origs...)
	}
}

func (k *kernel) answer(orig flow.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ev, ok := k.entries[orig]; ok {
		ev.Kind = flow.Answer
		k.emit([]flow.Event{ev})
	}
}

func (k *kernel) has(a flow.Action) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	ev, ok := k.entries[a.Orig]
	return ok && ev.ID == a.ID && !k.deaf
}

// Refresh implements engine.Kernel: the dump is made at once, unless it is deaf.
func (k *kernel) Refresh() uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dumps++
	if k.deaf {
		return k.dumps
	}
	events := []flow.Event{{Kind: flow.SyncStart, ID: k.dumps}}
	for _, ev := range k.entries {
		ev.Kind = flow.Sample
		events = append(events, ev)
	}
	k.emit(append(events, flow.Event{Kind: flow.SyncEnd, ID: k.dumps}))
	return k.dumps
}

func (k *kernel) setDeaf() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deaf = true
}

// tuple makes a Key of two "address:port" texts.
func tuple(proto flow.Proto, src, dst string, zone uint16) flow.Key {
	k, err := flow.MakeKey(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), zone)
	if err != nil {
		panic(err)
	}
	return k
}

// entry makes the event of a new, established connection.
func entry(orig flow.Key, id uint32) flow.Event {
	return flow.Event{
		Kind: flow.New, Orig: orig, Reply: orig.Reverse(), ID: id, TCP: flow.TCPEstablished,
		Status: flow.StatusConfirmed | flow.StatusSeenReply,
		Has:    flow.HasReply | flow.HasID | flow.HasStatus | flow.HasTCP,
	}
}

// many makes n connections with ids from first on.
func many(first, n uint32) []flow.Event {
	var events []flow.Event
	for id := first; id < first+n; id++ {
		k := tuple(flow.UDP, "10.0.0.0:0", "192.0.2.1:53", 0)
		k.Src[1], k.Src[2], k.Src[3] = byte(id>>16), byte(id>>8), byte(id)
		events = append(events, entry(k, id))
	}
	return events
}
