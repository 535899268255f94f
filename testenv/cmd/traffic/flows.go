package main

import (
	"context"
	"flag"
	"io"
	"time"

	"flowd/testenv"
)

// A flowsJob is the command line of flows.
type flowsJob struct {
	config testenv.FlowsConfig
	tcp    bool
	close  string
	hold   time.Duration
}

func flows(flags *flag.FlagSet) runner {
	to := addressFlag(flags, "to", "`ADDRESS:PORT`, the first port of the server; port 0 is 20000")
	from := addressFlag(flags, "from", "`ADDRESS:PORT`, the first source port; port 0 is 10000")
	job := new(flowsJob)
	flags.IntVar(&job.config.Count, "count", 1000, "make `N` flows with different five-tuples")
	flags.IntVar(&job.config.Ports, "ports", 400, "spread them on `N` ports of the server, which has to listen at all")
	flags.IntVar(&job.config.Size, "bytes", 8, "`N` bytes of payload, 8 to 1400")
	flags.BoolVar(&job.config.OneWay, "one-way", false, "wait for no replies (UDP), send nothing once connected (TCP)")
	flags.BoolVar(&job.tcp, "tcp", false, "make TCP connections, all open at the same time")
	flags.StringVar(&job.close, "close", "fin", "`HOW` to close TCP connections: fin or rst")
	flags.DurationVar(&job.hold, "hold", 0, "keep TCP connections open for `DURATION`")
	return func(ctx context.Context, _ io.Writer) (result, error) {
		if err := need("to", to); err != nil {
			return result{}, err
		}
		job.config.From, job.config.To = *from, *to
		if job.tcp {
			return job.runTCP(ctx)
		}
		return job.runUDP(ctx)
	}
}

func (j *flowsJob) runUDP(ctx context.Context) (result, error) {
	made, err := testenv.SendUDPFlows(ctx, j.config)
	done := result{
		Flows:     made.Flows,
		Datagrams: int64(made.Datagrams),
		Repeated:  made.Repeated,
		SentBytes: int64(made.Datagrams * j.config.Size),
		Elapsed:   made.Elapsed.Seconds(),
	}
	if !j.config.OneWay {
		done.Replies = int64(made.Flows)
		done.ReceivedBytes = int64(made.Flows * j.config.Size)
	}
	return done, err
}

func (j *flowsJob) runTCP(ctx context.Context) (result, error) {
	end := (*testenv.TCPConn).Close
	switch j.close {
	case "fin":
	case "rst":
		end = (*testenv.TCPConn).Reset
	default:
		return result{}, usagef("--close %s: fin or rst", j.close)
	}
	made, err := testenv.DialTCPFlows(ctx, j.config)
	if err != nil {
		return result{}, err
	}
	if j.hold > 0 {
		wait(ctx, j.hold)
	}
	done := result{
		Flows:       len(made.Conns),
		Connections: int64(len(made.Conns)),
		Elapsed:     made.Elapsed.Seconds(),
	}
	if !j.config.OneWay {
		done.Exchanges = len(made.Conns)
		done.SentBytes = int64(len(made.Conns) * j.config.Size)
		done.ReceivedBytes = done.SentBytes
	}
	return done, made.Each(end)
}
