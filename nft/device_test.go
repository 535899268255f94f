package nft

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"testing"
)

// forward sets a forwarding switch of the namespace of the test's thread.
func forward(t testing.TB, setting string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+setting+"/forwarding", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestDevices(t *testing.T) {
	c := inNamespace(t)
	addDevices(t, "lan0", "lan1", "port0", "port1", "wan0")
	run(t, "ip", "link", "add", "br0", "type", "bridge")
	run(t, "ip", "link", "set", "port0", "master", "br0")
	run(t, "ip", "link", "set", "port1", "master", "br0")
	for _, setting := range []string{"ipv4/conf/wan0", "ipv6/conf/lan1", "ipv4/conf/br0", "ipv4/conf/lo"} {
		forward(t, setting)
	}
	for _, test := range []struct{ patterns, exclude, want []string }{
		{nil, nil, []string{"lan1", "port0", "port1", "wan0"}},
		{nil, []string{"port0", "w*"}, []string{"lan1", "port1"}},
		{nil, []string{"br0"}, []string{"lan1", "wan0"}},
		{[]string{"*"}, nil, []string{"lan0", "lan1", "port0", "port1", "wan0"}},
		{[]string{"lan?", "wan0", "lan0"}, nil, []string{"lan0", "lan1", "wan0"}},
		{[]string{"br0"}, nil, []string{"port0", "port1"}},
		{[]string{"lan[1-9]", "none", "lo"}, nil, []string{"lan1"}},
		{[]string{"none"}, nil, nil},
	} {
		got, err := c.Devices(test.patterns, test.exclude)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("Devices(%q, %q) = %q, want %q", test.patterns, test.exclude, got, test.want)
		}
	}
	if _, err := c.Devices([]string{"lan["}, nil); !errors.Is(err, path.ErrBadPattern) {
		t.Errorf("bad pattern: %v", err)
	}
}

func TestWatchDevices(t *testing.T) {
	c := inNamespace(t)
	calls := make(chan struct{}, 1)
	background(t, func(ctx context.Context) error {
		return c.WatchDevices(ctx, func() {
			select {
			case calls <- struct{}{}:
			default: // one that nobody has looked at yet is enough
			}
		})
	})
	// Each step must lead to a call after which Devices says this.
	see := func(patterns []string, want ...string) {
		t.Helper()
		var got []string
		await(t, calls, "call that leads to what was done", func(struct{}) bool {
			var err error
			if got, err = c.Devices(patterns, nil); err != nil {
				t.Fatal(err)
			}
			return slices.Equal(got, want)
		})
	}
	all := []string{"*"}
	see(all)
	addDevices(t, "a0")
	see(all, "a0")
	run(t, "ip", "link", "set", "a0", "name", "b0")
	see(all, "b0")
	run(t, "ip", "link", "add", "br0", "type", "bridge")
	see(all, "b0")
	see2 := []string{"br0"}
	run(t, "ip", "link", "set", "b0", "master", "br0")
	see(see2, "b0")
	run(t, "ip", "link", "set", "b0", "nomaster")
	see(see2)
	forward(t, "ipv4/conf/b0")
	see(nil, "b0")
	run(t, "ip", "link", "del", "b0")
	see(all)
}
