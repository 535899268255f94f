package flow

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// fill appends n changes, one by one.
func fill(j *Journal, n int) {
	for range n {
		j.Append([]Change{{Kind: Created, Time: int64(j.Next())}})
	}
}

func TestJournalNumbers(t *testing.T) {
	j := NewJournal(8)
	if j.Next() != 1 {
		t.Fatalf("the first number is %d, want 1", j.Next())
	}
	batch := make([]Change, 3)
	j.Append(batch)
	for i := range batch {
		if batch[i].Seq != uint64(i+1) {
			t.Errorf("change %d is numbered %d in place", i, batch[i].Seq)
		}
	}
	j.Append(nil)
	if j.Next() != 4 {
		t.Errorf("next is %d after three changes, want 4", j.Next())
	}
}

// For every length of history and every number asked for, Since gives exactly
// what is kept, and ErrLost exactly for what is not.
func TestJournalSince(t *testing.T) {
	const size = 4
	for total := range 3 * size {
		j := NewJournal(size)
		fill(j, total)
		kept := uint64(max(0, total-size))
		for seq := range uint64(total + 3) {
			buf := make([]Change, 2*size)
			n, err := j.Since(seq, buf)
			if lost := seq <= kept; lost != errors.Is(err, ErrLost) || lost != (err != nil) {
				t.Fatalf("%d of %d changes kept: number %d: error %v", total-int(kept), total, seq, err)
			} else if lost {
				continue
			}
			if want := max(0, total+1-int(seq)); n != want {
				t.Fatalf("%d changes: %d from number %d on, want %d", total, n, seq, want)
			}
			for i := range n {
				if buf[i].Seq != seq+uint64(i) || buf[i].Time != int64(buf[i].Seq) {
					t.Fatalf("from number %d on: change %d is %+v", seq, i, buf[i])
				}
			}
		}
	}
}

func TestJournalSinceFillsNoMoreThanFits(t *testing.T) {
	j := NewJournal(8)
	fill(j, 5)
	buf := make([]Change, 2)
	if n, err := j.Since(2, buf); n != 2 || err != nil || buf[1].Seq != 3 {
		t.Errorf("Since gives %d changes, %v, up to %d; want 2 up to 3", n, err, buf[1].Seq)
	}
	if n, err := j.Since(2, nil); n != 0 || err != nil {
		t.Errorf("Since with no room gives %d, %v", n, err)
	}
}

func TestJournalBatchLargerThanRing(t *testing.T) {
	j := NewJournal(4)
	j.Append(make([]Change, 11))
	buf := make([]Change, 8)
	if _, err := j.Since(7, buf); !errors.Is(err, ErrLost) {
		t.Errorf("number 7 of 11 with room for 4: %v, want ErrLost", err)
	}
	if n, err := j.Since(8, buf); n != 4 || err != nil || buf[3].Seq != 11 {
		t.Errorf("from 8 on: %d changes, %v", n, err)
	}
}

func TestJournalGrown(t *testing.T) {
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	j := NewJournal(4)
	first, second := j.Grown(1), j.Grown(1)
	if closed(first) || closed(second) {
		t.Fatal("told of a change that does not exist")
	}
	j.Append(nil)
	if closed(first) {
		t.Fatal("told of a change although there was none")
	}
	fill(j, 1)
	if !closed(first) || !closed(second) {
		t.Error("one who waited was not told")
	}
	if !closed(j.Grown(1)) {
		t.Error("change 1 exists, and one has to wait for it")
	}
	if closed(j.Grown(2)) {
		t.Error("change 2 does not exist, and one has not to wait for it")
	}
}

// Whom nobody waits for tells nobody: appending makes no channel then.
func TestJournalAppendAllocatesNothing(t *testing.T) {
	j, batch := NewJournal(4), make([]Change, 1)
	j.Grown(1)
	j.Append(batch)
	if n := testing.AllocsPerRun(100, func() { j.Append(batch) }); n != 0 {
		t.Errorf("%v allocations for a change", n)
	}
}

// Readers at their own pace see every number once and in order, or are told.
func TestJournalManyReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total, readers = 3000, 4
		j := NewJournal(total / 10)
		var wg sync.WaitGroup
		for r := range readers {
			wg.Go(func() { follow(t, j, total, 1+r*50) })
		}
		for n := 0; n < total; n += 10 {
			j.Append(make([]Change, 10))
			if n%500 == 0 {
				synctest.Wait() // now and then everybody catches up
			}
		}
		wg.Wait()
	})
}

// follow reads up to change number last, at most step at a time, and fails if a
// number is missing of which it was not told that it is lost.
func follow(t *testing.T, j *Journal, last uint64, step int) {
	buf := make([]Change, step)
	for seq := uint64(1); seq <= last; {
		n, err := j.Since(seq, buf)
		if errors.Is(err, ErrLost) {
			seq = j.Next()
			continue
		}
		for i := range buf[:n] {
			if buf[i].Seq != seq {
				t.Errorf("got change %d, want %d", buf[i].Seq, seq)
				return
			}
			seq++
		}
		if n == 0 {
			<-j.Grown(seq)
		}
	}
}
