package ct

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"flowd/testenv"
)

// TestStatisticsCount has conntrack see a segment that belongs to no connection; it
// is counted once or twice, as kernels differ.
func TestStatisticsCount(t *testing.T) {
	lab := testenv.Up(t, testenv.Track)
	var s *Statistics
	if err := lab.Router.Do(func() (err error) {
		s, err = NewStatistics()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := testenv.Forge(lab.Client, testenv.Segment{
		From: netip.AddrPortFrom(lab.ClientV4, 1234), To: netip.AddrPortFrom(lab.ServerV4, 80), Flags: testenv.SYN | testenv.FIN,
	}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		after, err := s.Read()
		if err == nil && after.Invalid <= before.Invalid {
			err = fmt.Errorf("%+v, and before it %+v", after, before)
		}
		return err
	})
}
