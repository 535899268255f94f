package main

import (
	"context"
	"flag"
	"io"
	"net/netip"
	"time"

	"flowd/testenv"
)

func udpServer(flags *flag.FlagSet) runner {
	listen := addressFlag(flags, "listen", "`ADDRESS:PORT` to receive at; port 0 is any free one")
	ports := flags.Int("ports", 1, "receive at `N` ports from that one on")
	silent := flags.Bool("silent", false, "send no replies")
	duration := flags.Duration("for", 0, "end after `DURATION`, as 30s")
	return func(ctx context.Context, log io.Writer) (result, error) {
		if err := need("listen", listen); err != nil {
			return result{}, err
		}
		begin := time.Now()
		server, err := testenv.ServeUDP(nil, testenv.UDPServerConfig{
			Addr: *listen, Ports: *ports, Silent: *silent,
		})
		if err != nil {
			return result{}, err
		}
		listening(log, "udp", server.Addr)
		wait(ctx, *duration)
		err = server.Close()
		return served(server.Totals(), begin), err
	}
}

// A udpClientJob is the command line of udp-client.
type udpClientJob struct {
	from, to     *netip.AddrPort
	count, bytes int
	rate         float64
	oneWay       bool
	timeout      time.Duration
}

func udpClient(flags *flag.FlagSet) runner {
	job := &udpClientJob{
		to:   addressFlag(flags, "to", "`ADDRESS:PORT` to send to"),
		from: addressFlag(flags, "from", "`ADDRESS:PORT` to send from"),
	}
	flags.IntVar(&job.count, "count", 1, "send `N` datagrams, each after the reply to the one before")
	flags.IntVar(&job.bytes, "bytes", 64, "`N` bytes of payload in each")
	flags.Float64Var(&job.rate, "rate", 0, "at most `N` datagrams a second")
	flags.BoolVar(&job.oneWay, "one-way", false, "wait for no replies")
	flags.DurationVar(&job.timeout, "timeout", 10*time.Second, "wait for a reply for `DURATION`")
	return job.run
}

func (j *udpClientJob) run(ctx context.Context, _ io.Writer) (result, error) {
	if err := need("to", j.to); err != nil {
		return result{}, err
	}
	if err := atLeast("count", j.count, 1); err != nil {
		return result{}, err
	}
	if j.bytes < 0 || j.bytes > testenv.MaxDatagram {
		return result{}, usagef("--bytes %d: 0 to %d", j.bytes, testenv.MaxDatagram)
	}
	conn, err := testenv.DialUDP(nil, *j.from, *j.to)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	conn.Timeout = j.timeout
	var done result
	begin := time.Now()
	err = j.send(ctx, conn, &done)
	done.Elapsed = time.Since(begin).Seconds()
	return done, err
}

func (j *udpClientJob) send(ctx context.Context, conn *testenv.UDPConn, done *result) error {
	pace := newPacer(j.rate)
	for range j.count {
		if err := pace.next(ctx); err != nil {
			return err
		}
		if err := conn.Send(1, j.bytes); err != nil {
			return err
		}
		done.Datagrams++
		done.SentBytes += int64(j.bytes)
		if j.oneWay {
			continue
		}
		if err := conn.Receive(1); err != nil {
			return err
		}
		done.Replies++
		done.ReceivedBytes += int64(j.bytes)
	}
	return nil
}
