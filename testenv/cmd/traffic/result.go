package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"flowd/testenv"
)

// A result is what a command has done. Counters that say nothing are absent.
type result struct {
	Command       string  `json:"command"`
	Flows         int     `json:"flows,omitempty"`
	Connections   int64   `json:"connections,omitempty"`
	Exchanges     int     `json:"exchanges,omitempty"`
	Datagrams     int64   `json:"datagrams,omitempty"`
	Replies       int64   `json:"replies,omitempty"`
	Repeated      int     `json:"repeated,omitempty"`
	Segments      int     `json:"segments,omitempty"`
	SentBytes     int64   `json:"sent_bytes"`     // payload
	ReceivedBytes int64   `json:"received_bytes"` // payload
	Elapsed       float64 `json:"elapsed_s"`
	Error         string  `json:"error,omitempty"`
}

// served is the result of a server.
func served(totals testenv.Totals, begin time.Time) result {
	return result{
		Connections:   totals.Connections,
		Datagrams:     totals.Datagrams,
		Replies:       totals.Replies,
		SentBytes:     totals.SentBytes,
		ReceivedBytes: totals.ReceivedBytes,
		Elapsed:       time.Since(begin).Seconds(),
	}
}

// report prints the result, and the error if there is one, and returns the
// exit status.
func (r result) report(format string, err error, stdout, stderr io.Writer) int {
	status := statusOK
	if err != nil {
		status = statusFailed
		r.Error = err.Error()
		fmt.Fprintf(stderr, "traffic %s: %v\n", r.Command, err)
	}
	line := r.text()
	if format == "json" {
		encoded, err := json.Marshal(r)
		if err != nil { // a struct of numbers and strings has no cause to fail
			panic(err)
		}
		line = string(encoded)
	}
	if _, err := fmt.Fprintln(stdout, line); err != nil {
		fmt.Fprintf(stderr, "traffic %s: print result: %v\n", r.Command, err)
		status = statusFailed
	}
	return status
}

func (r result) text() string {
	var words []string
	for _, counter := range []struct {
		count int64
		what  string
	}{
		{int64(r.Flows), "flows"},
		{r.Connections, "connections"},
		{int64(r.Exchanges), "exchanges"},
		{r.Datagrams, "datagrams"},
		{r.Replies, "replies"},
		{int64(r.Repeated), "repeated"},
		{int64(r.Segments), "segments"},
	} {
		if counter.count > 0 {
			words = append(words, fmt.Sprintf("%d %s", counter.count, counter.what))
		}
	}
	words = append(words, fmt.Sprintf("%d B sent", r.SentBytes),
		fmt.Sprintf("%d B received", r.ReceivedBytes), fmt.Sprintf("%.3f s", r.Elapsed))
	return r.Command + ": " + strings.Join(words, ", ")
}
