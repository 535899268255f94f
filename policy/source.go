package policy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2/unstable"
)

// source is the text of a configuration file, for messages about it.
type source struct {
	name string
	text []byte
}

// place is a position in the text, from 1; columns are bytes.
type place struct{ line, col int }

// at is a message about a place: the line, and a caret below the column.
func (s *source) at(p place, message string) error {
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
	return fmt.Errorf("%s:%d:%d: %s\n\t%s\n\t%s^", s.name, p.line, p.col, printable(message), printable(line), pad)
}

// printable keeps what a file holds from moving the terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func (s *source) placeOf(offset int) place {
	before := s.text[:offset]
	return place{
		line: 1 + bytes.Count(before, []byte("\n")),
		col:  len(before) - bytes.LastIndexByte(before, '\n'),
	}
}

// index says where in a text things stand, as offsets.
type index struct {
	text []byte
	// places has the value of each key, "api.socket", each value of a list,
	// "flowtable.devices[1]", and the header of each table, "api" or
	// "ageing.protocol[1]".
	places   map[string]int
	entries  map[string]int // how many entries an array of tables has so far
	capitals []misnamed     // keys that are not in lower case
}

type misnamed struct {
	offset int
	name   string
}

// indexOf reads a text that is known to be good TOML.
func indexOf(text []byte) index {
	ix := index{text: text, places: make(map[string]int), entries: make(map[string]int)}
	var p unstable.Parser
	p.Reset(text)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = ix.header(e)
		case unstable.KeyValue:
			ix.keyValue(table, e)
		}
	}
	return ix
}

// header takes in a [TABLE] or [[TABLE]] and returns its path.
func (ix *index) header(e *unstable.Node) string {
	path := ""
	for keys := e.Key(); keys.Next(); {
		key := keys.Node()
		path = ix.step(path, key)
		if e.Kind == unstable.ArrayTable && keys.IsLast() {
			ix.note(path, int(key.Raw.Offset))
			ix.entries[path]++
		}
		// A name on the way stands for the last entry so far: TOML, Array of Tables.
		if n := ix.entries[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n-1)
		}
		ix.note(path, int(key.Raw.Offset))
	}
	return path
}

// keyValue takes in KEY = VALUE below a table, with all that the value holds.
func (ix *index) keyValue(table string, e *unstable.Node) {
	path := table
	end := 0
	for keys := e.Key(); keys.Next(); {
		key := keys.Node()
		path = ix.step(path, key)
		if !keys.IsLast() {
			ix.note(path, int(key.Raw.Offset))
		}
		end = int(key.Raw.Offset + key.Raw.Length)
	}
	if e.Value().Kind == unstable.Array { // the parser does not keep where it begins: after the =
		end += max(0, bytes.IndexByte(ix.text[end:], '['))
	}
	ix.value(path, e.Value(), end)
}

// value takes in a value; array is where it begins if it is an array. An array
// within an array has the place of the outer one.
func (ix *index) value(path string, v *unstable.Node, array int) {
	offset := array
	if v.Kind != unstable.Array {
		offset = int(v.Raw.Offset)
	}
	ix.note(path, offset)
	i := 0
	for it := v.Children(); it.Next(); i++ {
		switch v.Kind {
		case unstable.InlineTable:
			ix.keyValue(path, it.Node())
		case unstable.Array:
			ix.value(fmt.Sprintf("%s[%d]", path, i), it.Node(), array)
		}
	}
}

// step is the path one key further.
func (ix *index) step(path string, key *unstable.Node) string {
	name := string(key.Data)
	if path != "" {
		name = path + "." + name
	}
	if strings.Trim(string(key.Data), "abcdefghijklmnopqrstuvwxyz_") != "" {
		ix.capitals = append(ix.capitals, misnamed{int(key.Raw.Offset), name})
	}
	return name
}

func (ix *index) note(path string, offset int) {
	if _, ok := ix.places[path]; !ok {
		ix.places[path] = offset
	}
}
