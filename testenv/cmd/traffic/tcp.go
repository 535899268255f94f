package main

import (
	"context"
	"flag"
	"io"
	"net/netip"
	"time"

	"flowd/testenv"
)

func tcpServer(flags *flag.FlagSet) runner {
	listen := addressFlag(flags, "listen", "`ADDRESS:PORT` to listen at; port 0 is any free one")
	ports := flags.Int("ports", 1, "listen at `N` ports from that one on")
	mode := flags.String("mode", "echo", "`MODE`: echo; sink (receive only); source (send without end)")
	hold := flags.Bool("hold", false, "keep connections open that the client has half closed")
	duration := flags.Duration("for", 0, "end after `DURATION`, as 30s")
	return func(ctx context.Context, log io.Writer) (result, error) {
		if err := need("listen", listen); err != nil {
			return result{}, err
		}
		begin := time.Now()
		server, err := testenv.ServeTCP(nil, testenv.TCPServerConfig{
			Addr: *listen, Ports: *ports, Mode: testenv.Mode(*mode), HoldOpen: *hold,
		})
		if err != nil {
			return result{}, err
		}
		listening(log, "tcp", server.Addr)
		wait(ctx, *duration)
		err = server.Close()
		return served(server.Totals(), begin), err
	}
}

// A tcpClientJob is the command line of tcp-client.
type tcpClientJob struct {
	from, to                  *netip.AddrPort
	connections, count, bytes int
	rate                      float64
	mode, close               string
	hold                      time.Duration
}

func tcpClient(flags *flag.FlagSet) runner {
	job := &tcpClientJob{
		to:   addressFlag(flags, "to", "`ADDRESS:PORT` to connect to"),
		from: addressFlag(flags, "from", "`ADDRESS:PORT` to connect from"),
	}
	flags.IntVar(&job.connections, "connections", 1, "open `N` connections, one after another")
	flags.IntVar(&job.count, "count", 1, "`N` exchanges on each: a request, and the reply to it")
	flags.IntVar(&job.bytes, "bytes", 64, "`N` bytes in each request and reply")
	flags.Float64Var(&job.rate, "rate", 0, "at most `N` exchanges a second")
	flags.StringVar(&job.mode, "mode", "echo", "`MODE` of the server: with sink there are requests only, with source replies")
	flags.StringVar(&job.close, "close", "fin", "`HOW` to close: fin (both sides); half (this side only); rst")
	flags.DurationVar(&job.hold, "hold", 0, "stay connected for `DURATION` after the last exchange, or half closed with --close half")
	return job.run
}

func (j *tcpClientJob) run(ctx context.Context, _ io.Writer) (result, error) {
	if err := j.check(); err != nil {
		return result{}, err
	}
	var done result
	begin := time.Now()
	pace := newPacer(j.rate)
	for range j.connections {
		if err := j.connect(ctx, pace, &done); err != nil {
			done.Elapsed = time.Since(begin).Seconds()
			return done, err
		}
	}
	done.Elapsed = time.Since(begin).Seconds()
	return done, nil
}

func (j *tcpClientJob) check() error {
	if err := need("to", j.to); err != nil {
		return err
	}
	switch testenv.Mode(j.mode) {
	case testenv.Echo, testenv.Sink, testenv.Source:
	default:
		return usagef("--mode %s: echo, sink or source", j.mode)
	}
	switch j.close {
	case "fin", "half", "rst":
	default:
		return usagef("--close %s: fin, half or rst", j.close)
	}
	if err := atLeast("connections", j.connections, 1); err != nil {
		return err
	}
	if err := atLeast("count", j.count, 0); err != nil {
		return err
	}
	return atLeast("bytes", j.bytes, 1)
}

// connect is one connection from beginning to end.
func (j *tcpClientJob) connect(ctx context.Context, pace *pacer, done *result) error {
	conn, err := testenv.DialTCP(ctx, nil, *j.from, *j.to)
	if err != nil {
		return err
	}
	defer conn.Abandon()
	done.Connections++
	for range j.count {
		if err := pace.next(ctx); err != nil {
			return err
		}
		if err := j.exchange(conn, done); err != nil {
			return err
		}
	}
	return j.end(ctx, conn)
}

func (j *tcpClientJob) exchange(conn *testenv.TCPConn, done *result) error {
	var sent, received int
	var err error
	switch testenv.Mode(j.mode) {
	case testenv.Echo:
		sent, received = j.bytes, j.bytes
		err = conn.Exchange(1, j.bytes)
	case testenv.Sink:
		sent = j.bytes
		err = conn.Write(j.bytes)
	case testenv.Source:
		received = j.bytes
		err = conn.Read(j.bytes)
	}
	if err == nil {
		done.Exchanges++
		done.SentBytes += int64(sent)
		done.ReceivedBytes += int64(received)
	}
	return err
}

func (j *tcpClientJob) end(ctx context.Context, conn *testenv.TCPConn) error {
	if j.close == "half" {
		if err := conn.CloseWrite(); err != nil {
			return err
		}
	}
	if j.hold > 0 {
		wait(ctx, j.hold)
	}
	switch j.close {
	case "half":
		return conn.Abandon()
	case "rst":
		return conn.Reset()
	}
	return conn.Close()
}
