package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

// play feeds the output of a guest in pieces of n bytes and returns what was printed,
// with the times taken out.
func play(t *testing.T, n int, verbose bool, output string, cause error) (string, []*report) {
	t.Helper()
	var w strings.Builder
	s := &session{
		w: &w, verbose: verbose, version: "6.1.1", started: func(string) {},
		suites: []suite{{path: "flowd/a"}, {path: "flowd/b"}},
	}
	for output != "" {
		piece := output[:min(n, len(output))]
		output = output[len(piece):]
		if _, err := s.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	reports := s.finish(cause)
	return regexp.MustCompile(`\t\d+\.\d+s`).ReplaceAllString(w.String(), "\tTIME"), reports
}

// Output of test binaries with -test.v=test2json.
const (
	passing = "\x01begin 0\n" +
		"\x16=== RUN   TestGood\n    a_test.go:1: said\n\x16--- PASS: TestGood (0.01s)\n\x16=== NAME  \n" +
		"\x16=== RUN   TestAway\n    a_test.go:2: not here\n\x16--- SKIP: TestAway (0.00s)\n\x16=== NAME  \n" +
		"\x16PASS\ncoverage: 50.0% of statements\n\x01end 0 0\n"
	failing = "\x01begin 1\n" +
		"\x16=== RUN   TestBad\n" +
		"\x16=== RUN   TestBad/sub\n    b_test.go:7: wrong\n\x16--- FAIL: TestBad/sub (0.01s)\n\x16=== NAME  TestBad\n" +
		"\x16=== RUN   TestBad/fine\n    b_test.go:8: right\n\x16--- PASS: TestBad/fine (0.01s)\n\x16=== NAME  TestBad\n" +
		"\x16--- FAIL: TestBad (0.02s)\n\x16=== NAME  \n" +
		"\x16FAIL\ncoverage: 1.0% of statements\n\x01end 1 1\n"
	panicking = "\x01begin 1\n" +
		"\x16=== RUN   TestBad\n\x16--- FAIL: TestBad (0.00s)\n" +
		"panic: nil map [recovered]\n\ngoroutine 7 [running]:\n\x01end 1 2\n"
)

func TestSession(t *testing.T) {
	const okA = "ok  \tflowd/a\tTIME\tcoverage: 50.0% of statements\t[6.1.1]\n"
	tests := []struct {
		name, output, want string
	}{
		{"failure", passing + failing, okA +
			"    b_test.go:7: wrong\n--- FAIL: TestBad/sub (0.01s)\n--- FAIL: TestBad (0.02s)\n" +
			"FAIL\tflowd/b\tTIME\texit status 1\tcoverage: 1.0% of statements\t[6.1.1]\n"},
		{"panic", passing + panicking, okA +
			"--- FAIL: TestBad (0.00s)\npanic: nil map [recovered]\n\ngoroutine 7 [running]:\n" +
			"FAIL\tflowd/b\tTIME\texit status 2\t[6.1.1]\n"},
		{"hang", passing + "\x01begin 1\n\x16=== RUN   TestBad\nbusy", okA +
			"busy\nFAIL\tflowd/b\tTIME\tthe guest is gone\t[6.1.1]\n"},
		{"not run", passing, okA + "FAIL\tflowd/b\t[not run]\t[6.1.1]\n"},
		{"exit without PASS", passing + "\x01begin 1\n\x01end 1 0\n", okA +
			"FAIL\tflowd/b\tTIME\tended without PASS\t[6.1.1]\n"},
		{"unfinished line", passing + "\x01begin 1\nnoise\x01end 1 9\n", okA +
			"noise\nFAIL\tflowd/b\tTIME\texit status 9\t[6.1.1]\n"},
	}
	for _, tt := range tests {
		for _, n := range []int{7, 1 << 20} {
			got, reports := play(t, n, false, tt.output, errors.New("the guest is gone"))
			if got != tt.want {
				t.Errorf("%s, %d bytes at a time:\n%s\nwant\n%s", tt.name, n, got, tt.want)
			}
			if len(reports) != 2 || reports[0].failed || !reports[1].failed {
				t.Errorf("%s: want the first of two packages to pass, the second to fail", tt.name)
			}
		}
	}
}

func TestSessionVerbose(t *testing.T) {
	got, _ := play(t, 1<<20, true, passing, nil)
	for _, want := range []string{"=== RUN   TestGood\n    a_test.go:1: said\n--- PASS: TestGood (0.01s)\n", "--- SKIP: TestAway"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestSummary(t *testing.T) {
	_, reports := play(t, 1<<20, false, passing+failing, nil)
	var w strings.Builder
	printSummary(&w, []*kernelRun{{kernel: "6.1", version: "6.1.1", reports: reports, failed: true}})
	want := "--- SKIP: flowd/a.TestAway [6.1.1]: a_test.go:2: not here\n" +
		"FAIL\tkernel 6.1\t3 tests, 1 skipped, 1 of 2 packages failed\tbooted in 0.0s, off after 0.0s\n"
	if w.String() != want {
		t.Errorf("summary\n%s\nwant\n%s", w.String(), want)
	}
}

func TestNoTestsToRun(t *testing.T) {
	output := "\x01begin 0\ntesting: warning: no tests to run\n\x16PASS\n\x01end 0 0\n"
	got, _ := play(t, 1<<20, false, output, nil)
	if !strings.HasPrefix(got, "ok  \tflowd/a\tTIME\t[no tests to run]\t[6.1.1]\n") {
		t.Errorf("printed %q", got)
	}
}

func TestBadMark(t *testing.T) {
	s := &session{w: &strings.Builder{}, suites: []suite{{path: "flowd/a"}}}
	for _, line := range []string{"\x01\n", "\x01begin x\n", "\x01begin 1\n"} {
		if _, err := s.Write([]byte(line)); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}
