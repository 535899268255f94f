package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"flowd/testenv"
)

// asTraffic in the environment makes the test binary the command.
const asTraffic = "FLOWD_TEST_AS_TRAFFIC"

func TestMain(m *testing.M) {
	if os.Getenv(asTraffic) != "" {
		main()
	}
	os.Exit(m.Run())
}

// traffic returns the command with its arguments, to be run in a namespace.
func traffic(t *testing.T, space *testenv.Namespace, args string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := space.Command(t.Context(), self, strings.Fields(args)...)
	// The race detector has processes wait for a second at their end.
	cmd.Env = append(os.Environ(), asTraffic+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// client runs a command to its end and returns its result and exit status.
func client(t *testing.T, lab *testenv.Lab, args string) (result, int) {
	t.Helper()
	cmd := traffic(t, lab.Client, args+" -o json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("traffic %s: %v", args, err)
	}
	return decode(t, args, stdout.Bytes()), cmd.ProcessState.ExitCode()
}

func decode(t *testing.T, args string, line []byte) result {
	t.Helper()
	var done result
	if err := json.Unmarshal(line, &done); err != nil || bytes.Count(line, []byte("\n")) != 1 {
		t.Fatalf("traffic %s: result %q: %v", args, line, err)
	}
	done.Elapsed = 0
	return done
}

// A server is a command in the server's namespace.
type server struct {
	t      *testing.T
	args   string
	cmd    *exec.Cmd
	stdout bytes.Buffer
}

// serve starts a command and returns once it listens.
func serve(t *testing.T, lab *testenv.Lab, args string) *server {
	t.Helper()
	s := &server{t: t, args: args, cmd: traffic(t, lab.Server, args+" -o json")}
	s.cmd.Stdout = &s.stdout
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Wait() }) // killed by now, or stopped before
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "listening on ") {
		t.Fatalf("traffic %s: says %q: %v", args, line, err)
	}
	return s
}

// stop interrupts the server and returns its result.
func (s *server) stop() result {
	s.t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatalf("traffic %s: %v", s.args, err)
	}
	return decode(s.t, s.args, s.stdout.Bytes())
}

func want(t *testing.T, got, want result) {
	t.Helper()
	if got != want {
		t.Errorf("result %+v\n  want %+v", got, want)
	}
}

func TestTCP(t *testing.T) {
	testenv.Require(t, "conntrack", "nft")
	lab := testenv.Up(t, testenv.Track)
	lab.KeepEntries(t)
	for _, test := range []struct {
		client, server, state string
	}{
		{"--close fin", "", "TIME_WAIT"},
		{"--close half", "--hold", "CLOSE_WAIT"},
		{"--close rst", "", " CLOSE "},
	} {
		for _, addr := range []netip.Addr{lab.ServerV4, lab.ServerV6} {
			to := netip.AddrPortFrom(addr, 7000)
			s := serve(t, lab, fmt.Sprintf("tcp-server --listen %v %s", to, test.server))
			done, status := client(t, lab, fmt.Sprintf(
				"tcp-client --to %v --connections 3 --count 5 --bytes 10 %s", to, test.client))
			if status != statusOK {
				t.Errorf("client %s: status %d: %s", test.client, status, done.Error)
			}
			want(t, done, result{Command: "tcp-client", Connections: 3, Exchanges: 15, SentBytes: 150, ReceivedBytes: 150})
			wantStates(t, lab, addr, test.state, 3)
			want(t, s.stop(), result{Command: "tcp-server", Connections: 3, SentBytes: 150, ReceivedBytes: 150})
			lab.Router.Run(t, "conntrack", "-F")
		}
	}
}

// wantStates waits for the number of TCP entries towards addr in a state.
func wantStates(t *testing.T, lab *testenv.Lab, addr netip.Addr, state string, count int) {
	t.Helper()
	testenv.Eventually(t, patience, func() error {
		list := lab.Router.Run(t, "conntrack", "-L", "-p", "tcp", "-d", addr.String())
		if got := strings.Count(list, state); got != count {
			return fmt.Errorf("%d entries %q, want %d:\n%s", got, state, count, list)
		}
		return nil
	})
}

