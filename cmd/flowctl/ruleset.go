package main

import (
	"context"
	"fmt"

	"flowd/api"
	"flowd/api/flowdv1"

	"github.com/spf13/cobra"
)

func newRuleset(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "ruleset",
		Short: "print the nftables ruleset that flowd keeps in the kernel",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.do(cmd, func(ctx context.Context, client *api.Client) error {
				r, err := client.GetRuleset(ctx, &flowdv1.GetRulesetRequest{})
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), r.Nft)
				return err
			})
		},
	}
}
