package flow

import (
	"errors"
	"sync"
)

// ErrLost tells a reader of the Journal that changes it asked for are no longer
// kept: it must list the table again and follow from the newest number.
var ErrLost = errors.New("changes lost: the reader fell behind the journal; list again and watch from there")

// Journal is a ring of numbered changes. One writer appends and never waits;
// any number of readers follow, each at its own pace with its own number.
type Journal struct {
	mu    sync.RWMutex
	ring  []Change
	next  uint64        // number that the next change gets; the first is 1
	grown chan struct{} // closed and replaced when changes were added and somebody waits
	wait  bool
}

// NewJournal makes a Journal that keeps the newest size changes. Memory of the
// ring is touched, and so resident, only as far as it was ever filled.
func NewJournal(size int) *Journal {
	return &Journal{ring: make([]Change, size), next: 1, grown: make(chan struct{})}
}

// Append numbers the changes, in place, and keeps them.
func (j *Journal) Append(changes []Change) {
	if len(changes) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range changes {
		changes[i].Seq = j.next
		j.ring[j.next%uint64(len(j.ring))] = changes[i]
		j.next++
	}
	if j.wait {
		close(j.grown)
		j.grown, j.wait = make(chan struct{}), false
	}
}

// Next returns the number that the next change will get.
func (j *Journal) Next() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.next
}

// Since copies into dst changes from number seq on, as many as fit, and returns
// how many. ErrLost means that number seq is no longer kept.
func (j *Journal) Since(seq uint64, dst []Change) (int, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	size := uint64(len(j.ring))
	if j.next > size && seq < j.next-size || seq == 0 {
		return 0, ErrLost
	}
	n := 0
	for ; n < len(dst) && seq < j.next; n, seq = n+1, seq+1 {
		dst[n] = j.ring[seq%size]
	}
	return n, nil
}

// Grown returns a channel that is closed already when change number seq exists,
// else when the next changes come.
func (j *Journal) Grown(seq uint64) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if seq < j.next {
		done := make(chan struct{})
		close(done)
		return done
	}
	j.wait = true
	return j.grown
}
