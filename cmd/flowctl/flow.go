package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"flowd/api"
	"flowd/api/flowdv1"

	"github.com/spf13/cobra"
)

func newFlow(c *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flow",
		Short: "show, change or end single flows",
		Args:  noArgs,
		RunE:  needsVerb,
	}
	cmd.AddCommand(newFlowShow(c), newFlowSet(c), newFlowEvict(c))
	return cmd
}

func newFlowShow(c *connection) *cobra.Command {
	var sel selection
	cmd := &cobra.Command{
		Use:   "show TUPLE",
		Short: "show the flow of a tuple, of either direction, translated or not",
		Example: `  flowctl flow show -p tcp -s 192.0.2.1 --sport 40000 -d 198.51.100.2 --dport 443
  flowctl flow show --id 3270190513 -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sel.do(c, cmd, func(ctx context.Context, client *api.Client, m *flowdv1.Filter) error {
				f, err := client.GetFlow(ctx, &flowdv1.GetFlowRequest{Filter: m})
				if err != nil {
					return err
				}
				return newFlowPrinter(cmd.OutOrStdout(), sel.out.name).print([]*flowdv1.Flow{f})
			})
		},
	}
	sel.register(cmd)
	return cmd
}

func newFlowEvict(c *connection) *cobra.Command {
	var (
		sel selection
		all bool
	)
	cmd := &cobra.Command{
		Use:   "evict FILTER",
		Short: "end flows: delete their conntrack and flowtable entries",
		Long: `End flows: their conntrack entries are deleted, by tuple and id, and with them
their flowtable entries. A connection that still sends packets is picked up anew,
unless rules of the firewall say otherwise. Each end is shown as "flowctl watch"
shows it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sel.do(c, cmd, func(ctx context.Context, client *api.Client, m *flowdv1.Filter) error {
				res, err := client.EvictFlows(ctx, &flowdv1.EvictFlowsRequest{Filter: m, All: all})
				if err != nil {
					return err
				}
				return reportEvicted(cmd.OutOrStdout(), res, sel.out.name)
			})
		},
	}
	sel.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "end every flow; asked for when there is no filter")
	return cmd
}

// reportEvicted prints the end-of-flow records, and fails when some flows were
// not seen to end.
func reportEvicted(w io.Writer, res *flowdv1.EvictFlowsResponse, format string) error {
	for _, c := range res.Ended {
		if err := printChange(w, c, format); err != nil {
			return err
		}
	}
	if format != "json" {
		fmt.Fprintf(w, "%d evicted\n", res.Evicted)
	}
	if res.Remaining > 0 {
		return fmt.Errorf("%d flows were not seen to end yet; flowd goes on trying, and \"flowctl status\" counts what the kernel refused", res.Remaining)
	}
	return nil
}

// stamp is a time of day, to the millisecond, of this machine's zone.
func stamp(ns int64) string { return time.Unix(0, ns).Format("15:04:05.000") }