func TestTCPModes(t *testing.T) {
	lab := testenv.Up(t)
	for mode, expected := range map[string]result{
		"sink":   {Command: "tcp-client", Connections: 1, Exchanges: 2, SentBytes: 200_000},
		"source": {Command: "tcp-client", Connections: 1, Exchanges: 2, ReceivedBytes: 200_000},
	} {
		s := serve(t, lab, fmt.Sprintf("tcp-server --listen %v:7000 --mode %s", lab.ServerV4, mode))
		done, _ := client(t, lab, fmt.Sprintf("tcp-client --to %v:7000 --mode %s --count 2 --bytes 100000", lab.ServerV4, mode))
		want(t, done, expected)
		if received := s.stop().ReceivedBytes; received != expected.SentBytes {
			t.Errorf("%s received %d bytes, want %d", mode, received, expected.SentBytes)
		}
	}
}

func TestUDP(t *testing.T) {
	lab := testenv.Up(t)
	s := serve(t, lab, fmt.Sprintf("udp-server --listen %v:7000", lab.ServerV4))
	done, status := client(t, lab, fmt.Sprintf("udp-client --to %v:7000 --from %v:6000 --count 4 --bytes 10 --rate 1000",
		lab.ServerV4, lab.ClientV4))
	if status != statusOK {
		t.Errorf("status %d: %s", status, done.Error)
	}
	want(t, done, result{Command: "udp-client", Datagrams: 4, Replies: 4, SentBytes: 40, ReceivedBytes: 40})
	want(t, s.stop(), result{Command: "udp-server", Datagrams: 4, Replies: 4, SentBytes: 40, ReceivedBytes: 40})

	serve(t, lab, fmt.Sprintf("udp-server --silent --listen %v:7001", lab.ServerV4))
	done, status = client(t, lab, fmt.Sprintf("udp-client --to %v:7001 --timeout 10ms", lab.ServerV4))
	if status != statusFailed || !strings.Contains(done.Error, "none within 10ms") {
		t.Errorf("silent server: status %d, result %+v", status, done)
	}
	done, _ = client(t, lab, fmt.Sprintf("udp-client --to %v:7001 --one-way --count 2 --bytes 0", lab.ServerV4))
	want(t, done, result{Command: "udp-client", Datagrams: 2})
}

func TestFlows(t *testing.T) {
	testenv.Require(t, "conntrack", "nft")
	lab := testenv.Up(t, testenv.NAT)
	lab.KeepEntries(t)
	count := testenv.ConntrackRoom(t, 5000)
	serve(t, lab, fmt.Sprintf("udp-server --listen %v:20000 --ports 400", lab.ServerV4))
	done, _ := client(t, lab, fmt.Sprintf("flows --to %v:0 --count %d", lab.ServerV4, count))
	done.Datagrams, done.SentBytes, done.Repeated = 0, 0, 0 // some may be lost
	want(t, done, result{
		Command: "flows", Flows: count, Replies: int64(count), ReceivedBytes: 8 * int64(count),
	})
	if entries := strings.TrimSpace(lab.Router.Run(t, "conntrack", "-C")); entries != fmt.Sprint(count) {
		t.Errorf("%s entries, want %d", entries, count)
	}
	serve(t, lab, fmt.Sprintf("tcp-server --listen %v:20000 --ports 10", lab.ServerV4))
	done, status := client(t, lab, fmt.Sprintf("flows --tcp --to %v:0 --count 100 --ports 10 --close rst", lab.ServerV4))
	if status != statusOK {
		t.Errorf("status %d: %s", status, done.Error)
	}
	want(t, done, result{
		Command: "flows", Flows: 100, Connections: 100, Exchanges: 100, SentBytes: 800, ReceivedBytes: 800,
	})
	wantStates(t, lab, lab.ServerV4, " CLOSE ", 100)
}

func TestForge(t *testing.T) {
	testenv.Require(t, "conntrack", "nft")
	lab := testenv.Up(t, testenv.Track)
	lab.KeepEntries(t)
	for _, addrs := range [][2]netip.Addr{{lab.ClientV4, lab.ServerV4}, {lab.ClientV6, lab.ServerV6}} {
		from, to := netip.AddrPortFrom(addrs[0], 1), netip.AddrPortFrom(addrs[1], 2)
		serve(t, lab, fmt.Sprintf("tcp-server --listen %v", to)) // else conntrack forgets what meets a RST
		done, status := client(t, lab, fmt.Sprintf("forge --from %v --to %v --flags syn --seq 4294967295 --ttl 5", from, to))
		if status != statusOK {
			t.Errorf("status %d: %s", status, done.Error)
		}
		want(t, done, result{Command: "forge", Segments: 1})
		wantStates(t, lab, addrs[1], "sport=1 dport=2", 1)
	}
}
