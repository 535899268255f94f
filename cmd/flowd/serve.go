package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"flowd/api"
	"flowd/ct"
	"flowd/engine"
	"flowd/flow"
	"flowd/policy"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
)

const (
	// refresh is the shortest time between two periodic reads of the kernel's
	// table: that a flow was offloaded has no event of its own.
	refresh = time.Second
	// journalSize changes are kept for watchers: some 15 MB once it was full.
	journalSize = 1 << 16
)

// parts are what the daemon consists of, wired together.
type parts struct {
	log      *slog.Logger
	file     string                            // configuration, to be read again
	from     atomic.Pointer[string]            // the file in force; empty: built-in defaults
	settings atomic.Pointer[[]ct.SysctlChange] // of the kernel, as found and set
	keeper   *keeper
	reader   *ct.Reader
	writer   *ct.Writer
	stats    *ct.Statistics
	tap      *ct.Tap // nil where conntrack sees FIN and RST itself
	engine   *engine.Engine
	listener net.Listener
	hup      <-chan os.Signal
}

// serve runs the daemon until a signal ends it.
func serve(ctx context.Context, file string, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// From the first moment: the default of SIGHUP is to end the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg, from, err := loadConfig(file)
	if err != nil {
		return err
	}
	if err := checkCapability(); err != nil {
		return err
	}
	held, err := lockNamespace()
	if err != nil {
		return err
	}
	defer held.release()
	p, err := assemble(cfg, log)
	if err != nil {
		return err
	}
	p.file, p.hup = file, hup
	p.from.Store(&from)
	return errors.Join(p.run(ctx), p.keeper.close())
}

// assemble opens everything, and changes settings and ruleset last: who is refused
// a socket, a namespace or a capability has changed nothing.
func assemble(cfg policy.Config, log *slog.Logger) (_ *parts, err error) {
	p := &parts{log: log}
	if p.listener, err = api.Listen(cfg.API.Socket); err != nil {
		if errors.Is(err, api.ErrInUse) {
			return nil, coded{err, exitRunning}
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			p.listener.Close()
		}
	}()
	if p.writer, err = ct.NewWriter(func(a flow.Action, err error) {
		log.Warn("kernel refused a request", "flow", a.Orig, "id", a.ID, "error", err)
	}); err != nil {
		return nil, err
	}
	if p.reader, err = ct.NewReader(ct.ReaderConfig{Refresh: refresh}); err != nil {
		return nil, err
	}
	if p.stats, err = ct.NewStatistics(); err != nil {
		return nil, err
	}
	if p.keeper, err = newKeeper(log, cfg); err != nil {
		return nil, err
	}
	if tapFor(p.keeper.features, tapGroup) != nil && p.keeper.features.Flowtable {
		p.openTap()
	}
	// Before the ruleset, as its loading sets nf_conntrack_acct, and after it, as
	// it makes the kernel load conntrack, where that was not: only then there are
	// settings.
	first := ct.Ensure(ct.Needed)
	if err = p.keeper.load(); err != nil {
		return nil, err
	}
	if err = p.settle(cfg, first); err != nil {
		return nil, err
	}
	p.engine = engine.New(judgedBy(cfg, log), kernel{p.reader, p.writer}, journalSize)
	return p, nil
}

// openTap binds to a log group that nobody reads. Without one flowd does without:
// the kernel ends closed connections too, only later.
func (p *parts) openTap() {
	for group := uint16(tapGroup); group < tapGroup+tapGroups; group++ {
		tap, err := ct.NewTap(group)
		if err == nil {
			p.tap, p.keeper.tap = tap, tapFor(p.keeper.features, group)
			return
		}
		p.log.Warn("log group not to be had", "error", err)
	}
	p.log.Warn("closed connections stay in the flowtable for its timeout: no log group for their FIN and RST",
		"tried", fmt.Sprintf("%d to %d", tapGroup, tapGroup+tapGroups-1))
}

// settle sets what could not be set before the ruleset was loaded, and tells; first is
// what could.
func (p *parts) settle(cfg policy.Config, first []ct.SysctlChange) error {
	for _, s := range first {
		if s.Err == nil {
			p.tell(s)
		}
	}
	for _, s := range ct.Ensure(slices.Concat(ct.Needed, idleTimeouts(cfg.Ageing))) {
		if errors.Is(s.Err, os.ErrNotExist) && s.Name == "nf_conntrack_events" {
			return coded{fmt.Errorf("setting %s: %w", s.Name, s.Err), exitKernel}
		}
		p.tell(s)
	}
	return nil
}

