package policy

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// source is the text of a configuration file, for messages about it.
type source struct {
	name string
	text []byte
}

// place is a position in the text, from 1; zero where it is not known.
type place struct{ line, col int }

// at is a message about a place: the line, and a caret below the column.
func (s *source) at(p place, message string) error {
	if p.line == 0 {
		return fmt.Errorf("%s: %s", s.name, message)
	}
	lines := strings.Split(string(s.text), "\n")
	line := ""
	if p.line <= len(lines) {
		line = strings.TrimSuffix(lines[p.line-1], "\r")
	}
	// Tabs stay tabs, so that the caret stands where the eye sees the column.
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, line[:min(max(p.col-1, 0), len(line))])
	return fmt.Errorf("%s:%d:%d: %s\n\t%s\n\t%s^", s.name, p.line, p.col, message, line, pad)
}

// find returns where the value of a key stands: "api.socket", or, of a list,
// "flowtable.devices[1]".
func (s *source) find(key string) place {
	var p unstable.Parser
	p.Reset(s.text)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			table = join(e.Key()) + "."
			continue
		}
		if e.Kind != unstable.KeyValue {
			continue
		}
		if value := within(e, table, key); value != nil {
			return s.placeOf(value)
		}
	}
	return place{}
}

// within returns the value of a key in one expression, inline tables and lists
// included, or nil.
func within(e *unstable.Node, prefix, key string) *unstable.Node {
	name := prefix + join(e.Key())
	value := e.Value()
	if name == key {
		return value
	}
	i := 0
	for it := value.Children(); it.Next(); i++ {
		child := it.Node()
		switch {
		case value.Kind == unstable.InlineTable:
			if v := within(child, name+".", key); v != nil {
				return v
			}
		case fmt.Sprintf("%s[%d]", name, i) == key:
			return child
		}
	}
	return nil
}

func join(keys unstable.Iterator) string {
	var parts []string
	for keys.Next() {
		parts = append(parts, string(keys.Node().Data))
	}
	return strings.Join(parts, ".")
}

func (s *source) placeOf(n *unstable.Node) place {
	before := s.text[:n.Raw.Offset]
	return place{
		line: 1 + bytes.Count(before, []byte("\n")),
		col:  len(before) - bytes.LastIndexByte(before, '\n'),
	}
}
