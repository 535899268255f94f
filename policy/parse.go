package policy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// file is the configuration as it is written. What a key does not say is absent.
type file struct {
	Flowtable struct {
		Devices []string `toml:"devices"`
		Exclude []string `toml:"exclude"`
		Offload *string  `toml:"offload"`
		After   struct {
			Packets *int64 `toml:"packets"`
		} `toml:"after"`
		MaxFlows  *int64  `toml:"max_flows"`
		PerSource *int64  `toml:"per_source"`
		OnExit    *string `toml:"on_exit"`
	} `toml:"flowtable"`
	Ageing struct {
		Idle      *string `toml:"idle"`
		Unreplied *string `toml:"unreplied"`
		TCP       struct {
			Established *string `toml:"established"`
			Handshake   *string `toml:"handshake"`
			HalfClosed  *string `toml:"half_closed"`
			Closing     *string `toml:"closing"`
		} `toml:"tcp"`
		Protocols []protocolTable `toml:"protocol"`
	} `toml:"ageing"`
	API struct {
		Socket *string `toml:"socket"`
	} `toml:"api"`
}

// protocolTable is one [[ageing.protocol]].
type protocolTable struct {
	Protocol any     `toml:"protocol"` // a name or a number
	Port     *int64  `toml:"port"`
	Idle     *string `toml:"idle"`
}

// Parse reads a configuration file's text. name stands before each message: an
// error says FILE:LINE:COL: what is wrong and what would be right, and shows the
// line with a caret below the place. It tells of all values that are wrong at
// once, in the file's order, unless the text is no TOML or has keys or types
// that are not known.
func Parse(name string, text []byte) (Config, error) {
	src := source{name: name, text: text}
	var f file
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return Config{}, src.explain(err)
	}
	r := reader{source: src, index: indexOf(text)}
	cfg := Default()
	if r.checkKeys(); len(r.problems) > 0 {
		return Config{}, r.err()
	}
	r.readFlowtable(&f, &cfg.Flowtable)
	r.readAgeing(&f, &cfg.Ageing)
	if s := f.API.Socket; s != nil {
		cfg.API.Socket = *s
		r.wrong("api.socket", checkSocket(*s))
	}
	return cfg, r.err()
}

func (r *reader) readFlowtable(f *file, ft *Flowtable) {
	in := &f.Flowtable
	ft.Devices = r.patterns("flowtable.devices", in.Devices)
	ft.Exclude = r.patterns("flowtable.exclude", in.Exclude)
	read(r, "flowtable.offload", in.Offload, &ft.Offload, func(s string) (Offload, error) {
		return oneOf[Offload](s, offloadNames)
	})
	read(r, "flowtable.after.packets", in.After.Packets, &ft.After.Packets, number[uint64](0, math.MaxInt64))
	read(r, "flowtable.max_flows", in.MaxFlows, &ft.MaxFlows, number[uint64](0, math.MaxInt64))
	read(r, "flowtable.per_source", in.PerSource, &ft.PerSource, number[uint64](0, math.MaxUint32))
	read(r, "flowtable.on_exit", in.OnExit, &ft.OnExit, func(s string) (OnExit, error) {
		return oneOf[OnExit](s, onExitNames)
	})
}

func (r *reader) readAgeing(f *file, a *Ageing) {
	in := &f.Ageing
	read(r, "ageing.idle", in.Idle, &a.Idle, parseTimeout)
	read(r, "ageing.unreplied", in.Unreplied, &a.Unreplied, parseTimeout)
	read(r, "ageing.tcp.established", in.TCP.Established, &a.TCP.Established, parseTimeout)
	read(r, "ageing.tcp.handshake", in.TCP.Handshake, &a.TCP.Handshake, parseTimeout)
	read(r, "ageing.tcp.half_closed", in.TCP.HalfClosed, &a.TCP.HalfClosed, parseTimeout)
	read(r, "ageing.tcp.closing", in.TCP.Closing, &a.TCP.Closing, parseClosing)

	first := make(map[string]string) // by name, the key of the entry that was first
	for i := range in.Protocols {
		key := fmt.Sprintf("ageing.protocol[%d]", i)
		p, ok := r.readProtocol(key, &in.Protocols[i])
		if !ok {
			continue
		}
		if before, twice := first[p.name()]; twice {
			r.wrong(key, fmt.Errorf("%s is already named in line %d", p.name(), r.find(before).line))
			continue
		}
		first[p.name()] = key
		a.Protocols = append(a.Protocols, p)
	}
}

// readProtocol reads one [[ageing.protocol]]. ok tells whether protocol and port
// are good.
func (r *reader) readProtocol(key string, in *protocolTable) (p ProtocolAgeing, ok bool) {
	if !r.has(key) { // the TOML parser takes one table for a list of one
		list := strings.TrimSuffix(key, "[0]")
		r.wrong(list, fmt.Errorf("is one table, but must be a list of them: write [[%s]] above each", list))
		return p, false
	}
	before := len(r.problems)
	if in.Protocol == nil {
		r.wrong(key, errors.New("protocol is missing"))
	} else {
		read(r, key+".protocol", &in.Protocol, &p.Protocol, parseProtocol)
	}
	read(r, key+".port", in.Port, &p.Port, number[uint16](1, math.MaxUint16))
	if ok = len(r.problems) == before; ok && p.Port != 0 && !p.Protocol.HasPorts() {
		r.wrong(key+".port", fmt.Errorf("protocol %s has no ports", p.Protocol))
		ok = false
	}
	if in.Idle == nil {
		r.wrong(key, errors.New("idle is missing"))
	}
	read(r, key+".idle", in.Idle, &p.Idle, parseTimeout)
	return p, ok
}

// maxSocketPath is the size of sun_path in struct sockaddr_un, linux/un.h, less
// the zero byte at its end.
const maxSocketPath = 107

func checkSocket(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("%q: not a path that begins with /", path)
	case len(path) > maxSocketPath:
		return fmt.Errorf("%q: a socket's path has at most %d bytes", path, maxSocketPath)
	}
	return nil
}

// number makes a check that a number is from low to high.
func number[T uint16 | uint64](low, high int64) func(int64) (T, error) {
	return func(n int64) (T, error) {
		switch {
		case low <= n && n <= high:
			return T(n), nil
		case high == math.MaxInt64:
			return 0, fmt.Errorf("%d: must be %d or more", n, low)
		}
		return 0, fmt.Errorf("%d: must be from %d to %d", n, low, high)
	}
}
