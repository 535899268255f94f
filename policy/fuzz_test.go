package policy

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var message = regexp.MustCompile(`^f:(\d+):(\d+): .`)

// checkParse holds what is true of every text: Parse returns, and what it has to
// say names a place that is in the text.
func checkParse(t interface{ Errorf(string, ...any) }, text []byte) {
	cfg, err := Parse("f", text)
	if err == nil {
		cfg.Ageing.Lifetimes()
		return
	}
	lines := strings.Split(string(text), "\n")
	told := strings.Split(err.Error(), "\n")
	if len(told)%3 != 0 {
		t.Errorf("not message, line and caret:\n%v", err)
		return
	}
	for i := 0; i < len(told); i += 3 {
		m := message.FindStringSubmatch(told[i])
		if m == nil {
			t.Errorf("no place: %q of\n%s", told[i], text)
			continue
		}
		line, _ := strconv.Atoi(m[1])
		col, _ := strconv.Atoi(m[2])
		if line < 1 || line > len(lines) || col < 1 || col > len(lines[line-1])+1 {
			t.Errorf("%q: no such place in\n%s", told[i], text)
		}
		if !strings.HasSuffix(told[i+2], "^") {
			t.Errorf("%q: no caret", told[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no bad configurations: %v", err)
	}
	for _, file := range append(files, "../systemd/flowd.toml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkParse(t, text) })
}

// TestEveryErrorHasItsPlace puts known keys and values of all kinds together at
// random: much of it is TOML, and most of it wrong.
func TestEveryErrorHasItsPlace(t *testing.T) {
	tables := rapid.SampledFrom([]string{
		"[flowtable]", "[ageing]", "[ageing.tcp]", "[[ageing.protocol]]", "[ageing.protocol]", "[api]",
		"[flowtable.after]", "[Ageing]", "[other]", "[[api]]", "[ageing.protocol.idle]", "[ageing.protocol.protocol]",
	})
	keys := rapid.SampledFrom([]string{
		"devices", "offload", "after", "after.packets", "max_flows", "per_source", "on_exit", "idle", "unreplied", "tcp",
		"tcp.closing", "established", "handshake", "half_closed", "closing", "protocol", "port", "socket", "Idle",
		`"idle"`, "protocol.idle", `"a\nb"`, "ageing.protocol", "other",
	})
	values := rapid.SampledFrom([]string{
		`"5s"`, `"0s"`, `"udp"`, `"software"`, `"/a"`, `""`, "0", "-1", "53", "17", "70000", "1.5", "true", "[]", "{}",
		`["lan0", "a/b"]`, "[1, [2]]", `{ packets = -1 }`, `{ closing = "x" }`, "1979-05-27", "\"\"\"\n5s\"\"\"", "99999999999999999999",
		`[{ protocol = "udp", idle = "0s" }, { port = 3 }]`, "[\n\t1,\n]", "{ idle.x = 3 }", "\"\\u001b\"", "",
	})
	line := rapid.OneOf(tables, rapid.Custom(func(t *rapid.T) string {
		return keys.Draw(t, "key") + " = " + values.Draw(t, "value")
	}))
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "line end")
		checkParse(t, []byte(strings.Join(rapid.SliceOfN(line, 0, 8).Draw(t, "lines"), end)))
	})
}
