// Package flow holds the words that the rest of flowd speaks (Key, Flow, Event,
// Change) and the flow table itself.
//
// It is pure: it reads no clock, does no input or output and starts no
// goroutine. Time is an argument everywhere, in nanoseconds since the Unix
// epoch, the unit of the kernel's conntrack timestamps.
package flow
