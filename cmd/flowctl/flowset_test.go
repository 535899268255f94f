package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"flowd/api/flowdv1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// daemon gives the flow with id 1 what is asked for, and knows no other.
type daemon struct {
	flowdv1.UnimplementedFlowdServer
	asked *flowdv1.UpdateFlowRequest
}

func (d *daemon) UpdateFlow(_ context.Context, req *flowdv1.UpdateFlowRequest) (*flowdv1.Flow, error) {
	d.asked = req
	if req.Filter.GetId() != 1 {
		return nil, status.Error(codes.NotFound, "no such flow")
	}
	f := samples()[0]
	f.StartNs, f.SeenNs = 0, 0
	f.LifetimeS, f.OwnLifetime, f.ExpiresS = req.GetLifetimeS(), req.GetLifetimeS() > 0, req.LifetimeS
	return f, nil
}

// TestFlowSet holds what "flow set" sends, and what it prints or says.
func TestFlowSet(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var d daemon
	server := grpc.NewServer()
	flowdv1.RegisterFlowdServer(server, &d)
	go server.Serve(l)
	defer server.Stop()
	var b bytes.Buffer
	for _, args := range [][]string{
		{"--id", "1", "--lifetime", "2m30s"},
		{"--id", "1", "--lifetime", "240h", "-o", "wide"},
		{"--id", "1", "--lifetime", "60s", "-o", "json"},
		{"--id", "1", "--lifetime", "policy", "-o", "json"},
		{"-p", "udp", "-s", "192.0.2.1", "--sport", "1", "-d", "192.0.2.2", "--dport", "2", "--zone", "3", "--lifetime", "1s"},
		{"--id", "1"},
		{"--id", "1", "--lifetime", ""},
		{"--id", "1", "--lifetime", "60"},
		{"--id", "1", "--lifetime", "0s"},
		{"--id", "1", "--lifetime", "-1s"},
		{"--id", "1", "--lifetime", "240h1s"},
		{"--id", "1", "--lifetime", "1500ms"},
		{"--id", "x", "--lifetime", "1s", "-o", "table"},
		{"--id", "1", "--lifetime", "1s", "-o", "xml"},
		{"--state", "closing", "--lifetime", "1s"},
		{"--help"},
	} {
		d.asked = nil
		cmd := newCommand()
		cmd.SetOut(&b)
		cmd.SetArgs(append([]string{"--socket", socket, "flow", "set"}, args...))
		fmt.Fprintf(&b, "%q\n", args)
		err := cmd.ExecuteContext(t.Context())
		if d.asked != nil {
			fmt.Fprintf(&b, "asks for %s\n", oneLine(d.asked))
		}
		if err != nil {
			message, code := explain(err)
			fmt.Fprintf(&b, "exit %d: %s\n", code, message)
		}
		b.WriteByte('\n')
	}
	golden(t, "flowset.txt", b.Bytes())
}
