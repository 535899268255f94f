package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
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
			Packets *uint64 `toml:"packets"`
		} `toml:"after"`
		OnExit *string `toml:"on_exit"`
	} `toml:"flowtable"`
	Ageing struct {
		TCP struct {
			Closing *string `toml:"closing"`
		} `toml:"tcp"`
	} `toml:"ageing"`
	API struct {
		Socket *string `toml:"socket"`
	} `toml:"api"`
}

// Parse reads a configuration file's text. name stands before each message: an
// error says FILE:LINE:COL: what is wrong and what would be right, and shows the
// line with a caret below the place. It tells of all values that are wrong at
// once, unless the text is no TOML or has keys or types that are not known.
func Parse(name string, text []byte) (Config, error) {
	src := source{name: name, text: text}
	var f file
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return Config{}, src.explain(err)
	}
	cfg := Default()
	var errs []error
	wrong := func(key string, err error) {
		if err != nil {
			errs = append(errs, src.at(src.find(key), key+": "+err.Error()))
		}
	}
	patterns := func(key string, list []string) []Pattern {
		var all []Pattern
		for i, s := range list {
			p, err := parsePattern(s)
			wrong(fmt.Sprintf("%s[%d]", key, i), err)
			all = append(all, p)
		}
		return all
	}
	var err error
	cfg.Flowtable.Devices = patterns("flowtable.devices", f.Flowtable.Devices)
	cfg.Flowtable.Exclude = patterns("flowtable.exclude", f.Flowtable.Exclude)
	if s := f.Flowtable.Offload; s != nil {
		cfg.Flowtable.Offload, err = oneOf[Offload](*s, offloadNames)
		wrong("flowtable.offload", err)
	}
	if n := f.Flowtable.After.Packets; n != nil {
		cfg.Flowtable.After.Packets = *n
	}
	if s := f.Flowtable.OnExit; s != nil {
		cfg.Flowtable.OnExit, err = oneOf[OnExit](*s, onExitNames)
		wrong("flowtable.on_exit", err)
	}
	if s := f.Ageing.TCP.Closing; s != nil {
		cfg.Ageing.TCP.Closing, err = parseDuration(*s)
		wrong("ageing.tcp.closing", err)
	}
	if s := f.API.Socket; s != nil {
		cfg.API.Socket = *s
		wrong("api.socket", checkSocket(*s))
	}
	return cfg, errors.Join(errs...)
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

// explain says where the parser found what.
func (s *source) explain(err error) error {
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		var all []error
		for i := range strict.Errors {
			e := &strict.Errors[i]
			line, col := e.Position()
			all = append(all, s.at(place{line, col}, fmt.Sprintf("unknown key %q", strings.Join(e.Key(), "."))))
		}
		return errors.Join(all...)
	case errors.As(err, &decode):
		message := inWords(strings.TrimPrefix(decode.Error(), "toml: "))
		if key := strings.Join(decode.Key(), "."); key != "" {
			message = key + ": " + message
		}
		line, col := decode.Position()
		return s.at(place{line, col}, message)
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

// wrongType is how the parser speaks of a value of the wrong type: in Go's terms.
var wrongType = regexp.MustCompile(`cannot decode TOML ([a-z ]+) into .* of type (.*)$`)

// kinds are the types of file in an operator's terms; any other is a table.
var kinds = map[string]string{
	"uint64":   "a whole number, from 0",
	"string":   "a string in quotes",
	"*string":  "a string in quotes",
	"*uint64":  "a whole number, from 0",
	"[]string": `a list of strings, as ["lan0", "wan*"]`,
}

func inWords(message string) string {
	m := wrongType.FindStringSubmatch(message)
	if m == nil {
		return message
	}
	kind, ok := kinds[m[2]]
	if !ok {
		kind = "a table"
	}
	return fmt.Sprintf("is a TOML %s, but must be %s", m[1], kind)
}
