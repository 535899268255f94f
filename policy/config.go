// Package policy holds what the operator wants: the configuration file, checked.
// It is pure: it opens no file and asks no kernel.
package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Config is the configuration, flowd.toml. The zero value is not of use:
// Default is.
type Config struct {
	Flowtable Flowtable
	Ageing    Ageing
	API       API
}

// Flowtable says which traffic takes the fast path.
type Flowtable struct {
	Devices   []Pattern // none: every device that forwards
	Exclude   []Pattern
	Offload   Offload
	After     Threshold
	MaxFlows  uint64 // at the limit the flow nearest to expiry is recycled; 0: nf_conntrack_max
	PerSource uint64 // flows that one source address may hold, up to 2^32-1; 0: no limit
	OnExit    OnExit
}

// Threshold is what a flow has to show before it is offloaded.
type Threshold struct {
	Packets uint64 // of both directions together; 0 and 1: at once
}

// API says where programs reach the daemon.
type API struct {
	Socket string
}

// Default is the configuration that holds where the file says nothing.
func Default() Config {
	return Config{
		Flowtable: Flowtable{
			Offload:  OffloadSoftware,
			After:    Threshold{Packets: 20},
			MaxFlows: 512_000,
			OnExit:   OnExitKeep,
		},
		Ageing: defaultAgeing(),
		API:    API{Socket: "/run/flowd/flowd.sock"},
	}
}

// Offload is how flows are offloaded.
type Offload uint8

const (
	OffloadOff Offload = iota
	OffloadSoftware
)

var offloadNames = []string{"off", "software"}

// String is the name in the configuration.
func (o Offload) String() string { return offloadNames[o] }

// OnExit says what becomes of the ruleset when the daemon is stopped.
type OnExit uint8

const (
	OnExitKeep OnExit = iota // it goes on serving
	OnExitRemove
)

var onExitNames = []string{"keep", "remove"}

// String is the name in the configuration.
func (o OnExit) String() string { return onExitNames[o] }

func oneOf[T ~uint8](s string, names []string) (T, error) {
	i := slices.Index(names, s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %q", s, names)
	}
	return T(i), nil
}

// Pattern is a device name, or a pattern of them as path.Match takes it.
type Pattern struct{ glob string }

// String is the pattern as written.
func (p Pattern) String() string { return p.glob }

// Literal tells whether the pattern is the name of one device.
func (p Pattern) Literal() bool { return !strings.ContainsAny(p.glob, metacharacters) }

// metacharacters are what makes a name a pattern: path.Match.
const metacharacters = `*?[\`

// maxDeviceName is IFNAMSIZ - 1, linux/if.h: the longest name a device can have.
const maxDeviceName = 15

func parsePattern(s string) (Pattern, error) {
	switch _, err := path.Match(s, ""); {
	case s == "":
		return Pattern{}, errors.New("empty device name")
	case err != nil:
		return Pattern{}, fmt.Errorf("%q: not a valid pattern: a [ needs its ]", s)
	case strings.ContainsAny(s, " /\t\n"):
		return Pattern{}, fmt.Errorf("%q: a device name has neither blanks nor slashes", s)
	case !strings.ContainsAny(s, metacharacters) && len(s) > maxDeviceName:
		return Pattern{}, fmt.Errorf("%q: a device name has at most %d bytes", s, maxDeviceName)
	}
	return Pattern{s}, nil
}
