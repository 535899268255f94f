package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flowd/api"
	"flowd/api/flowdv1"

	"github.com/spf13/cobra"
)

func newFlowSet(c *connection) *cobra.Command {
	var (
		sel      selection
		lifetime string
	)
	cmd := &cobra.Command{
		Use:   "set TUPLE --lifetime TIME",
		Short: "change the flow of a tuple, and show it as it is then",
		Long: `Change the flow of a tuple, of either direction, translated or not, and show it as
it is then. --lifetime is how long it may show no packet, from 1s to 240h, or
"policy" to have it live as the configuration says again.`,
		Example: `  flowctl flow set -p tcp -s 192.0.2.1 --sport 40000 -d 198.51.100.2 --dport 22 --lifetime 12h
  flowctl flow set --id 3270190513 --lifetime policy`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := changes(lifetime)
			if err != nil {
				return usageError{err}
			}
			return sel.do(c, cmd, func(ctx context.Context, client *api.Client, m *flowdv1.Filter) error {
				req.Filter = m
				f, err := client.UpdateFlow(ctx, req)
				if err != nil {
					return err
				}
				return newFlowPrinter(cmd.OutOrStdout(), sel.out.name).print([]*flowdv1.Flow{f})
			})
		},
	}
	sel.registerTuple(cmd)
	cmd.Flags().StringVar(&lifetime, "lifetime", "", "how long it may show no packet, such as 60s, or \"policy\"")
	return cmd
}

// changes returns what is to be asked for.
func changes(lifetime string) (*flowdv1.UpdateFlowRequest, error) {
	if lifetime == "" {
		return nil, errors.New("what is to be set? --lifetime TIME, such as 60s, or --lifetime policy")
	}
	seconds, err := parseLifetime(lifetime)
	return &flowdv1.UpdateFlowRequest{LifetimeS: &seconds}, err
}

// parseLifetime returns s, and 0 for the policy's.
func parseLifetime(s string) (uint32, error) {
	if s == "policy" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("--lifetime %s: neither a time span such as 60s or 2m30s, nor policy", s)
	case d < time.Second || d > api.MaxLifetime:
		return 0, fmt.Errorf("--lifetime %s: not from 1s to 240h; policy gives the flow back to the configuration", s)
	case d%time.Second != 0:
		return 0, fmt.Errorf("--lifetime %s: not in whole seconds", s)
	}
	return uint32(d / time.Second), nil
}
