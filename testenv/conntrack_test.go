package testenv

import "testing"

func TestConntrackRoom(t *testing.T) {
	if room := ConntrackRoom(t, 10); room != 10 {
		t.Errorf("room for %d flows, want 10", room)
	}
}
