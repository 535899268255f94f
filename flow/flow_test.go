package flow

import "testing"

func TestStates(t *testing.T) {
	tcp := map[TCPState]State{
		TCPNone: StateNew, TCPSynSent: StateNew, TCPSynRecv: StateNew, TCPSynSent2: StateNew,
		TCPEstablished: StateEstablished, TCPFinWait: StateClosing, TCPCloseWait: StateClosing,
		TCPLastAck: StateClosing, TCPTimeWait: StateClosed, TCPClose: StateClosed,
	}
	for s, want := range tcp {
		f := record{orig: Key{Proto: TCP}, tcp: s}
		if got := f.deriveState(); got != want {
			t.Errorf("TCP state %d is %v, want %v", s, got, want)
		}
		f.status = uint16(StatusSeenReply | StatusOffload)
		if got := f.deriveState(); got != StateEstablished {
			t.Errorf("TCP state %d in the flowtable is %v, want established", s, got)
		}
	}
	for name, tc := range map[string]struct {
		r    record
		want State
	}{
		"UDP unanswered":     {record{orig: Key{Proto: UDP}}, StateNew},
		"UDP":                {record{orig: Key{Proto: UDP}, status: uint16(StatusSeenReply)}, StateEstablished},
		"UDP has no TCP":     {record{orig: Key{Proto: UDP}, tcp: TCPClose}, StateNew},
		"TCP state not told": {record{orig: Key{Proto: TCP}, status: uint16(StatusSeenReply)}, StateEstablished},
	} {
		if got := tc.r.deriveState(); got != tc.want {
			t.Errorf("%s is %v, want %v", name, got, tc.want)
		}
	}
}

func TestOffloadPath(t *testing.T) {
	for s, want := range map[Status]Offload{
		0: OffloadNone, replied: OffloadNone, offload: OffloadSoftware, hw: OffloadHardware,
	} {
		if got := (&Flow{Status: s}).Offload(); got != want {
			t.Errorf("status %#x: %v, want %v", s, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for i, want := range []string{"new", "established", "closing", "closed"} {
		if got, err := ParseState(want); err != nil || got != State(i) || got.String() != want {
			t.Errorf("state %q is read as %v, %v", want, got, err)
		}
	}
	for i, want := range []string{"none", "software", "hardware"} {
		if got, err := ParseOffload(want); err != nil || got != Offload(i) || got.String() != want {
			t.Errorf("offload %q is read as %v, %v", want, got, err)
		}
	}
	if _, err := ParseState("open"); err == nil || err.Error() != `state "open": not one of ["new" "established" "closing" "closed"]` {
		t.Errorf("error %v", err)
	}
	if _, err := ParseOffload(""); err == nil {
		t.Error("an empty word is read as an offload")
	}
	for got, want := range map[string]string{
		ReasonNone.String(): "", ReasonClosed.String(): "closed", ReasonLost.String(): "lost",
		ReasonHalfOpen.String(): "half-open", ReasonRecycled.String(): "recycled", Recycled.String(): "recycled",
		Created.String(): "new", Expired.String(): "expired", ChangeKind(99).String(): "unknown(99)",
		State(4).String(): "unknown(4)", Reason(9).String(): "unknown(9)",
	} {
		if got != want {
			t.Errorf("named %q, want %q", got, want)
		}
	}
}

func TestEnds(t *testing.T) {
	for c := Created; c <= Recycled; c++ {
		if want := c == Evicted || c == Expired || c == Recycled; c.Ends() != want {
			t.Errorf("%v ends a flow: %v", c, !want)
		}
	}
}
