package ct

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowd/flow"
	"flowd/testenv"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// countIs compares the table with the kernel's own count.
func (f *follower) countIs(t *testing.T, space *testenv.Namespace) error {
	t.Helper()
	want, err := strconv.Atoi(strings.TrimSpace(space.Run(t, "conntrack", "-C")))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.table.Len(); got != want {
		return fmt.Errorf("the table has %d flows, conntrack %d; %+v", got, want, f.reader.Stats())
	}
	return nil
}

func udpFlows(t *testing.T, lab *testenv.Lab, count int) {
	t.Helper()
	_, err := testenv.UDPFlows(context.Background(), testenv.FlowsConfig{
		Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(lab.ServerV4, 0), Count: count,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReaderFollows holds the table to the kernel's by events alone: no dump but
// the first shows the flows.
func TestReaderFollows(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	conntrackOn(t, lab)
	f := follow(t, lab.Router, ReaderConfig{})
	<-f.synced
	udpFlows(t, lab, 1000)
	testenv.Eventually(t, 10*time.Second, func() error { return f.countIs(t, lab.Router) })
	if f.table.Len() < 1000 {
		t.Errorf("%d flows", f.table.Len())
	}
	lab.Router.Run(t, "conntrack", "-F")
	testenv.Eventually(t, 10*time.Second, func() error { return f.countIs(t, lab.Router) })
	if s := f.reader.Stats(); s.Dumps != 1 || s.Overruns != 0 || s.Malformed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestReaderFindsWhatWasThere starts on a table that is not empty.
func TestReaderFindsWhatWasThere(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	conntrackOn(t, lab)
	udpFlows(t, lab, 1000)
	f := follow(t, lab.Router, ReaderConfig{})
	<-f.synced
	if err := f.countIs(t, lab.Router); err != nil {
		t.Error(err)
	}
}

// TestReaderRepairsOverruns gives it a buffer that must overflow: the table is
// exact all the same.
func TestReaderRepairsOverruns(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	conntrackOn(t, lab)
	f := follow(t, lab.Router, ReaderConfig{Buffer: 1})
	<-f.synced
	udpFlows(t, lab, 3000)
	lab.Router.Run(t, "conntrack", "-D", "-p", "udp", "--dport", "20001")
	testenv.Eventually(t, 20*time.Second, func() error { return f.countIs(t, lab.Router) })
	if f.reader.Stats().Overruns == 0 {
		t.Error("no overrun: the test has not tried what it is about")
	}
	if s := f.table.Stats(); s.Repaired == 0 {
		t.Errorf("nothing repaired: %+v", s)
	}
}

// TestReaderRefreshesCounters sees packets that cause no event.
func TestReaderRefreshesCounters(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	conntrackOn(t, lab)
	f := follow(t, lab.Router, ReaderConfig{})
	server, err := testenv.ServeUDP(lab.Server, testenv.UDPServerConfig{Addr: netip.AddrPortFrom(lab.ServerV4, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := testenv.DialUDP(lab.Client, netip.AddrPort{}, server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := uint64(10); n <= 100; n += 10 {
		if err := c.Exchange(10, 72); err != nil {
			t.Fatal(err)
		}
		f.refresh()
		k, err := flow.MakeKey(flow.UDP, c.Local, c.Remote, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := f.table.Find(k)
		if want := [2]uint64{n, n}; !ok || got.Packets != want || got.Bytes != [2]uint64{100 * n, 100 * n} {
			t.Fatalf("after %d exchanges: %v %v packets, %v bytes", n, ok, got.Packets, got.Bytes)
		}
	}
}

// TestReaderStops ends it while nobody takes what it reads.
func TestReaderStops(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	conntrackOn(t, lab)
	udpFlows(t, lab, 2*batchSize*batchCount)
	var r *Reader
	if err := lab.Router.Do(func() (err error) {
		r, err = NewReader(ReaderConfig{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := len(r.Events()); n < batchCount-1 {
			return fmt.Errorf("%d batches wait", n)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNextDump holds when a dump is due: when one is asked for, and every now and
// then, but not while there is nothing to see.
func TestNextDump(t *testing.T) {
	end := time.Unix(1000, 0)
	for _, tc := range []struct {
		name   string
		reader *Reader
		took   time.Duration
		want   time.Duration // after the end of the last one; 0: none
	}{
		{"none but on demand", &Reader{}, time.Second, 0},
		{"asked for", &Reader{wanted: 1}, time.Second, time.Second},
		{"asked for, empty", &Reader{wanted: 1, empty: true}, time.Second, time.Second},
		{"periodic", &Reader{cfg: ReaderConfig{Refresh: time.Minute}}, time.Millisecond, time.Minute},
		{"periodic, and slow", &Reader{cfg: ReaderConfig{Refresh: time.Minute}}, time.Second, dumpShare * time.Second},
		{"periodic, but empty", &Reader{cfg: ReaderConfig{Refresh: time.Minute}, empty: true}, time.Millisecond, 0},
	} {
		tc.reader.dumpEnd = end
		tc.reader.dumpTime.Store(int64(tc.took))
		at, ok := tc.reader.nextDump()
		if ok != (tc.want != 0) || ok && !at.Equal(end.Add(tc.want)) {
			t.Errorf("%s: %v %v, want %v later", tc.name, at, ok, tc.want)
		}
	}
}
