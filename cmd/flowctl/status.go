package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"flowd/api"
	"flowd/api/flowdv1"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
)

func newStatus(c *connection) *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show how daemon, kernel and table are",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return c.do(cmd, func(ctx context.Context, client *api.Client) error {
				s, err := client.GetStatus(ctx, &flowdv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				if out.name == "json" {
					b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(s)
					if err == nil {
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
					}
					return err
				}
				return printStatus(cmd.OutOrStdout(), s, time.Now())
			})
		},
	}
	out.register(cmd)
	return cmd
}

// printStatus writes what matters first first: does it run, does it offload, did
// it lose anything.
func printStatus(w io.Writer, s *flowdv1.Status, now time.Time) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	ready := "ready"
	if !s.Ready {
		ready = "reading the kernel's table"
	}
	line("flowd", "%s, pid %d, up %s, %s", s.Version, s.Pid, span(seconds(s.StartedNs, now)), ready)
	line("kernel", "%s, network namespace %s", s.Kernel, s.Network)
	config := s.Config
	if config == "" {
		config = "built-in defaults"
	}
	line("config", "%s", config)
	printPath(line, s.Path)
	printTable(line, s.Table)
	printRates(line, s.Table, s.Rates)
	printEvents(line, s.Events)
	for _, setting := range s.Settings {
		line("setting", "%s", setting)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type liner func(name, format string, args ...any)

func printPath(line liner, p *flowdv1.Status_Path) {
	switch {
	case p.GetDegraded() != "":
		line("offload", "none, although %s is wanted: %s", p.GetOffload(), p.GetDegraded())
	case p.GetOffload() == "off":
		line("offload", "off")
	default:
		line("offload", "%s, after %d packets, on %s", p.GetOffload(), p.GetAfterPackets(), listOr(p.GetDevices(), "no device"))
	}
	if len(p.GetMissing()) > 0 {
		line("", "not on %s: not there", strings.Join(p.GetMissing(), ", "))
	}
	if p.GetTap() {
		line("", "FIN and RST of offloaded flows are watched")
	}
	if p.GetRepairs() > 0 {
		line("", "times that another program changed the ruleset and it was restored: %d", p.GetRepairs())
	}
	line("slow path", "%d packets, %s", p.GetSlowPackets(), size(p.GetSlowBytes()))
	if p.GetPerSource() > 0 {
		line("", "%d connections refused of sources that had %d already", p.GetQuotaPackets(), p.GetPerSource())
	}
}

func printTable(line liner, t *flowdv1.Status_Table) {
	line("flows", "%d%s, %d offloaded (%s), %d in hardware, %d half-open, %d to be evicted",
		t.GetFlows(), ofLimit(t.GetFlows(), t.GetLimit()), t.GetOffloaded(), percent(t.GetOffloaded(), t.GetFlows()), t.GetHardware(), t.GetHalfOpen(), t.GetCandidates())
	if t.GetShortenedPercent() > 0 {
		line("", "lifetimes are shortened by %d %%, as the table fills up", t.GetShortenedPercent())
	}
	if lag := time.Duration(t.GetWheelLagNs()); lag > time.Second {
		line("", "flows are looked at %v too late", lag.Round(100*time.Millisecond))
	}
	line("", "the kernel's table: %d%s", t.GetKernelEntries(), ofLimit(t.GetKernelEntries(), t.GetKernelLimit()))
	var ends []string
	for _, reason := range slices.Sorted(maps.Keys(t.GetEnded())) {
		ends = append(ends, fmt.Sprintf("%d %s", t.GetEnded()[reason], reason))
	}
	if t.GetKernelDrops()+t.GetKernelEarlyDrops()+t.GetKernelInsertFailed() > 0 {
		line("", "kernel: %d packets dropped, %d connections dropped early, %d clashed (since the namespace was made)",
			t.GetKernelDrops(), t.GetKernelEarlyDrops(), t.GetKernelInsertFailed())
	}
	line("since up", "%d created, %d times offloaded, ended: %s", t.GetCreated(), t.GetOffloads(), listOr(ends, "none"))
	if t.GetRevived() > 0 {
		line("", "%d times a closed flow showed life and was kept", t.GetRevived())
	}
}

// ofLimit is for after a number that has a limit, or none.
func ofLimit(n, limit uint64) string {
	if limit == 0 {
		return ", no limit"
	}
	return fmt.Sprintf(" of %d (%s)", limit, percent(n, limit))
}

// printRates leaves the rate of packets out: those of an offloaded flow are counted
// when it is read, so that it jumps, and only what part of them was offloaded holds.
func printRates(line liner, t *flowdv1.Status_Table, r *flowdv1.Status_Rates) {
	line("rates", "a second: %s flows created, %s offloaded, %s ended, %s of them recycled",
		rate(r.GetCreatedPerS()), rate(r.GetOffloadsPerS()), rate(r.GetEndedPerS()), rate(r.GetRecycledPerS()))
	lately := "none counted in the last seconds"
	if all := r.GetPacketsPerS(); all > 0 {
		lately = fmt.Sprintf("%.0f %% in the last seconds", 100*r.GetOffloadedPacketsPerS()/all)
	}
	line("packets", "by the fast path: %s, %s since up", lately, percent(t.GetOffloadedPackets(), t.GetPackets()))
}

// rate writes a rate with about three digits.
func rate(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func printEvents(line liner, e *flowdv1.Status_Events) {
	line("events", "%d read, %d overruns, %d malformed; %d dumps, the last in %s, repaired %d flows",
		e.GetDecoded(), e.GetOverruns(), e.GetMalformed(), e.GetDumps(), time.Duration(e.GetDumpNs()).Round(10*time.Microsecond), e.GetRepaired())
	line("requests", "%d done, %d failed", e.GetRequests(), e.GetRequestsFailed())
	if e.GetSightings()+e.GetSightingsLost() > 0 {
		line("FIN/RST", "%d seen, %d lost", e.GetSightings(), e.GetSightingsLost())
	}
}

func listOr(items []string, none string) string {
	if len(items) == 0 {
		return none
	}
	return strings.Join(items, ", ")
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}
