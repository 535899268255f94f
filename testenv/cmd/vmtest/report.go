package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// event is a line of "go tool test2json": see "go doc test2json".
type event struct {
	Action, Test, Output string
}

// skip is a test that was skipped, with what it said.
type skip struct{ test, why string }

// report turns the output of one test binary on one kernel into what go test prints.
type report struct {
	w       io.Writer
	path    string // of the package
	version string // of the kernel
	verbose bool
	start   time.Time

	convert *exec.Cmd // go tool test2json
	stdin   io.WriteCloser
	decoded chan error

	events   []event // with output
	verdicts map[string]string
	coverage string
	passed   bool // the binary has printed PASS
	noTests  bool
	skips    []skip
	tests    int // that were run, subtests not counted
	failed   bool
}

func newReport(w io.Writer, path, version string, verbose bool) (*report, error) {
	r := &report{
		w: w, path: path, version: version, verbose: verbose, start: time.Now(),
		decoded: make(chan error, 1), verdicts: map[string]string{},
	}
	r.convert = exec.Command("go", "tool", "test2json")
	r.convert.Stderr = os.Stderr
	var err error
	if r.stdin, err = r.convert.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.convert.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.convert.Start(); err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	go func() { r.decoded <- r.decode(out) }()
	return r, nil
}

// feed takes output of the test binary, whole lines.
func (r *report) feed(text string) error {
	_, err := io.WriteString(r.stdin, text)
	return err
}

// decode handles the events until there are no more.
func (r *report) decode(in io.Reader) error {
	for dec := json.NewDecoder(in); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			_, _ = io.Copy(io.Discard, in)
			return fmt.Errorf("go tool test2json: %w", err)
		}
		r.handle(e)
	}
}

var (
	coverageLine = regexp.MustCompile(`^coverage: (.*)\n$`)
	framing      = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME)\s`)
	resultLine   = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): `)
)

func (r *report) handle(e event) {
	switch e.Action {
	case "run":
		if !strings.Contains(e.Test, "/") {
			r.tests++
		}
	case "pass", "fail", "skip":
		r.verdicts[e.Test] = e.Action
		if e.Action == "skip" && e.Test != "" {
			r.skips = append(r.skips, skip{e.Test, r.said(e.Test)})
		}
	case "output":
		r.events = append(r.events, e)
		if e.Test == "" {
			r.handlePackage(e.Output)
		}
		if r.verbose {
			fmt.Fprint(r.w, e.Output)
		}
	}
}

// handlePackage looks at a line that belongs to no test.
func (r *report) handlePackage(line string) {
	if m := coverageLine.FindStringSubmatch(line); m != nil {
		r.coverage = m[1]
	}
	r.passed = r.passed || line == "PASS\n"
	r.noTests = r.noTests || strings.HasPrefix(line, "testing: warning: no tests to run")
}

// said joins what a test has printed, without the lines of the framework.
func (r *report) said(test string) string {
	var b strings.Builder
	for _, e := range r.events {
		if e.Test == test && !framing.MatchString(e.Output) && !resultLine.MatchString(e.Output) {
			b.WriteString(strings.TrimSpace(e.Output) + " ")
		}
	}
	return strings.TrimSpace(b.String())
}

// end prints the package's result. trouble is what went wrong besides tests that failed: an
// exit status, or the end of the guest.
func (r *report) end(trouble string) error {
	err := errors.Join(r.stdin.Close(), <-r.decoded, r.convert.Wait())
	elapsed := time.Since(r.start)
	r.failed = err != nil || trouble != "" || !r.passed
	if !r.verbose {
		r.printFailures()
	}
	columns := []string{"ok  ", r.path, fmt.Sprintf("%.3fs", elapsed.Seconds())}
	if r.failed {
		columns[0] = "FAIL"
	}
	if trouble == "" && !r.passed {
		trouble = "ended without PASS"
	}
	for _, c := range []string{trouble, prefixed("coverage: ", r.coverage)} {
		if c != "" {
			columns = append(columns, c)
		}
	}
	if r.noTests {
		columns = append(columns, "[no tests to run]")
	}
	fmt.Fprintf(r.w, "%s\t[%s]\n", strings.Join(columns, "\t"), r.version)
	return err
}

// printFailures prints what was said by tests that failed or did not end, and by no test.
func (r *report) printFailures() {
	for _, e := range r.events {
		switch v := r.verdicts[e.Test]; {
		case v == "pass" || v == "skip" || framing.MatchString(e.Output):
		case e.Test == "" && (e.Output == "PASS\n" || e.Output == "FAIL\n" || r.noTests || coverageLine.MatchString(e.Output)):
		default:
			fmt.Fprint(r.w, e.Output)
		}
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// printSummary lists the skipped tests and, per kernel, how much ran.
func printSummary(w io.Writer, runs []*kernelRun) {
	for _, r := range runs {
		for _, rep := range r.reports {
			for _, s := range rep.skips {
				fmt.Fprintf(w, "--- SKIP: %s.%s [%s]: %s\n", rep.path, s.test, r.version, s.why)
			}
		}
	}
	for _, r := range runs {
		var tests, skips, bad int
		for _, rep := range r.reports {
			tests += rep.tests
			skips += len(rep.skips)
			if rep.failed {
				bad++
			}
		}
		verdict := "ok  "
		if r.failed {
			verdict = "FAIL"
		}
		fmt.Fprintf(w, "%s\tkernel %s\t%d tests, %d skipped, %d of %d packages failed\tbooted in %.1fs, off after %.1fs\n",
			verdict, r.kernel, tests, skips, bad, len(r.reports), r.result.Boot.Seconds(), r.result.Total.Seconds())
	}
}
