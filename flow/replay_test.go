package flow

import "testing"

// replay is the table as a watcher knows it, who sees the changes alone.
type replay map[Key]Flow

func (w replay) apply(t testing.TB, changes []Change) {
	t.Helper()
	for i := range changes {
		c := &changes[i]
		old, there := w[c.Flow.Orig]
		switch {
		case c.Kind == Created && there:
			t.Fatalf("%v created twice", c.Flow.Orig)
		case c.Kind != Created && !there:
			t.Fatalf("%v of a flow that was never created: %v", c.Kind, c.Flow.Orig)
		case there && (old.ID != c.Flow.ID || old.Reply != c.Flow.Reply):
			t.Fatalf("%v: flow %v became another connection", c.Kind, c.Flow.Orig)
		case c.Kind.Ends() != (c.Reason != ReasonNone), c.Kind.Ends() && c.Flow.Reason != c.Reason:
			t.Fatalf("%v with reason %v, the record's is %v", c.Kind, c.Reason, c.Flow.Reason)
		case c.Kind == Candidate && !c.Flow.Candidate:
			t.Fatalf("candidate of a flow that is none: %+v", c.Flow)
		}
		if c.Kind.Ends() {
			delete(w, c.Flow.Orig)
			continue
		}
		w[c.Flow.Orig] = c.Flow
	}
}

// matches fails unless the watcher knows the flow as it is. That a flow falls
// back to half-open is no change.
func (w replay) matches(t testing.TB, f *Flow) {
	g, ok := w[f.Orig]
	if !ok {
		t.Fatalf("a watcher does not know %v", f.Orig)
	}
	if g.Mark != f.Mark || g.Labels != f.Labels || g.Offload() != f.Offload() {
		t.Fatalf("a watcher knows mark %d labels %x offload %v; they are %d %x %v",
			g.Mark, g.Labels, g.Offload(), f.Mark, f.Labels, f.Offload())
	}
	if f.State != StateNew && (g.State != f.State || g.Candidate != f.Candidate) {
		t.Fatalf("a watcher knows state %v candidate %v; they are %v %v", g.State, g.Candidate, f.State, f.Candidate)
	}
}
