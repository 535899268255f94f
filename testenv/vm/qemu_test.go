package vm

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// play returns what is made of a guest that has said this on its serial ports.
func play(t *testing.T, console, script, stages string, err error) (Result, error) {
	t.Helper()
	g := &guest{kernel: &Kernel{Release: "6.12-test"}, start: time.Now(), stage: "power on"}
	g.console.limit, g.script.limit = consoleLimit, 100
	_, _ = g.console.Write([]byte(console))
	_, _ = g.script.Write([]byte(script))
	if e := g.readStages(strings.NewReader(stages)); e != nil {
		t.Fatal(e)
	}
	return g.result("reason", err, "")
}

func TestGuestEnds(t *testing.T) {
	res, err := play(t, "", "", "up 6.12\nmodule x.ko: no\nrun\nexit 3\nend\n", nil)
	if err != nil || res.ExitCode != 3 {
		t.Errorf("exit code %d, %v; want 3", res.ExitCode, err)
	}
	if !strings.Contains(res.Console, "init: module x.ko: no") {
		t.Errorf("console without the module that did not load: %q", res.Console)
	}
}

func TestGuestFails(t *testing.T) {
	tests := []struct {
		name, console, script, stages string
		err                           error
		stage, reason, last           string
	}{
		{
			name: "panic", stages: "up 6.12\nrun\n", script: "one\ntwo\n",
			console: "[ 1.0] Kernel panic - not syncing: Fatal exception\r\n",
			stage:   "run", reason: "Kernel panic - not syncing: Fatal exception", last: "two",
		},
		{name: "timeout", err: context.DeadlineExceeded, stage: "power on", reason: "reason"},
		{name: "powered off by the script", stages: "up\nrun\n", stage: "run", reason: "reason"},
		{name: "no exit code", stages: "up\nrun\nexit \nend\n", stage: "end", reason: "reason"},
		{name: "QEMU", err: errors.New("exit status 1"), stage: "power on", reason: "reason"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := play(t, tt.console, tt.script, tt.stages, tt.err)
			var failure *GuestError
			if !errors.As(err, &failure) {
				t.Fatalf("error %v, want a GuestError", err)
			}
			if failure.Stage != tt.stage || failure.Reason != tt.reason || failure.Last != tt.last {
				t.Errorf("stage %q, reason %q, last line %q", failure.Stage, failure.Reason, failure.Last)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("%v does not wrap %v", err, tt.err)
			}
		})
	}
}

func TestTail(t *testing.T) {
	w := tail{limit: 4}
	for _, s := range []string{"ab", "cdef\r\n", "g", "hi"} {
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.String(); got != "\nghi" {
		t.Errorf("tail %q", got)
	}
}
