package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// mark begins a line of the guest's script in the output of the tests: SOH, which no
// test prints.
const mark = '\x01'

// session is the output of one guest: it tells the suites' apart and has each reported.
// It is an io.Writer for vm.Job.
type session struct {
	w       io.Writer
	suites  []suite
	verbose bool
	version string
	started func(path string) // called when a suite begins

	line    []byte // an unfinished line
	current *report
	reports []*report
}

// Write takes the guest's output as it comes.
func (s *session) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			s.line = append(s.line, rest...)
			break
		}
		s.line = append(s.line, rest[:i+1]...)
		rest = rest[i+1:]
		if err := s.take(string(s.line)); err != nil {
			return 0, err
		}
		s.line = s.line[:0]
	}
	return len(p), nil
}

// take handles one line. A mark may follow output that did not end its line.
func (s *session) take(line string) error {
	text, command, marked := strings.Cut(line, string(mark))
	if text != "" {
		if marked {
			text += "\n"
		}
		if s.current == nil {
			fmt.Fprint(s.w, text)
		} else if err := s.current.feed(text); err != nil {
			return err
		}
	}
	if !marked {
		return nil
	}
	f := strings.Fields(command)
	if len(f) < 2 {
		return fmt.Errorf("guest: mark %q", command)
	}
	n, err := strconv.Atoi(f[1])
	if err != nil || n >= len(s.suites) {
		return fmt.Errorf("guest: mark %q", command)
	}
	if f[0] == "begin" {
		return s.begin(n)
	}
	return s.end(f[len(f)-1])
}

func (s *session) begin(n int) error {
	rep, err := newReport(s.w, s.suites[n].path, s.version, s.verbose)
	if err != nil {
		return err
	}
	s.current = rep
	s.started(rep.path)
	return nil
}

func (s *session) end(status string) error {
	if s.current == nil {
		return nil
	}
	rep := s.current
	s.current = nil
	s.reports = append(s.reports, rep)
	if status == "0" {
		return rep.end("")
	}
	return rep.end("exit status " + status)
}

// finish ends the report of a suite that the guest did not end, and has those that
// were never begun fail.
func (s *session) finish(cause error) []*report {
	why := "the guest ended before its tests did"
	if cause != nil {
		why = cause.Error()
	}
	if s.current != nil {
		if len(s.line) > 0 {
			_ = s.current.feed(string(s.line) + "\n")
		}
		_ = s.current.end(why)
		s.reports = append(s.reports, s.current)
		s.current = nil
	}
	for _, suite := range s.suites[len(s.reports):] {
		rep := &report{w: s.w, path: suite.path, version: s.version, failed: true}
		fmt.Fprintf(s.w, "FAIL\t%s\t[not run]\t[%s]\n", suite.path, s.version)
		s.reports = append(s.reports, rep)
	}
	return s.reports
}
