package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Parse reads a configuration file's text. name stands before each message: an
// error says FILE:LINE:COL: what is wrong and what would be right, and shows the
// line with a caret below the place.
func Parse(name string, text []byte) (Config, error) {
	cfg := Default()
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&cfg)
	if err == nil {
		return cfg, nil
	}
	src := source{name: name, lines: strings.Split(string(text), "\n")}
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		var all []error
		for i := range strict.Errors {
			e := &strict.Errors[i]
			all = append(all, src.at(e, fmt.Sprintf("unknown key %q", strings.Join(e.Key(), "."))))
		}
		return Config{}, errors.Join(all...)
	case errors.As(err, &decode):
		message := inWords(strings.TrimPrefix(decode.Error(), "toml: "))
		if key := strings.Join(decode.Key(), "."); key != "" {
			message = key + ": " + message
		}
		return Config{}, src.at(decode, message)
	}
	return Config{}, fmt.Errorf("%s: %w", name, err)
}

type source struct {
	name  string
	lines []string
}

// at points at the place of a parser's error.
func (s *source) at(e *toml.DecodeError, message string) error {
	row, col := e.Position()
	line := ""
	if row >= 1 && row <= len(s.lines) {
		line = s.lines[row-1]
	}
	// Tabs stay tabs, so that the caret stands where the eye sees the column.
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, line[:min(max(col-1, 0), len(line))])
	return fmt.Errorf("%s:%d:%d: %s\n\t%s\n\t%s^", s.name, row, col, message, line, pad)
}

// wrongType is how the parser speaks of a value of the wrong type: in Go's terms.
var wrongType = regexp.MustCompile(`cannot decode TOML (\w+) into .*?([\w.\[\]]+)$`)

// kinds are the types of Config in an operator's terms.
var kinds = map[string]string{
	"uint64":           "a whole number, from 0",
	"string":           "a string in quotes",
	"[]policy.Pattern": `a list of device names, as ["lan0", "wan*"]`,
	"policy.Pattern":   "a device name in quotes",
	"policy.Duration":  `a time span in quotes, as "5s"`,
	"policy.Offload":   `"off" or "software"`,
	"policy.OnExit":    `"keep" or "remove"`,
	"policy.Threshold": "a table, as { packets = 20 }",
}

func inWords(message string) string {
	m := wrongType.FindStringSubmatch(message)
	if m == nil || kinds[m[2]] == "" {
		return message
	}
	return fmt.Sprintf("is a TOML %s, but must be %s", m[1], kinds[m[2]])
}
