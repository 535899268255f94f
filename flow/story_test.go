package flow

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// within is how long after its lifetime a flow must be gone, where no dump ever helps:
// 2.5 s, as the kernel tells whole seconds. It takes half a second more where it looks
// for flows to be taken out of the flowtable once a second. And what is not known to be
// in there, and has less time than it would be kept there, may have been read half-way.
func (s *story) within() int64 {
	switch {
	case s.silently && s.life < int64(s.sysctl.FlowUDP):
		return 3*second + s.life*second
	case s.offload:
		return 3 * second
	}
	return 5 * second / 2
}

// held fails unless a flow was removed in time and for the right reason.
func held(t testing.TB, k *kernelSim, late int64) {
	t.Helper()
	if late < 0 || late > k.within() {
		t.Errorf("outlived its lifetime by %.3f s, want 0 to %.1f s\n%+v", float64(late)/1e9, float64(k.within())/1e9, k.story)
	}
	want := ReasonIdle
	if k.unanswered {
		want = ReasonHalfOpen
	}
	if k.why.Kind != Expired || k.why.Reason != want {
		t.Errorf("ended as %v, %v\n%+v", k.why.Kind, k.why.Reason, k.story)
	}
}

// courses are the ways in which packets may come in the lifetime of a flow, as gaps
// in hundredths of it.
var courses = map[string][]int64{
	"none":             nil,
	"one":              {50},
	"soon after":       {1},
	"regular":          {30, 30, 30, 30, 30, 30, 30},
	"just in time":     {97, 97, 97},
	"burst and late":   {1, 1, 1, 1, 95},
	"late and burst":   {95, 1, 1, 1, 1},
	"before the read":  {99, 2},
	"after every look": {84, 84, 17},
}

func TestLifetimes(t *testing.T) {
	for _, proto := range []Proto{UDP, TCP} {
		for _, life := range []int64{5, 10, 60, 180, 300, 7440} {
			for world, s := range worlds() {
				for name, course := range courses {
					s.proto, s.life, s.seed = proto, life, uint64(life)*7919
					s.gaps = nil
					for _, hundredths := range course {
						s.gaps = append(s.gaps, life*second/100*hundredths)
					}
					t.Run(fmt.Sprintf("%v/%d s/%s/%s", proto, life, world, name), func(t *testing.T) {
						k := newSim(t, s)
						held(t, k, k.play())
					})
				}
			}
		}
	}
}

// worlds are the circumstances in which lifetimes must hold.
func worlds() map[string]story {
	return map[string]story{
		"slow path":                  {},
		"slow path, timeout object":  {object: true},
		"own lifetime":               {own: true},
		"offloaded":                  {offload: true},
		"offloaded, 6.12":            {offload: true, day: dayOld},
		"offloaded, capped":          {offload: true, day: dayAll},
		"offloaded, timeout object":  {offload: true, object: true},
		"offloaded unannounced":      {offload: true, silently: true},
		"offloaded, coarse, own":     {offload: true, coarse: true, own: true},
		"offloaded, short flowtable": {offload: true, sysctl: KernelTimers{FlowTCP: 5, FlowUDP: 5, Established: 7440, UDPStream: 180, UDP: 30}},
	}
}

// A flow that is never answered has its time from its first packet on, or for UDP
// from its last.
func TestLifetimesUnanswered(t *testing.T) {
	for _, proto := range []Proto{UDP, TCP} {
		for seed := range uint64(20) {
			k := newSim(t, story{proto: proto, life: 180, unanswered: true, seed: seed * 7919})
			held(t, k, k.play())
		}
	}
}

// anyStory draws packets at any time, and dumps in between.
func anyStory(t *rapid.T) story {
	s := story{
		proto:   rapid.SampledFrom([]Proto{UDP, TCP}).Draw(t, "proto"),
		life:    rapid.SampledFrom([]int64{5, 10, 60, 180, 300, 7440}).Draw(t, "life"),
		own:     rapid.Bool().Draw(t, "own"),
		offload: rapid.Bool().Draw(t, "offload"),
		object:  rapid.Bool().Draw(t, "object"),
		day:     rapid.SampledFrom([]day{dayNew, dayOld, dayAll}).Draw(t, "day"),
		seed:    rapid.Uint64Range(0, 1<<40).Draw(t, "seed"),
	}
	s.object = s.object && !s.own
	total := int64(0)
	for range rapid.IntRange(0, 8).Draw(t, "packets") {
		gap := rapid.OneOf(rapid.Int64Range(0, 3000), rapid.Int64Range(0, 35_000), rapid.Int64Range(0, s.life*1000-1)).Draw(t, "gap")
		s.gaps = append(s.gaps, min(gap, s.life*1000-1)*1_000_000)
		total += s.gaps[len(s.gaps)-1]
	}
	for range rapid.IntRange(0, 3).Draw(t, "dumps") {
		s.dumps = append(s.dumps, rapid.Int64Range(0, total+s.life*second).Draw(t, "dump"))
	}
	return s
}

func TestLifetimesRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := newSim(tb{t, rt}, anyStory(rt))
		if late := k.play(); late < 0 || late > k.within() {
			rt.Fatalf("outlived its lifetime by %.3f s\n%+v", float64(late)/1e9, k.story)
		}
	})
}

// Without counters the table must not end a flow that lives; how long it takes to
// notice that one does not is another matter.
func TestLifetimesWithoutCounters(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyStory(rt)
		s.nocount = true
		if k := newSim(tb{t, rt}, s); k.play() < 0 {
			rt.Fatalf("ended before its time\n%+v", k.story)
		}
	})
}
