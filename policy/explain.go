package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// explain says where the TOML parser found what, in an operator's words.
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
		key := strings.Join(decode.Key(), ".")
		line, col := decode.Position()
		where := place{line, col}
		if strings.HasPrefix(message, "is a TOML array") { // whose position the parser does not keep
			if offset, ok := indexOf(s.text).places[key]; ok {
				where = s.placeOf(offset)
			}
		}
		if key != "" {
			message = key + ": " + message
		}
		return s.at(where, message)
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

var (
	// wrongType is how the parser speaks of a value of the wrong type: in Go's terms.
	wrongType = regexp.MustCompile(`cannot decode TOML ([a-z ]+) into .* of type (.*)$`)
	// wrongTable is how it speaks of a header, [KEY] or [[KEY]], of what is none.
	wrongTable = regexp.MustCompile(`^cannot store an? (array )?table in a (.*)$`)
)

// kinds are the types of file in an operator's terms; any other is a table.
var kinds = map[string]string{
	"string":   "a string in quotes",
	"*string":  "a string in quotes",
	"int64":    "a whole number",
	"*int64":   "a whole number",
	"[]string": `a list of strings, as ["lan0", "wan*"]`,

	"[]policy.protocolTable": "a list of tables, each below [[ageing.protocol]]",
}

func inWords(message string) string {
	if m := wrongTable.FindStringSubmatch(message); m != nil {
		if m[1] != "" && m[2] == "struct" {
			return "is one table, not a list of them: write [ ], not [[ ]]"
		}
		return "is no table, but a key with a value"
	}
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
