package testenv

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An EntryKey names one entry of a conntrack table. The id alone does not: it
// is a hash of 32 bits, of which 100,000 entries have the same one more often
// than not. It serves to tell an entry from an earlier one of the same tuple.
type EntryKey struct {
	ID uint32
	Tuple
}

// A Tuple is one direction of a flow. The ports are 0 where the protocol has none.
type Tuple struct {
	Protocol string // conntrack(8)'s name: tcp, udp, icmp, icmpv6, gre, unknown...
	Src, Dst netip.AddrPort
}

// An Entry is what conntrack(8) says of one flow. Two of them may be compared.
type Entry struct {
	ID              uint32
	Original, Reply Tuple
	// Packets and Bytes are of the original and the reply direction; 0 where
	// nobody counts.
	Packets, Bytes [2]uint64
	// Timeout is what is left, in whole seconds; 0 while the flow is offloaded.
	Timeout time.Duration
	// State is that of TCP, as ESTABLISHED; empty while the flow is offloaded.
	State string
	// These are the flags: of the first two none means that replies were
	// seen, but no more.
	Unreplied, Assured, Offload, HWOffload bool
	Mark                                   uint32
	// Start is when the flow began, in whole seconds; zero unless the
	// namespace had nf_conntrack_timestamp set then.
	Start time.Time
}

// Key returns what the entry is known by.
func (e Entry) Key() EntryKey { return EntryKey{e.ID, e.Original} }

// Conntrack returns all entries of a namespace, of both families. It is no more
// of one moment than conntrack -L is.
func (n *Namespace) Conntrack(t testing.TB) map[EntryKey]Entry {
	t.Helper()
	entries := make(map[EntryKey]Entry)
	for _, family := range []string{"ipv4", "ipv6"} {
		list := n.Run(t, "conntrack", "-L", "-f", family, "-o", "extended,id,ktimestamp")
		for line := range strings.Lines(list) {
			entry, err := ParseEntry(line)
			if err != nil {
				t.Fatal(err)
			}
			entries[entry.Key()] = entry
		}
	}
	return entries
}

// entryStart is a flow's first moment, in the words of ctime(3).
var entryStart = regexp.MustCompile(`\[start=([^]]*)\]`)

// ParseEntry reads a line of "conntrack -L -o extended,id", and with
// "ktimestamp" if it is there.
func ParseEntry(line string) (Entry, error) {
	var e Entry
	text := line
	if m := entryStart.FindStringSubmatch(line); m != nil {
		start, err := time.ParseInLocation(time.ANSIC, m[1], time.Local)
		if err != nil {
			return e, fmt.Errorf("conntrack entry %q: %w", line, err)
		}
		e.Start = start
		text = strings.Replace(line, m[0], "", 1)
	}
	words := strings.Fields(text)
	if len(words) < 5 {
		return e, fmt.Errorf("conntrack entry %q: too short", line)
	}
	e.Original.Protocol, e.Reply.Protocol = words[2], words[2]
	direction := -1
	for _, word := range words[4:] { // after the names and numbers of both layers
		if strings.HasPrefix(word, "src=") {
			direction++
		}
		if err := e.word(word, direction); err != nil {
			return e, fmt.Errorf("conntrack entry %q: %q: %w", line, word, err)
		}
	}
	if direction != 1 || e.ID == 0 {
		return e, fmt.Errorf("conntrack entry %q: want two tuples and an id", line)
	}
	return e, nil
}

// word takes in one word, which belongs to the tuple of a direction (0 or 1), or
// stands before them (-1).
func (e *Entry) word(word string, direction int) error {
	name, value, pair := strings.Cut(word, "=")
	switch {
	case !pair:
		return e.flag(word, direction < 0)
	case direction > 1:
		return errors.New("a third tuple")
	case direction < 0:
		return nil
	}
	tuple := [...]*Tuple{&e.Original, &e.Reply}[direction]
	switch name {
	case "src", "dst":
		addr, err := netip.ParseAddr(value)
		if name == "src" {
			tuple.Src = netip.AddrPortFrom(addr, 0)
		} else {
			tuple.Dst = netip.AddrPortFrom(addr, 0)
		}
		return err
	case "sport", "dport":
		port, err := strconv.ParseUint(value, 10, 16)
		if name == "sport" {
			tuple.Src = netip.AddrPortFrom(tuple.Src.Addr(), uint16(port))
		} else {
			tuple.Dst = netip.AddrPortFrom(tuple.Dst.Addr(), uint16(port))
		}
		return err
	}
	return e.number(name, value, direction)
}

func (e *Entry) number(name, value string, direction int) error {
	var err error
	switch name {
	case "packets":
		e.Packets[direction], err = strconv.ParseUint(value, 10, 64)
	case "bytes":
		e.Bytes[direction], err = strconv.ParseUint(value, 10, 64)
	case "mark", "id": // ICMP's tuples have an id too, before the entry's
		var number uint64
		number, err = strconv.ParseUint(value, 10, 32)
		if name == "mark" {
			e.Mark = uint32(number)
		} else {
			e.ID = uint32(number)
		}
	}
	return err
}

// flag takes in a word without a value: the timeout and the state stand before
// the tuples.
func (e *Entry) flag(word string, before bool) error {
	switch word {
	case "[UNREPLIED]":
		e.Unreplied = true
	case "[ASSURED]":
		e.Assured = true
	case "[OFFLOAD]":
		e.Offload = true
	case "[HW_OFFLOAD]":
		e.HWOffload = true
	default:
		if !before {
			return nil
		}
		seconds, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			e.State = word
			return nil
		}
		e.Timeout = time.Duration(seconds) * time.Second
	}
	return nil
}