// changes are the settings that were changed, or could not be, each once: what it was
// at first, and what came of the last attempt.
func (p *parts) changes() []ct.SysctlChange {
	if all := p.settings.Load(); all != nil {
		return *all
	}
	return nil
}

// tell logs a setting that was changed, or could not be, and keeps it for the status.
func (p *parts) tell(s ct.SysctlChange) {
	all := slices.Clone(p.changes())
	if i := slices.IndexFunc(all, func(c ct.SysctlChange) bool { return c.Name == s.Name }); i >= 0 {
		was := all[i].Was
		all[i], all[i].Was = s, was
	} else {
		all = append(all, s)
	}
	p.settings.Store(&all)
	switch {
	case s.Err != nil:
		p.log.Warn("setting not changed: flowd goes without", "setting", s.Name, "for", s.Why, "error", s.Err)
	case s.Name == "nf_conntrack_acct":
		p.log.Info("setting changed: connections that are older are not counted, and stay on the slow path",
			"setting", s.Name, "was", s.Was, "now", s.Want, "for", s.Why)
	default:
		p.log.Info("setting changed", "setting", s.Name, "was", s.Was, "now", s.Want, "for", s.Why)
	}
}

// kernel is what the engine asks: entries from the writer, dumps from the reader.
type kernel struct {
	*ct.Reader
	*ct.Writer
}

// run starts every goroutine of the daemon, and returns when all have ended.
func (p *parts) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	sources := engine.Sources{Events: p.reader.Events(), Recycle: p.reader.Recycle, Answers: p.writer.Answers()}

	group.Go(func() error { return p.reader.Run(ctx) }) // conntrack's events and dumps
	group.Go(func() error { return p.writer.Run(ctx) }) // requests to conntrack
	if p.tap != nil {
		sources.Sightings = p.tap.Events()
		group.Go(func() error { return p.tap.Run(ctx) }) // FIN and RST of offloaded flows
	}
	group.Go(func() error { return p.engine.Run(ctx, sources) })                                    // the table's only writer
	group.Go(func() error { return p.keeper.Run(ctx) })                                             // the ruleset in the kernel
	group.Go(func() error { return until(ctx, p.keeper.conn.Watch(ctx, p.keeper.generation)) })     // who changes rulesets
	group.Go(func() error { return until(ctx, p.keeper.conn.WatchDevices(ctx, p.keeper.changed)) }) // devices that come and go
	group.Go(func() error { return p.serveAPI(ctx) })                                               // programs on the socket
	group.Go(func() error { return p.announce(ctx) })                                               // systemd
	group.Go(func() error { return p.reloads(ctx) })                                                // SIGHUP
	return group.Wait()
}

// until takes the end of ctx for what it is: no error.
func until(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveAPI answers on the socket until ctx ends. Watchers are cut off then.
func (p *parts) serveAPI(ctx context.Context) error {
	server := api.NewServer(&backend{Engine: p.engine, parts: p, started: time.Now()})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(p.listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("socket: %w", err)
	}
	return nil
}

// announce tells systemd when the table is complete, and when the end begins.
func (p *parts) announce(ctx context.Context) error {
	if p.engine.Synced(ctx) == nil {
		p.log.Info("ready", "flows", p.engine.Table().Len())
		systemd.SdNotify(false, systemd.SdNotifyReady)
	}
	<-ctx.Done()
	systemd.SdNotify(false, systemd.SdNotifyStopping)
	p.log.Info("stopping", "ruleset", p.keeper.state().cfg.Flowtable.OnExit)
	return nil
}

// reloads reads the configuration again at SIGHUP. A bad file changes nothing.
func (p *parts) reloads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.hup:
		}
		cfg, from, err := loadConfig(p.file)
		if err != nil {
			p.log.Error("configuration not changed", "error", err)
			continue
		}
		if was := p.keeper.state().cfg.API; cfg.API != was {
			p.log.Warn("the socket changes at the next start only", "is", was.Socket, "will be", cfg.API.Socket)
		}
		p.log.Info("configuration read again", "file", p.file)
		p.from.Store(&from)
		for _, change := range ct.Ensure(idleTimeouts(cfg.Ageing)) {
			p.tell(change)
		}
		p.engine.Configure(judgedBy(cfg, p.log))
		p.keeper.reload(cfg)
	}
}
