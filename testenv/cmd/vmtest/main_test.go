package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	cfg, err := parse([]string{"-kernels", "6.1,sid", "-run", "X", "-testflags", "-test.short -test.count=2", "./nft", "./ct"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.kernels, []string{"6.1", "sid"}) || !slices.Equal(cfg.packages, []string{"./nft", "./ct"}) ||
		len(cfg.testFlags) != 2 || cfg.timeout != 5*time.Minute {
		t.Errorf("parsed as %+v", cfg)
	}
	for _, args := range [][]string{{"-kernels", "5.4"}, {"-kernels", ""}, {"-j", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestScript(t *testing.T) {
	b := &build{
		cfg:    config{timeout: time.Minute},
		suites: []suite{{path: "flowd/nft", run: "Flow|It's"}},
	}
	want := "printf '\x01begin 0\\n'\n" +
		"cd '/src/flowd/nft' && ./package.test -test.v=test2json -test.paniconexit0 -test.timeout=1m0s " +
		"-test.run='Flow|It'\\''s' -test.coverprofile=/out/0.cover\n" +
		"printf '\x01end 0 %d\\n' $?\n"
	if got := b.script(); !strings.HasSuffix(got, want) {
		t.Errorf("script\n%q\nwant it to end in\n%q", got, want)
	}
}
