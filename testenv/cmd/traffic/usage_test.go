package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

const patience = 30 * time.Second

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args, stdout, stderr string
		status               int
	}{
		{"", "", "Usage: traffic COMMAND", statusUsage},
		{"--help", "tcp-client", "", statusOK},
		{"help", "0 done, 1 not done", "", statusOK},
		{"tpc-client", "", `no such command "tpc-client"`, statusUsage},
		{"tcp-client --help", "--connections N", "", statusOK},
		{"tcp-client -h", "(default 64)", "", statusOK},
		{"tcp-client", "", "--to ADDRESS:PORT is missing; see 'traffic tcp-client --help'", statusUsage},
		{"tcp-client --to here", "", "wrong usage: invalid value", statusUsage},
		{"tcp-client --to 127.0.0.1:1 now", "", `unexpected "now"`, statusUsage},
		{"tcp-client --to 127.0.0.1:1 -o xml", "", `no such format "xml"`, statusUsage},
		{"tcp-client --to 127.0.0.1:1 --close now", "", "--close now: fin, half or rst", statusUsage},
		{"tcp-client --to 127.0.0.1:1 --mode x", "", "--mode x: echo, sink or source", statusUsage},
		{"tcp-client --to 127.0.0.1:1 --bytes 0", "", "--bytes 0: 1 or more", statusUsage},
		{"tcp-client --to 127.0.0.1:1 --connections 0", "", "--connections 0: 1 or more", statusUsage},
		{"tcp-server", "", "--listen ADDRESS:PORT is missing", statusUsage},
		{"tcp-server --listen 127.0.0.1:0 --mode x", `tcp-server: 0 B sent`, `no such mode "x"`, statusFailed},
		{"udp-client --to 127.0.0.1:1 --bytes 65508", "", "--bytes 65508: 0 to 65507", statusUsage},
		{"udp-client --to 127.0.0.1:1 --count 0", "", "--count 0: 1 or more", statusUsage},
		{"udp-server --listen 127.0.0.1:65535 --ports 2", "udp-server: ", "not a range of ports", statusFailed},
		{"flows", "", "--to ADDRESS:PORT is missing", statusUsage},
		{"flows --to 127.0.0.1:0 --tcp --close half", "", "--close half: fin or rst", statusUsage},
		{"flows --to 127.0.0.1:0 --bytes 7", "flows: ", "8 to 1400", statusFailed},
		{"forge --to 127.0.0.1:1", "", "--from ADDRESS:PORT is missing", statusUsage},
		{"forge --to 127.0.0.1:1 --from 127.0.0.1:2 --flags fun", "", `no flag "fun"`, statusUsage},
		{"forge --to 127.0.0.1:1 --from 127.0.0.1:2 --seq 4294967296", "", "32 bits", statusUsage},
		{"forge --to 127.0.0.1:1 --from 127.0.0.1:2 --ttl 0", "", "--ttl 0: 1 to 255", statusUsage},
		{"forge --to 127.0.0.1:1 --from [::1]:2", "forge: ", "not of one family", statusFailed},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), strings.Fields(test.args), &stdout, &stderr)
		if status != test.status || !strings.Contains(stdout.String(), test.stdout) ||
			!strings.Contains(stderr.String(), test.stderr) ||
			(test.stdout == "") != (stdout.Len() == 0) {
			t.Errorf("traffic %s: status %d\nstdout: %s\nstderr: %s", test.args, status, &stdout, &stderr)
		}
	}
}

func TestPacer(t *testing.T) {
	begin := time.Now()
	pace := newPacer(100)
	for range 6 {
		if err := pace.next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if elapsed := time.Since(begin); elapsed < 50*time.Millisecond {
		t.Errorf("6 events at 100/s took %v, want 50 ms at least", elapsed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pace.next(ctx); err == nil {
		t.Error("no error once the context has ended")
	}
}
