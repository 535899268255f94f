package policy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestBadConfigurations holds what an operator reads for each mistake: the file
// NAME.toml in testdata/bad and beside it NAME.txt with the message.
func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad configurations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("flowd.toml", text)
			if err == nil {
				t.Fatalf("accepted:\n%s", text)
			}
			golden := strings.TrimSuffix(file, ".toml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, rerr := os.ReadFile(golden)
			if rerr != nil {
				t.Fatal(rerr)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	cfg, err := Parse("flowd.toml", []byte(`
[flowtable]
devices = ["lan*", "wan0"]
exclude = ["wg*"]
offload = "off"
after = { packets = 3 }
on_exit = "remove"
[ageing.tcp]
closing = "2s"
[api]
socket = "/tmp/x.sock"
`))
	if err != nil {
		t.Fatal(err)
	}
	ft := cfg.Flowtable
	if len(ft.Devices) != 2 || ft.Devices[0].String() != "lan*" || len(ft.Exclude) != 1 ||
		ft.Offload != OffloadOff || ft.After.Packets != 3 || ft.OnExit != OnExitRemove {
		t.Errorf("flowtable: %+v", ft)
	}
	if cfg.Ageing.TCP.Closing != 2*time.Second || cfg.API.Socket != "/tmp/x.sock" {
		t.Errorf("%+v", cfg)
	}
}

func TestDefaultsStandForAnEmptyFile(t *testing.T) {
	cfg, err := Parse("flowd.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Flowtable.Offload != OffloadSoftware || cfg.Flowtable.After.Packets != 20 ||
		cfg.Ageing.TCP.Closing != 5*time.Second || cfg.API.Socket != "/run/flowd/flowd.sock" {
		t.Errorf("%+v", cfg)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[flowtable]\ndevices = [\"lan*\"]\n"))
	f.Add([]byte("[flowtable]\nafter = { packets = -1 }\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := Parse("f", text); err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("error does not begin with the file's name: %v", err)
		}
	})
}
