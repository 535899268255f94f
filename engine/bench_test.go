package engine

import (
	"testing"

	"flowd/flow"
)

// crowd makes an event of each of n connections.
func crowd(kind flow.Kind, n int) []flow.Event {
	events := make([]flow.Event, n)
	for i := range events {
		ev := about(kind, uint32(i))
		ev.Orig.Src[1], ev.Orig.Src[2], ev.Orig.Src[3] = byte(i>>16), byte(i>>8), byte(i)
		ev.Reply = ev.Orig.Reverse()
		events[i] = ev
	}
	return events
}

// BenchmarkStepDue works off 100,000 flows that are due at once, in bounded steps.
func BenchmarkStepDue(b *testing.B) {
	const n = 100_000
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		e := New(defaults(), &kernelStub{}, 1024)
		e.Step(crowd(flow.New, n), second)
		b.StartTimer()
		got := 0
		for got < n {
			actions, more := e.Step(nil, 10_000*second)
			if len(actions) > sweepMax || !more && got+len(actions) < n {
				b.Fatalf("%d requests in a step, after %d", len(actions), got)
			}
			got += len(actions)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/flow")
}

// BenchmarkStep is the steady state: a batch of updates of known flows.
func BenchmarkStep(b *testing.B) {
	const n = 1024
	e := New(defaults(), &kernelStub{}, 1<<16)
	e.Step(crowd(flow.New, n), second)
	batch := crowd(flow.Update, n)
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			batch[i].Status ^= flow.StatusOffload
		}
		e.Step(batch, second)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/event")
}
