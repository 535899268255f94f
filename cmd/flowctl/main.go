// Command flowctl shows and commands flowd, the flowtable manager.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"flowd/api"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// version is set by the linker: -X main.version=...
var version = "dev"

// The exit codes, as README documents them.
const (
	exitFailure     = 1 // the daemon could not do it
	exitUsage       = 2 // command line
	exitNotFound    = 3 // no flow matches
	exitUnavailable = 4 // no daemon answers on the socket, in time, or it may not be used
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return
	}
	message, code := explain(err)
	if ctx.Err() != nil {
		message, code = "interrupted: what was asked for may or may not have been done", exitFailure
	}
	fmt.Fprintln(os.Stderr, "flowctl:", message)
	os.Exit(code)
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// explain returns what to print for an error and the exit code.
func explain(err error) (string, int) {
	var usage usageError
	if errors.As(err, &usage) {
		return err.Error(), exitUsage
	}
	s, ok := status.FromError(err)
	if !ok {
		return err.Error(), exitFailure
	}
	switch s.Code() {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		return s.Message(), exitUsage
	case codes.NotFound:
		return s.Message(), exitNotFound
	case codes.DeadlineExceeded:
		return s.Message() + " (no answer in time: see --timeout, and whether flowd is stuck: systemctl status flowd)", exitUnavailable
	case codes.Unavailable:
		return s.Message() + " (is flowd running, and may you use its socket? see systemctl status flowd)", exitUnavailable
	}
	return s.Message(), exitFailure
}

// connection is how the verbs reach the daemon.
type connection struct {
	socket  string
	timeout time.Duration // of a call; not of watch
}

// do calls f with a client, and gives it until the timeout.
func (c *connection) do(cmd *cobra.Command, f func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	return c.dial(func(client *api.Client) error { return f(ctx, client) })
}

// dial calls f with a client.
func (c *connection) dial(f func(*api.Client) error) error {
	if c.socket == "" {
		return usageError{errors.New("--socket: no path")}
	}
	client, err := api.Dial(c.socket)
	if err != nil {
		return err
	}
	defer client.Close()
	return f(client)
}

func newCommand() *cobra.Command {
	var c connection
	root := &cobra.Command{
		Use:   "flowctl",
		Short: "show and command flowd, the flowtable manager",
		Long: `flowctl shows which connections a router forwards, which of them take the fast
path, and how flowd is; it gives single connections lifetimes of their own, and
ends them.

Exit codes: 0 done; 1 the daemon could not do it; 2 command line; 3 no flow
matches; 4 no daemon answers, or not in time.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Args:          noArgs,
		RunE:          needsVerb,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&c.socket, "socket", api.DefaultSocket, "flowd's socket")
	root.PersistentFlags().DurationVar(&c.timeout, "timeout", time.Minute, "how long flowd may take to answer")
	root.AddCommand(newStatus(&c), newFlows(&c), newFlow(&c), newWatch(&c), newRuleset(&c))
	return root
}

// needsVerb is for commands that only group others.
func needsVerb(cmd *cobra.Command, _ []string) error {
	return usageError{fmt.Errorf("%s: what is it to do? see %s --help", cmd.CommandPath(), cmd.CommandPath())}
}

// noArgs is cobra.NoArgs with the exit code of a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}
