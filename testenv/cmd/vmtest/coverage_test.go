package main

import (
	"strings"
	"testing"
)

func TestCoverage(t *testing.T) {
	c := &coverage{blocks: map[string]*block{}}
	for _, profile := range []string{
		"mode: atomic\na.go:1.1,2.2 3 1\na.go:3.1,4.2 1 0\n",
		"mode: atomic\na.go:1.1,2.2 3 4\nb.go:1.1,4.2 4 0\n",
	} {
		if err := c.add(strings.NewReader(profile)); err != nil {
			t.Fatal(err)
		}
	}
	var w strings.Builder
	if err := c.write(&w); err != nil {
		t.Fatal(err)
	}
	want := "mode: atomic\na.go:1.1,2.2 3 5\na.go:3.1,4.2 1 0\nb.go:1.1,4.2 4 0\n"
	if w.String() != want {
		t.Errorf("merged\n%s\nwant\n%s", w.String(), want)
	}
	if p := c.percent(); p != 37.5 {
		t.Errorf("%v%%, want 3 of 8 statements", p)
	}
	for _, line := range []string{"a.go:1 2", "a.go:1 x 1", "a.go:1 1 x"} {
		if err := c.add(strings.NewReader(line)); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}
