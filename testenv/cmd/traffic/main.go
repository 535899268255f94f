// Command traffic sends and serves network traffic of chosen shape, for trying
// out a router by hand, in a laboratory (see testenv/lab) or between machines:
//
//	lab exec server traffic tcp-server --listen 198.51.100.2:7000 &
//	lab exec client traffic tcp-client --to 198.51.100.2:7000 --count 100
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit statuses.
const (
	statusOK     = 0
	statusFailed = 1 // the traffic did not come about
	statusUsage  = 2
)

// A command is one subcommand. Its setup declares flags and returns what is to
// run once they are read.
type command struct {
	name, summary string
	setup         func(*flag.FlagSet) runner
}

// A runner does the work until it is done or ctx ends. It returns what was done
// even where it fails; log is for what is worth saying before.
type runner func(ctx context.Context, log io.Writer) (result, error)

var commands = []command{
	{"tcp-server", "serve TCP: echo, sink or source", tcpServer},
	{"tcp-client", "open TCP connections, exchange, close them in a chosen way", tcpClient},
	{"udp-server", "answer datagrams, or only count them", udpServer},
	{"udp-client", "send datagrams of one flow", udpClient},
	{"flows", "make many flows at once, UDP or TCP", flows},
	{"forge", "send one TCP segment of any content", forge},
}

// errUsage is what is wrong with the command line, not with the traffic.
var errUsage = errors.New("wrong usage")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errUsage}, args...)...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return statusUsage
	}
	if name := args[0]; name == "help" || name == "-h" || name == "--help" {
		usage(stdout)
		return statusOK
	}
	for _, command := range commands {
		if command.name == args[0] {
			return command.run(ctx, args[1:], stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "traffic: no such command %q; see 'traffic --help'\n", args[0])
	return statusUsage
}

func (c command) run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	format := flags.String("o", "text", "`FORMAT` of the result: text or json")
	work := c.setup(flags)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		c.usage(stdout, flags)
		return statusOK
	}
	switch {
	case err != nil:
		err = usagef("%w", err)
	case flags.NArg() > 0:
		err = usagef("unexpected %q", flags.Arg(0))
	case *format != "text" && *format != "json":
		err = usagef("no such format %q: text or json", *format)
	}
	var done result
	if err == nil {
		done, err = work(ctx, stderr)
	}
	if errors.Is(err, errUsage) {
		fmt.Fprintf(stderr, "traffic %s: %v; see 'traffic %s --help'\n", c.name, err, c.name)
		return statusUsage
	}
	done.Command = c.name
	return done.report(*format, err, stdout, stderr)
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: traffic COMMAND [OPTION...]\n\nCommands ('traffic COMMAND --help' tells their options):\n")
	for _, command := range commands {
		fmt.Fprintf(w, "  %-12s %s\n", command.name, command.summary)
	}
	fmt.Fprint(w, `
Addresses are written 192.0.2.1:80 and [2001:db8::1]:80. Servers run until they
are interrupted; they say on standard error when they listen. Every command ends
with one line of result on standard output, a JSON object with -o json.

Exit status: 0 done, 1 not done (the reason is on standard error), 2 usage.
`)
}

// usage lists the flags in the words of their declarations.
func (c command) usage(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: traffic %s [OPTION...]\n\n%s\n\nOptions:\n",
		c.name, strings.ToUpper(c.summary[:1])+c.summary[1:]+".")
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" && f.DefValue != "0s" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-22s %s\n", strings.TrimSpace(dashes+f.Name+" "+value), text)
	})
}
