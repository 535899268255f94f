package testenv

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"
)

// openPair opens a pair that ends with the test.
func (p path) openPair(t *testing.T) *TCPPair {
	t.Helper()
	pair, err := OpenTCPPair(t.Context(), p.lab.Client, p.lab.Server, netip.AddrPort{}, netip.AddrPortFrom(p.to, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pair.Reset)
	if err := pair.Exchange(3, 1000); err != nil {
		t.Fatal(err)
	}
	p.wantEntry(t, "tcp", pair.Client.Local, "ESTABLISHED", "[ASSURED]")
	return pair
}

// TestTCPPairHalfClosed: either side may go on sending after the other's FIN.
func TestTCPPairHalfClosed(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		for _, serverFirst := range []bool{false, true} {
			pair := path.openPair(t)
			first, second := pair.Client, pair.Server
			if serverFirst {
				first, second = second, first
			}
			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := second.ReadEnd(); err != nil {
				t.Fatal(err)
			}
			path.wantEntry(t, "tcp", pair.Client.Local, "CLOSE_WAIT")
			for range 3 {
				if err := errors.Join(second.Write(100_000/3), first.Read(100_000/3)); err != nil {
					t.Fatal(err)
				}
			}
			path.wantEntry(t, "tcp", pair.Client.Local, "CLOSE_WAIT")
			if err := errors.Join(second.CloseWrite(), first.ReadEnd()); err != nil {
				t.Fatal(err)
			}
			path.wantEntry(t, "tcp", pair.Client.Local, "TIME_WAIT")
		}
	})
}

func TestTCPPairErrors(t *testing.T) {
	eachPath(t, func(t *testing.T, path path) {
		pair := path.openPair(t)
		if err := pair.Exchange(1, maxExchange+1); err == nil {
			t.Error("an exchange that is too long: no error")
		}
		pair.Client.Timeout = time.Millisecond
		if err := pair.Client.ReadEnd(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("no end: %v", err)
		}
		pair.Client.Timeout = patience
		if err := pair.Server.Write(2); err != nil {
			t.Fatal(err)
		}
		if err := pair.Client.ReadEnd(); err == nil {
			t.Error("data instead of the end: no error")
		}
		if err := pair.Client.Write(1); err != nil {
			t.Fatal(err)
		}
		if err := pair.Exchange(1, 2); err == nil {
			t.Error("an exchange of other bytes: no error")
		}
		pair.Reset()
		if err := pair.Exchange(1, 1); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("an exchange after a reset: %v", err)
		}
	})
}
