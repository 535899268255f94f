package main

import (
	"fmt"
	"os"
	"time"

	"flowd/api/flowdv1"
	"flowd/ct"
	"flowd/engine"
	"flowd/flow"
)

// backend is what the socket serves: the engine's flows, and how all parts are.
type backend struct {
	*engine.Engine
	parts   *parts
	started time.Time
}

// Ruleset implements api.Backend.
func (b *backend) Ruleset() string {
	return b.parts.keeper.state().applied.String()
}

// Status implements api.Backend.
func (b *backend) Status() *flowdv1.Status {
	p := b.parts
	ns, _ := networkNamespace()
	s := &flowdv1.Status{
		Version: version, Pid: uint32(os.Getpid()), StartedNs: b.started.UnixNano(),
		Kernel: p.keeper.features.Release, Network: ns, Config: *p.from.Load(),
		Ready: b.Table().Stats().Syncs > 0,
		Table: b.tableStatus(), Rates: b.rateStatus(), Path: b.pathStatus(), Events: b.eventStatus(),
	}
	for _, c := range p.changes() {
		if c.Err != nil {
			s.Settings = append(s.Settings, fmt.Sprintf("%s not set to %d: %v", c.Name, c.Want, c.Err))
			continue
		}
		s.Settings = append(s.Settings, fmt.Sprintf("%s set from %d to %d", c.Name, c.Was, c.Want))
	}
	return s
}

func (b *backend) tableStatus() *flowdv1.Status_Table {
	t := b.Table().Stats()
	s := &flowdv1.Status_Table{
		Flows: uint64(t.Flows), Offloaded: uint64(t.Offloaded), Hardware: uint64(t.Hardware),
		Candidates: uint64(t.Candidates), HalfOpen: uint64(t.HalfOpen),
		Limit: uint64(t.Limit), ShortenedPercent: uint32(t.Shortened), WheelLagNs: t.WheelLag,
		Created: t.Created, Offloads: t.Offloads, Revived: t.Revived, Ended: make(map[string]uint64),
		Packets: t.Packets, OffloadedPackets: t.OffloadedPackets,
	}
	for i, n := range t.Ended {
		if n > 0 {
			s.Ended[flow.Reason(i).String()] = n
		}
	}
	if k, err := b.parts.stats.Read(); err == nil {
		s.KernelInsertFailed, s.KernelDrops, s.KernelEarlyDrops = k.InsertFailed, k.Drop, k.EarlyDrop
	}
	if n, err := ct.ReadSysctl("nf_conntrack_count"); err == nil {
		s.KernelEntries = uint64(n)
	}
	if n, err := ct.ReadSysctl("nf_conntrack_max"); err == nil {
		s.KernelLimit = uint64(n)
	}
	return s
}

func (b *backend) rateStatus() *flowdv1.Status_Rates {
	r := b.Rates()
	return &flowdv1.Status_Rates{
		CreatedPerS: r.Created, OffloadsPerS: r.Offloads, EndedPerS: r.Ended, RecycledPerS: r.Recycled,
		PacketsPerS: r.Packets, OffloadedPacketsPerS: r.OffloadedPackets,
	}
}

func (b *backend) pathStatus() *flowdv1.Status_Path {
	now := b.parts.keeper.state()
	s := &flowdv1.Status_Path{
		Offload: now.cfg.Flowtable.Offload.String(), Degraded: now.degraded, Tap: now.applied.Tap != nil,
		AfterPackets: now.cfg.Flowtable.After.Packets, Devices: now.applied.Devices, Missing: now.missing, Repairs: now.repairs,
		PerSource: now.applied.PerSource,
	}
	if n, err := b.parts.keeper.conn.Quota(); err == nil {
		s.QuotaPackets = n.Packets
	}
	if n, err := b.parts.keeper.conn.SlowPath(); err == nil {
		s.SlowPackets, s.SlowBytes = n.Packets, n.Bytes
	}
	return s
}

func (b *backend) eventStatus() *flowdv1.Status_Events {
	t, r, w := b.Table().Stats(), b.parts.reader.Stats(), b.parts.writer.Stats()
	s := &flowdv1.Status_Events{
		Decoded: r.Events, Malformed: r.Malformed, Overruns: r.Overruns,
		Dumps: r.Dumps, DumpNs: int64(r.DumpTime), Repaired: t.Repaired,
		Requests: w.Done + w.Absent, RequestsFailed: w.Failed,
	}
	if b.parts.tap != nil {
		s.Sightings, s.SightingsLost = b.parts.tap.Stats()
	}
	return s
}
