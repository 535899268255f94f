package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"flowd/testenv"
)

const (
	flowLimit = 10_000
	offered   = 50_000
	// overLimit is how far above its limit the table may be: by what one step of
	// the engine takes in.
	overLimit = 1024
)

// rushHere is how many flows come at full speed; before the next ones the daemon may
// catch up, so that a busy machine makes no difference. In an emulated one the flood
// alone is more than its processors can do.
func rushHere() int {
	if os.Getenv("FLOWD_VM") != "" {
		return 1_000
	}
	return 2_000
}

// tableStatus is what flowctl status tells of the table.
type tableStatus struct {
	Flows, Limit, Created uint64 `json:",string"`
	Ended                 map[string]json.Number
}

func (d *daemon) table() tableStatus {
	d.t.Helper()
	var s struct{ Table tableStatus }
	if err := json.Unmarshal([]byte(d.ctl("status", "-o", "json")), &s); err != nil {
		d.t.Fatal(err)
	}
	return s.Table
}

// ended is how many flows have ended for a reason.
func (s tableStatus) ended(reason string) int64 {
	n, _ := s.Ended[reason].Int64()
	return n
}

// TestRecyclesAtTheLimit offers five times as many flows as there may be, while a
// download goes on: each is forwarded, the download notices nothing, and the books
// balance.
func TestRecyclesAtTheLimit(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	if room := testenv.ConntrackRoom(t, 2*flowLimit); room < 2*flowLimit {
		t.Fatalf("the kernel has room for %d flows, %d are needed (net.netfilter.nf_conntrack_max)", room, 2*flowLimit)
	}
	d := start(t, lab.Router, fmt.Sprintf("[flowtable]\nmax_flows = %d\nafter = { packets = %d }\n", flowLimit, after))
	download, err := testenv.StartDownload(context.Background(), testenv.DownloadConfig{
		Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(lab.ServerV4, 0), Rate: 100_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer download.Stop()
	sel := []string{"-p", "tcp", "--sport", fmt.Sprint(download.Local.Port())}
	before, err := d.one(sel...)
	if err != nil {
		t.Fatal(err)
	}

	most := d.flood(lab)
	if most < flowLimit*9/10 || most > flowLimit+overLimit {
		t.Errorf("at most %d flows at a time, the limit is %d", most, flowLimit)
	}
	if got, err := d.one(sel...); err != nil || got.ID != before.ID {
		t.Errorf("the download was flow %d, is %+v %v", before.ID, got, err)
	}
	if err := download.Stop(); err != nil {
		t.Errorf("download: %v", err)
	}
	d.balances()
	if s := d.table(); s.ended("recycled") < offered-flowLimit-overLimit {
		t.Errorf("%d recycled of %d: %+v", s.ended("recycled"), offered, s)
	}
}

// flood offers flows that nobody answers, each of which must arrive, and returns how
// many there were at a time.
func (d *daemon) flood(lab *testenv.Lab) (most uint64) {
	d.t.Helper()
	rush := rushHere()
	for sent := 0; sent < offered; sent += rush {
		res, err := testenv.UDPFlows(context.Background(), testenv.FlowsConfig{
			Client: lab.Client, Server: lab.Server, Count: rush, OneWay: true,
			From: netip.AddrPortFrom(lab.ClientV4, uint16(10_000+sent/100)), To: netip.AddrPortFrom(lab.ServerV4, 0),
		})
		if err != nil || res.Flows != rush {
			d.t.Fatalf("%d of %d flows arrived: %v", res.Flows, rush, err)
		}
		testenv.Eventually(d.t, patience, func() error {
			n := d.table().Flows
			if most = max(most, n); n > flowLimit {
				return fmt.Errorf("%d flows, the limit is %d", n, flowLimit)
			}
			return nil
		})
	}
	return most
}

// balances waits until every flow that was created is there, or has ended for a reason.
func (d *daemon) balances() {
	d.t.Helper()
	testenv.Eventually(d.t, patience, func() error {
		s := d.table()
		sum := s.Flows
		for reason := range s.Ended {
			sum += uint64(s.ended(reason))
		}
		if sum != s.Created {
			return fmt.Errorf("%d were created, %d are there or have ended: %+v", s.Created, sum, s)
		}
		return nil
	})
	if n := d.table().ended("lost"); n != 0 || strings.Contains(d.log.String(), "refused") {
		d.t.Errorf("%d ends were missed; log:\n%s", n, d.log)
	}
}
