package ct

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"flowd/flow"

	"golang.org/x/sys/unix"
)

// sync dumps the whole table into the stream, between SyncStart and SyncEnd.
// Events are read, and passed on, all the while.
func (r *Reader) sync(ctx context.Context) error {
	start := time.Now()
	r.mu.Lock()
	r.begun++
	number := r.begun
	r.mu.Unlock()
	r.nDumps.Add(1)

	// What happened before the dump goes first.
	if _, err := r.drain(ctx); err != nil {
		return err
	}
	*r.room(ctx) = flow.Event{Kind: flow.SyncStart, ID: number}
	r.empty = true
	overruns := r.nOverruns.Load()
	whole, err := r.dumpTable(ctx, number)
	if err != nil {
		return err
	}
	// What happened before the dump ended goes before its end.
	if _, err := r.drain(ctx); err != nil {
		return err
	}
	end := flow.Event{Kind: flow.SyncEnd, ID: number}
	if !whole || r.nOverruns.Load() != overruns {
		end.Has = flow.Partial
		r.again()
	}
	*r.room(ctx) = end
	r.flush(ctx)
	r.dumpEnd = time.Now()
	r.dumpTime.Store(int64(r.dumpEnd.Sub(start)))
	return nil
}

// again has another dump begin as soon as may be.
func (r *Reader) again() {
	r.mu.Lock()
	r.wanted = r.begun + 1
	r.mu.Unlock()
}

// dumpTable asks for a dump and reads it to its end. whole is false when the
// kernel says that the table changed under the dump (NLM_F_DUMP_INTR).
func (r *Reader) dumpTable(ctx context.Context, number uint32) (whole bool, err error) {
	var e encoder
	e.open(msgGet, unix.NLM_F_DUMP, number, unix.AF_UNSPEC)
	e.close()
	if err := r.dump.send(e.buf); err != nil {
		return false, fmt.Errorf("conntrack dump: send: %w", err)
	}
	whole = true
	for ctx.Err() == nil {
		n, err := r.dump.read(true)
		if errors.Is(err, unix.ENOBUFS) {
			// The kernel had no memory for the next part. The dump is not whole, but
			// goes on: no other can begin before it has ended.
			whole = false
			time.Sleep(nap)
			continue
		}
		if err != nil {
			return false, fmt.Errorf("conntrack dump: read: %w", err)
		}
		// Events older than what was just read must come before it.
		if _, err := r.drain(ctx); err != nil {
			return false, err
		}
		for i := range n {
			data, fits := r.dump.message(i)
			if !fits {
				r.nMalformed.Add(1)
				whole = false
			}
			done, ok, err := r.addDumped(ctx, data, number)
			if err != nil {
				return false, err
			}
			whole = whole && ok
			if done {
				return whole, nil
			}
		}
	}
	return false, nil
}

// addDumped takes apart one datagram of a dump.
func (r *Reader) addDumped(ctx context.Context, data []byte, number uint32) (done, whole bool, err error) {
	whole = true
	err = eachMessage(data, func(typ, flags uint16, seq uint32, msg []byte) error {
		if seq != number {
			return nil // left over from a dump that was given up
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			whole = false
		}
		switch typ {
		case unix.NLMSG_DONE:
			done = true
		case unix.NLMSG_ERROR:
			return fmt.Errorf("conntrack dump: %w", messageError(msg))
		default:
			r.add(ctx, msg, flow.Sample)
		}
		return nil
	})
	return done, whole, err
}

// eachMessage calls f for each netlink message of a datagram, header included.
func eachMessage(data []byte, f func(typ, flags uint16, seq uint32, msg []byte) error) error {
	ne := binary.NativeEndian
	for len(data) >= nlmsgHdrLen {
		n := int(ne.Uint32(data))
		if n < nlmsgHdrLen || n > len(data) {
			return nil // cut off: the caller has counted that
		}
		if err := f(ne.Uint16(data[4:]), ne.Uint16(data[6:]), ne.Uint32(data[8:]), data[:n]); err != nil {
			return err
		}
		data = data[min(align(n), len(data)):]
	}
	return nil
}

// messageError returns the error that an NLMSG_ERROR message carries: nil for
// an acknowledgement.
func messageError(msg []byte) error {
	if len(msg) < nlmsgHdrLen+4 {
		return errMalformed
	}
	if code := int32(binary.NativeEndian.Uint32(msg[nlmsgHdrLen:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
