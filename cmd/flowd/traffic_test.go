package main

import (
	"fmt"
	"time"
)

// after is the packet threshold of these tests.
const after = 10

// patience is how long a test waits for what happens within a second or two when
// the machine is not busy with other tests.
const patience = 20 * time.Second

// one returns the single flow that the arguments select, or an error.
func (d *daemon) one(args ...string) (seenFlow, error) {
	d.t.Helper()
	flows := d.flows(args...)
	if len(flows) != 1 {
		return seenFlow{}, fmt.Errorf("%d flows match %q, not one: %+v", len(flows), args, flows)
	}
	return flows[0], nil
}
