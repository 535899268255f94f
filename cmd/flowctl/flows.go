package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"flowd/api"
	"flowd/api/flowdv1"

	"github.com/spf13/cobra"
)

// format is the value of -o.
type format struct{ name string }

var formats = []string{"table", "wide", "json"}

func (f *format) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.name, "output", "o", "table", "table, wide, or json (one object a line)")
}

func (f *format) check() error {
	if !slices.Contains(formats, f.name) {
		return usageError{fmt.Errorf("-o %s: not one of %s", f.name, strings.Join(formats, ", "))}
	}
	return nil
}

// sortKeys are the values of --sort; all sort the largest first.
var sortKeys = map[string]func(*flowdv1.Flow) int64{
	"bytes":   func(f *flowdv1.Flow) int64 { return int64(f.BytesOrig + f.BytesReply) },
	"packets": func(f *flowdv1.Flow) int64 { return int64(f.PacketsOrig + f.PacketsReply) },
	"age":     func(f *flowdv1.Flow) int64 { return -f.StartNs },
	"idle":    func(f *flowdv1.Flow) int64 { return -f.SeenNs },
}

func newFlows(c *connection) *cobra.Command {
	var (
		sel    selection
		sort   string
		limit  int
		cached bool
	)
	cmd := &cobra.Command{
		Use:   "flows [filter]",
		Short: "list flows",
		Long: `List flows. A filter that names a whole tuple finds its flow from either direction,
translated or not; any other looks at the original direction.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, ok := sortKeys[sort]; sort != "" && !ok {
				return usageError{fmt.Errorf("--sort %s: not one of bytes, packets, age, idle", sort)}
			}
			if limit < 0 {
				return usageError{fmt.Errorf("--limit %d: not a number from 0", limit)}
			}
			w := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
			p := newFlowPrinter(w, sel.out.name)
			err := sel.do(c, cmd, func(ctx context.Context, client *api.Client, m *flowdv1.Filter) error {
				return list(ctx, client, &flowdv1.ListFlowsRequest{Filter: m, Cached: cached}, sort, limit, p.print)
			})
			return errors.Join(err, w.Flush())
		},
	}
	sel.register(cmd)
	cmd.Flags().StringVar(&sort, "sort", "", "largest first by bytes, packets, age or idle")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many; 0: all")
	cmd.Flags().BoolVar(&cached, "cached", false, "as flowd knows them, without reading the kernel's table first")
	return cmd
}

// list prints flows as they come; sorted, they are collected first.
func list(ctx context.Context, client *api.Client, req *flowdv1.ListFlowsRequest, sort string, limit int, print func([]*flowdv1.Flow) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ListFlows(ctx, req)
	if err != nil {
		return err
	}
	var all []*flowdv1.Flow
	left := limit
	for {
		batch, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		flows := batch.Flows
		if sort != "" {
			all = append(all, flows...)
			continue
		}
		if limit > 0 {
			flows = flows[:min(left, len(flows))]
			left -= len(flows)
		}
		if err := print(flows); err != nil {
			return err
		}
		if limit > 0 && left == 0 {
			return nil
		}
	}
	if sort == "" {
		return print(nil)
	}
	key := sortKeys[sort]
	slices.SortFunc(all, func(a, b *flowdv1.Flow) int { return cmp.Compare(key(b), key(a)) })
	if limit > 0 {
		all = all[:min(limit, len(all))]
	}
	return print(all)
}

// flowPrinter prints flows in one of the formats.
type flowPrinter struct {
	w      io.Writer
	format string
	table  *table // made with the first flows
	now    func() time.Time
}

func newFlowPrinter(w io.Writer, format string) *flowPrinter {
	return &flowPrinter{w: w, format: format, now: time.Now}
}

func (p *flowPrinter) print(flows []*flowdv1.Flow) error {
	now := p.now()
	if p.format == "json" {
		for _, f := range flows {
			if err := printJSON(p.w, newFlowJSON(f, now)); err != nil {
				return err
			}
		}
		return nil
	}
	wide := p.format == "wide"
	var rows [][]string
	for _, f := range flows {
		rows = append(rows, row(f, wide, now))
	}
	if p.table == nil {
		head := header
		if wide {
			head = wideHeader
		}
		p.table = newTable(p.w, head...)
		rows = append([][]string{head}, rows...)
	}
	p.table.fit(rows)
	return p.table.print(rows)
}
