package policy

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowd/flow"
)

const exampleFile = "../systemd/flowd.toml"

// TestExampleNamesEveryKey holds the commented example to what can be configured.
func TestExampleNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("flowd.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("got  %+v\nwant %+v", cfg, Default())
	}
	places := indexOf([]byte(uncommented(string(text)))).places
	for _, key := range keysOf(reflect.TypeFor[file]()) {
		if _, ok := places[key]; !ok {
			t.Errorf("the example lacks %s", key)
		}
	}
}

func TestExampleUncommented(t *testing.T) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("flowd.toml", []byte(uncommented(string(text))))
	if err != nil {
		t.Fatal(err)
	}
	want := []ProtocolAgeing{{flow.UDP, 53, 5 * time.Second}}
	if !reflect.DeepEqual(cfg.Ageing.Protocols, want) {
		t.Errorf("got %v, want %v", cfg.Ageing.Protocols, want)
	}
}

// uncommented turns entries that are commented out, from a line "# [[" to the
// end of the comment, into ones that are not.
func uncommented(text string) string {
	lines := strings.Split(text, "\n")
	in := false
	for i, line := range lines {
		in = strings.HasPrefix(line, "# [[") || in && strings.HasPrefix(line, "# ")
		if in {
			lines[i] = strings.TrimPrefix(line, "# ")
		}
	}
	return strings.Join(lines, "\n")
}

// keysOf returns the paths of a table's keys, those of a list of tables for its
// first entry.
func keysOf(table reflect.Type) []string {
	var all []string
	for f := range table.Fields() {
		key, t := f.Tag.Get("toml"), f.Type
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct {
			key, t = key+"[0]", t.Elem()
		}
		if t.Kind() != reflect.Struct {
			all = append(all, key)
			continue
		}
		for _, below := range keysOf(t) {
			all = append(all, key+"."+below)
		}
	}
	return all
}
