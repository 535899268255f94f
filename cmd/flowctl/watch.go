package main

import (
	"fmt"
	"io"
	"time"

	"flowd/api"
	"flowd/api/flowdv1"
	"flowd/flow"

	"github.com/spf13/cobra"
)

func newWatch(c *connection) *cobra.Command {
	var (
		sel   selection
		since uint64
	)
	cmd := &cobra.Command{
		Use:   "watch [filter]",
		Short: "show changes as they happen",
		Long: `Show changes of flows as they happen: new, established, offloaded (to the fast
path), onloaded (back to the slow path), closing, candidate (closed, evicted when
it stays silent), marked, and the ends: evicted, expired, and recycled (its room
was needed), each with the reason, the final counters of both directions and how
long the flow lasted. It ends with an error when it could not keep up.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := sel.check()
			if err != nil {
				return err
			}
			return c.dial(func(client *api.Client) error {
				stream, err := client.Watch(cmd.Context(), &flowdv1.WatchRequest{Filter: m, SinceSeq: since})
				if err != nil {
					return err
				}
				for {
					batch, err := stream.Recv()
					if cmd.Context().Err() != nil {
						return nil // it goes on until somebody ends it
					}
					if err != nil {
						return err
					}
					for _, change := range batch.Changes {
						if err := printChange(cmd.OutOrStdout(), change, sel.out.name); err != nil {
							return err
						}
					}
				}
			})
		},
	}
	sel.register(cmd)
	cmd.Flags().Uint64Var(&since, "since", 0, "begin with the change of this number; 0: with what happens from now on")
	return cmd
}

func printChange(w io.Writer, c *flowdv1.Change, format string) error {
	if format == "json" {
		return printJSON(w, newChangeJSON(c))
	}
	f := c.Flow
	src, dst := ends(flow.Proto(f.Protocol), f.Orig)
	what := c.Event
	if c.Reason != "" && c.Reason != c.Event {
		what += " (" + c.Reason + ")"
	}
	line := fmt.Sprintf("%s  %-20s %-5s %s > %s", stamp(c.TimeNs), what, flow.Proto(f.Protocol), src, dst)
	ended := c.Reason != ""
	if ended || f.PacketsOrig+f.PacketsReply > 0 {
		line += fmt.Sprintf("  %d/%d packets %s/%s", f.PacketsOrig, f.PacketsReply, size(f.BytesOrig), size(f.BytesReply))
	}
	if ended {
		line += "  lasted " + span(seconds(f.StartNs, time.Unix(0, c.TimeNs)))
	}
	if format == "wide" {
		src, dst = ends(flow.Proto(f.Protocol), f.Reply)
		line += fmt.Sprintf("  reply %s > %s  id %d  %s  offload %s  mark %#x", src, dst, f.Id,
			flow.State(f.State), flow.Offload(f.Offload), f.Mark)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
