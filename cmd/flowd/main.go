// Command flowd keeps a router's established connections on the kernel's fast
// path and knows of every one of them.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"flowd/nft"
	"flowd/policy"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// version is set by the linker: -X main.version=...
var version = "dev"

// defaultConfig may be absent: then the built-in defaults hold.
const defaultConfig = "/etc/flowd/flowd.toml"

// The exit codes, as README documents them.
const (
	exitFailure    = 1 // something failed while running
	exitUsage      = 2 // command line or configuration
	exitRunning    = 3 // another flowd serves this network namespace, or the socket is in use
	exitPermission = 4 // CAP_NET_ADMIN is missing
	exitKernel     = 5 // the kernel lacks what flowd cannot do without
)

// coded is an error that says with which code the program ends.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

func main() {
	cmd := newCommand()
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "flowd:", err)
		os.Exit(exitCode(err))
	}
}

func exitCode(err error) int {
	var c coded
	if errors.As(err, &c) {
		return c.code
	}
	return exitFailure
}

// noArgs is cobra.NoArgs with the exit code of a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return coded{err, exitUsage}
	}
	return nil
}

// checkCapability fails unless the process may configure the network.
func checkCapability() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return coded{errors.New("CAP_NET_ADMIN is needed, for nftables and conntrack: run as root, or by the systemd unit"), exitPermission}
	}
	return nil
}

// options are the command line's.
type options struct {
	config    string
	logLevel  string
	logFormat string
}

func newCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "flowd",
		Short: "flowtable manager for Linux routers",
		Long: `flowd keeps a router's established connections on the kernel's fast path (an
nftables flowtable), follows every connection through conntrack, and serves what
it knows to flowctl and other programs.

Exit codes: 0 stopped by a signal; 1 something failed; 2 command line or
configuration; 3 another flowd runs in this network namespace, or the socket is
in use; 4 CAP_NET_ADMIN is missing; 5 the kernel lacks conntrack's netlink.`,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(o.logLevel, o.logFormat)
			if err != nil {
				return coded{err, exitUsage}
			}
			return serve(cmd.Context(), o.config, log)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return coded{err, exitUsage} })
	root.PersistentFlags().StringVar(&o.config, "config", defaultConfig, "configuration file")
	root.Flags().StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	root.Flags().StringVar(&o.logFormat, "log-format", "text", "text, json, or journal (text with the priorities of sd-daemon(3))")
	root.AddCommand(newCheck(&o), newRuleset(&o), newCleanup())
	return root
}

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "check the configuration and say what is wrong with it",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, _, err := loadConfig(o.config)
			return err
		},
	}
}

func newRuleset(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "ruleset",
		Short: "print the nft ruleset that the configuration stands for, with the devices there are now",
		Long: `Print the nft ruleset that the configuration stands for, with the devices there
are now, as this kernel can take it; without CAP_NET_ADMIN, as one can that has a
flowtable. Touches nothing.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := loadConfig(o.config)
			if err != nil {
				return err
			}
			conn, err := nft.Open()
			if err != nil {
				return err
			}
			defer conn.Close()
			features, err := conn.Probe()
			if errors.Is(err, unix.EPERM) {
				// Only who may load it can ask what the kernel would take.
				features.Flowtable, features.LogGroup, features.IngressInet = true, true, true
				features.Timeouts, features.ConnLimit = true, true
			} else if err != nil {
				return err
			}
			want, err := ruleset(conn, cfg, features, tapFor(features, tapGroup))
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), want.String())
			return nil
		},
	}
}

func newCleanup() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "remove flowd's table from the kernel; connections go on in the slow path",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkCapability(); err != nil {
				return err
			}
			// A flowd that runs would put it back.
			held, err := lockNamespace()
			if err != nil {
				return err
			}
			defer held.release()
			conn, err := nft.Open()
			if err != nil {
				return err
			}
			defer conn.Close()
			return conn.Remove()
		},
	}
}

// loadConfig reads the file. The default one may be absent: then from is empty.
func loadConfig(file string) (cfg policy.Config, from string, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) && file == defaultConfig {
		return policy.Default(), "", nil
	}
	if err != nil {
		return cfg, "", coded{fmt.Errorf("configuration: %w", err), exitUsage}
	}
	if cfg, err = policy.Parse(file, text); err != nil {
		return cfg, "", coded{fmt.Errorf("configuration:\n%w", err), exitUsage}
	}
	return cfg, file, nil
}

func newLogger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %s: not debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	case "journal":
		return slog.New(newJournalHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %s: not text, json or journal", format)
}
