//go:build kernel && warp

package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"flowd/nft"
	"flowd/testenv"
)

const closing = 3 * time.Second

var closingConfig = afterConfig + fmt.Sprintf("[ageing.tcp]\nclosing = %q\n", closing)

// pair opens a connection that shows some packets, offloaded or not.
func pair(t *testing.T, d *daemon, lab *testenv.Lab, offload bool) (*testenv.TCPPair, seenFlow) {
	t.Helper()
	p, err := testenv.OpenTCPPair(context.Background(), lab.Client, lab.Server, netip.AddrPort{}, netip.AddrPortFrom(lab.ServerV4, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Reset)
	exchanges, want := 1, "none"
	if offload {
		exchanges, want = 2*after, "software"
	}
	if err := p.Exchange(exchanges, 64); err != nil {
		t.Fatal(err)
	}
	f, err := d.one("-p", "tcp", "--sport", localPort(p.Client))
	if err != nil || f.Offload != want {
		t.Fatalf("%+v %v, want offload %s", f, err, want)
	}
	return p, f
}

// TestLongClosing closes connections: each is a candidate at once, and gone from
// the kernel after the closing time.
func TestLongClosing(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, closingConfig)
	ends := followDeaths(t, lab.Router)
	story(t, d, lab)
	for _, offload := range []bool{false, true} {
		for name, end := range map[string]func(p *testenv.TCPPair) error{
			"FIN": func(p *testenv.TCPPair) error {
				p.Client.CloseWrite()
				return p.Server.CloseWrite()
			},
			"FIN of the server first": func(p *testenv.TCPPair) error {
				p.Server.CloseWrite()
				return p.Client.CloseWrite()
			},
			"RST":               func(p *testenv.TCPPair) error { return p.Client.Reset() },
			"RST of the server": func(p *testenv.TCPPair) error { return p.Server.Reset() },
		} {
			t.Run(fmt.Sprintf("%s, offload %v", name, offload), func(t *testing.T) {
				d.t = t
				p, f := pair(t, d, lab, offload)
				if err := end(p); err != nil {
					t.Fatal(err)
				}
				closed := time.Now()
				for {
					f, err := d.one("-p", "tcp", "--id", strconv.Itoa(int(f.ID)))
					if err != nil {
						t.Fatalf("no candidate before its end: %v", err)
					}
					if f.Evict == "candidate" {
						break
					}
					if time.Since(closed) > time.Second {
						t.Fatalf("no candidate a second after: %+v", f)
					}
				}
				t.Logf("candidate after %v", time.Since(closed))
				testenv.Eventually(t, patience, func() error {
					if _, ok := ends.of(f.ID); !ok {
						return fmt.Errorf("still there")
					}
					return nil
				})
				at, _ := ends.of(f.ID)
				t.Logf("gone after %v", at.Sub(closed))
				if gone := at.Sub(closed); gone < closing-100*time.Millisecond || gone > closing+late {
					t.Errorf("gone after %v, the closing time is %v", gone, closing)
				}
			})
		}
	}
}

// TestLongHalfClosed closes one side, and lets the other speak again a minute later.
func TestLongHalfClosed(t *testing.T) {
	lab := testenv.Up(t, testenv.NAT)
	d := start(t, lab.Router, closingConfig)
	ends := followDeaths(t, lab.Router)
	story(t, d, lab)
	type half struct {
		name       string
		id         uint32
		done, open *testenv.TCPConn // the side that has closed, and the other one
	}
	var halves []half
	for _, offload := range []bool{false, true} {
		for _, side := range []string{"client", "server"} {
			p, f := pair(t, d, lab, offload)
			h := half{fmt.Sprintf("%s closes, offload %v", side, offload), f.ID, p.Client, p.Server}
			if side == "server" {
				h.done, h.open = p.Server, p.Client
			}
			if err := h.done.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			halves = append(halves, h)
		}
	}
	time.Sleep(61 * time.Second)
	for _, h := range halves {
		if f, err := d.one("-p", "tcp", "--id", strconv.Itoa(int(h.id))); err != nil || f.State != "closing" {
			t.Errorf("%s: after a minute it is %+v %v", h.name, f, err)
		}
		if err := h.open.Write(10_000); err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
		if err := h.done.Read(10_000); err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
		if err := h.open.Close(); err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
	}
	closed := time.Now()
	for _, h := range halves {
		testenv.Eventually(t, patience, func() error {
			if _, ok := ends.of(h.id); !ok {
				return fmt.Errorf("%s: still there", h.name)
			}
			return nil
		})
		if at, _ := ends.of(h.id); at.Sub(closed) > closing+late {
			t.Errorf("%s: gone %v after the other side closed too", h.name, at.Sub(closed))
		}
	}
}

// forged are segments with wrong sequence numbers. A FIN is not among them where the
// kernel itself would be deceived: those whose flowtable hands a connection back with
// its FIN, as conntrack takes the first sequence number that it then sees for true.
func forged(d *testenv.Download, offload bool) []testenv.Segment {
	rst := testenv.Segment{From: d.Local, To: d.Remote, Seq: 1, Flags: testenv.RST}
	fin := testenv.Segment{From: d.Local, To: d.Remote, Seq: 1, Ack: 1, Flags: testenv.FIN | testenv.ACK, Window: 100}
	if offload && !hidesClosing() {
		return []testenv.Segment{rst}
	}
	return []testenv.Segment{rst, fin}
}

// hidesClosing tells whether this kernel's flowtable forwards FIN and RST itself.
func hidesClosing() bool {
	conn, err := nft.Open()
	if err != nil {
		return false
	}
	defer conn.Close()
	features, err := conn.Probe()
	return err == nil && features.ClosingState
}

// TestLongForgedReset sends RST with wrong sequence numbers into a download, from
// either side: it goes on, as one and the same flow, and ends as closed.
func TestLongForgedReset(t *testing.T) {
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload %v", offload), func(t *testing.T) {
			lab := testenv.Up(t, testenv.NAT)
			config := closingConfig
			if !offload {
				config = closingConfigOff
			}
			d := start(t, lab.Router, config)
			story(t, d, lab)
			download, err := testenv.StartDownload(context.Background(), testenv.DownloadConfig{
				Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(lab.ServerV4, 0), Size: 600_000, Rate: 20_000,
			})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			before, err := d.one("-p", "tcp")
			if err != nil || (before.Offload == "software") != offload {
				t.Fatalf("%+v %v", before, err)
			}
			for range 3 {
				for _, s := range forged(download, offload) {
					if err := testenv.Forge(lab.Client, s); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(4 * time.Second)
			}
			if err := download.Wait(); err != nil {
				t.Errorf("download: %v", err)
			}
			testenv.Eventually(t, patience, func() error {
				if s := d.table(); s.Flows != 0 || s.ended("closed") != 1 || s.Created != 1 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
		})
	}
}

const closingConfigOff = "[flowtable]\noffload = \"off\"\n[ageing.tcp]\nclosing = \"3s\"\n"
