package main

import (
	"context"
	"flag"
	"io"
	"math"
	"time"

	"flowd/testenv"
)

func forge(flags *flag.FlagSet) runner {
	from := addressFlag(flags, "from", "`ADDRESS:PORT` that it claims to come from")
	to := addressFlag(flags, "to", "`ADDRESS:PORT` to send to")
	names := flags.String("flags", "rst", "`FLAGS`, as fin,ack")
	seq := flags.Uint64("seq", 0, "sequence number `N`")
	ack := flags.Uint64("ack", 0, "acknowledgement number `N`")
	window := flags.Uint64("window", 0, "window of `N` bytes")
	ttl := flags.Uint64("ttl", 64, "time to live, or hop limit, of `N`")
	size := flags.Int("bytes", 0, "`N` bytes of payload")
	return func(_ context.Context, _ io.Writer) (result, error) {
		if err := need("from", from); err != nil {
			return result{}, err
		}
		if err := need("to", to); err != nil {
			return result{}, err
		}
		bits, err := testenv.ParseTCPFlags(*names)
		if err != nil {
			return result{}, usagef("--flags: %w", err)
		}
		switch {
		case *seq > math.MaxUint32 || *ack > math.MaxUint32:
			return result{}, usagef("--seq and --ack have 32 bits")
		case *window > math.MaxUint16:
			return result{}, usagef("--window has 16 bits")
		case *ttl < 1 || *ttl > math.MaxUint8:
			return result{}, usagef("--ttl %d: 1 to %d", *ttl, math.MaxUint8)
		case *size < 0 || *size > 1400:
			return result{}, usagef("--bytes %d: 0 to 1400", *size)
		}
		begin := time.Now()
		if err := testenv.Forge(nil, testenv.Segment{
			From: *from, To: *to, Flags: bits, Seq: uint32(*seq), Ack: uint32(*ack),
			Window: uint16(*window), TTL: uint8(*ttl), Payload: make([]byte, *size),
		}); err != nil {
			return result{}, err
		}
		return result{Segments: 1, SentBytes: int64(*size), Elapsed: time.Since(begin).Seconds()}, nil
	}
}
