package testenv

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A recorder is a test that keeps what it fails with.
type recorder struct {
	testing.TB
	message string
}

func (*recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) { r.message = fmt.Sprintf(format, args...) }

func TestEventually(t *testing.T) {
	calls := 0
	Eventually(t, time.Minute, func() error {
		if calls++; calls < 4 {
			return errors.New("not yet")
		}
		return nil
	})
	if calls != 4 {
		t.Errorf("%d calls, want 4", calls)
	}
}

func TestEventuallyFails(t *testing.T) {
	var failed recorder
	calls := 0
	Eventually(&failed, 0, func() error {
		calls++
		return fmt.Errorf("error %d", calls)
	})
	if want := fmt.Sprintf("not within 0s: error %d", calls); failed.message != want {
		t.Errorf("message %q, want %q", failed.message, want)
	}
}
