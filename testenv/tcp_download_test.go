package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (p path) download(t *testing.T, config DownloadConfig) *Download {
	t.Helper()
	config.Client, config.Server = p.lab.Client, p.lab.Server
	config.To = netip.AddrPortFrom(p.to, 0)
	d, err := StartDownload(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDownload(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		const size = 5_000_000
		d := path.download(t, DownloadConfig{Size: size})
		if err := d.Wait(); err != nil || d.Received() != size {
			t.Errorf("%d bytes: %v", d.Received(), err)
		}
		path.wantEntry(t, "tcp", d.Local, "TIME_WAIT")
	})
}

// TestDownloadPaced: a forged RST that is out of the window does no harm, one
// that is in it ends the download.
func TestDownloadPaced(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		d := path.download(t, DownloadConfig{Rate: 1_000_000})
		begin := time.Now()
		await := func(bytes int64) {
			t.Helper()
			Eventually(t, patience, func() error {
				if n := d.Received(); n < bytes {
					return fmt.Errorf("%d bytes, want %d", n, bytes)
				}
				return nil
			})
		}
		await(100_000)
		if err := Forge(path.lab.Client, Segment{From: d.Local, To: d.Remote, Flags: RST, Seq: 12345}); err != nil {
			t.Fatal(err)
		}
		await(300_000)
		if took := time.Since(begin); took < 250*time.Millisecond {
			t.Errorf("300,000 bytes in %v, want 300 ms", took)
		}
		select {
		case <-d.Done():
			t.Fatalf("ended: %v", d.Wait())
		default:
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		// In pieces of 16 KiB, not byte by byte as they fall due.
		for _, e := range path.lab.Router.Conntrack(t) {
			if e.Original.Src == d.Local && e.Bytes[1]/e.Packets[1] < 500 {
				t.Errorf("%d packets for %d bytes", e.Packets[1], e.Bytes[1])
			}
		}
	})
}

func TestDownloadEnds(t *testing.T) {
	Require(t, "conntrack", "nft")
	lab := Up(t, Track)
	path := paths(lab)[0]
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	d, err := StartDownload(ctx, DownloadConfig{Client: lab.Client, Server: lab.Server, To: netip.AddrPortFrom(path.to, 0), Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	cancel(enough)
	if err := d.Wait(); !errors.Is(err, enough) {
		t.Errorf("its context ends: %v", err)
	}
	d = path.download(t, DownloadConfig{})
	if err := d.pair.Server.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server's RST: %v", err)
	}
	// Bytes that are missing.
	d = path.download(t, DownloadConfig{Rate: 1})
	if err := d.pair.Server.Write(7); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); err == nil {
		t.Error("other bytes: no error")
	}
}
