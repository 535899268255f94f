package policy

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowd/flow"
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
max_flows = 0
per_source = 4294967295
on_exit = "remove"
[ageing]
idle = "1s"
unreplied = "1m30s"
[ageing.tcp]
established = "240h"
handshake = "2s"
half_closed = "4s"
closing = "200ms"
[[ageing.protocol]]
protocol = "udp"
port = 53
idle = "5s"
[[ageing.protocol]]
protocol = 132
idle = "6s"
[[ageing.protocol]]
protocol = "TCP"
port = 65535
idle = "7s"
[[ageing.protocol]]
protocol = "50"
idle = "8s"
[api]
socket = "/tmp/x.sock"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Flowtable: Flowtable{
			Devices: []Pattern{{"lan*"}, {"wan0"}}, Exclude: []Pattern{{"wg*"}},
			Offload: OffloadOff, After: Threshold{Packets: 3}, MaxFlows: 0, PerSource: 1<<32 - 1, OnExit: OnExitRemove,
		},
		Ageing: Ageing{
			Idle: time.Second, Unreplied: 90 * time.Second,
			TCP: TCPAgeing{
				Established: 240 * time.Hour, Handshake: 2 * time.Second,
				HalfClosed: 4 * time.Second, Closing: 200 * time.Millisecond,
			},
			Protocols: []ProtocolAgeing{
				{flow.UDP, 53, 5 * time.Second},
				{flow.SCTP, 0, 6 * time.Second},
				{flow.TCP, 65535, 7 * time.Second},
				{50, 0, 8 * time.Second},
			},
		},
		API: API{Socket: "/tmp/x.sock"},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestDefaultsStandForAnEmptyFile(t *testing.T) {
	for _, text := range []string{"", "[flowtable]\n[ageing]\nprotocol = []\n[ageing.tcp]\n[api]\n"} {
		cfg, err := Parse("flowd.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(cfg, Default()) {
			t.Errorf("%q: got  %+v\nwant %+v", text, cfg, Default())
		}
	}
}

func TestDefaults(t *testing.T) {
	want := Config{
		Flowtable: Flowtable{Offload: OffloadSoftware, After: Threshold{Packets: 20}, MaxFlows: 512000, OnExit: OnExitKeep},
		Ageing: Ageing{
			Idle: 180 * time.Second, Unreplied: 30 * time.Second,
			TCP: TCPAgeing{
				Established: 7440 * time.Second, Handshake: 30 * time.Second,
				HalfClosed: 900 * time.Second, Closing: 5 * time.Second,
			},
		},
		API: API{Socket: "/run/flowd/flowd.sock"},
	}
	if got := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
