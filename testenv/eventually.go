package testenv

import (
	"testing"
	"time"
)

// Eventually calls check until it returns nil, and fails the test with its last
// error if that takes longer than timeout. It is the one place where tests
// wait for the kernel or another process to get on; the pause between two calls
// grows from 1 to 50 ms.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	if err := Poll(timeout, check); err != nil {
		t.Fatalf("not within %v: %v", timeout, err)
	}
}

// Poll is [Eventually] outside of tests: it returns the last error of check.
// It calls check at least once, and once more after the timeout.
func Poll(timeout time.Duration, check func() error) error {
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		late := !time.Now().Before(deadline)
		err := check()
		if err == nil || late {
			return err
		}
		time.Sleep(pause)
	}
}
