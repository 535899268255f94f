package engine

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"flowd/flow"
)

// A script tells a story to an engine, in blocks:
//
//	flow a tcp 10.0.0.1:1000 192.0.2.1:80 [REPLY-SOURCE REPLY-DESTINATION]
//
//	5s
//	update a/1 tcp=established status=offload packets=3/2
//	----
//	what changed, and what the kernel is asked
//
// Events of one block are one step. A block without events is a tick. Above the
// dashes the script is written by hand, below them by the test with -update.

// script is a story being told.
type script struct {
	flows map[string][2]flow.Key // original and reply tuple by name
	names map[flow.Key]string
}

// define reads a line that names a flow.
func (s *script) define(words []string) error {
	if len(words) != 5 && len(words) != 7 {
		return fmt.Errorf("want: flow NAME PROTOCOL SOURCE DESTINATION [REPLY-SOURCE REPLY-DESTINATION]")
	}
	proto, err := flow.ParseProto(words[2])
	if err != nil {
		return err
	}
	orig, err := tuple(proto, words[3], words[4])
	if err != nil {
		return err
	}
	reply := orig.Reverse()
	if len(words) == 7 {
		if reply, err = tuple(proto, words[5], words[6]); err != nil {
			return err
		}
	}
	s.flows[words[1]] = [2]flow.Key{orig, reply}
	s.names[orig] = words[1]
	return nil
}

func tuple(proto flow.Proto, src, dst string) (flow.Key, error) {
	a, err := netip.ParseAddrPort(src)
	if err != nil {
		return flow.Key{}, err
	}
	b, err := netip.ParseAddrPort(dst)
	if err != nil {
		return flow.Key{}, err
	}
	return flow.MakeKey(proto, a, b, 0)
}

var kinds = map[string]flow.Kind{
	"new": flow.New, "update": flow.Update, "destroy": flow.Destroy, "sample": flow.Sample,
	"answer": flow.Answer, "start": flow.SyncStart, "end": flow.SyncEnd, "partial": flow.SyncEnd, "fin": flow.FIN, "rst": flow.RST,
}

// event reads a line such as "update a/1 tcp=established", "fin a reply" or
// "end 3", the number of a dump.
func (s *script) event(words []string) (flow.Event, error) {
	ev := flow.Event{Kind: kinds[words[0]]}
	if ev.Kind == 0 || len(words) < 2 {
		return ev, fmt.Errorf("no such event: %q", words)
	}
	switch ev.Kind {
	case flow.SyncStart, flow.SyncEnd:
		if words[0] == "partial" {
			ev.Has = flow.Partial
		}
		return ev, number(words[1], &ev.ID)
	case flow.FIN, flow.RST:
		keys, ok := s.flows[words[1]]
		if !ok {
			return ev, fmt.Errorf("no flow %q", words[1])
		}
		ev.Orig = keys[0]
		if len(words) > 2 && words[2] == "reply" {
			ev.Orig = keys[1]
		}
		return ev, nil
	}
	orig, reply, id, err := s.connection(words[1])
	if err != nil {
		return ev, err
	}
	ev.Orig, ev.Reply, ev.ID, ev.Has = orig, reply, id, flow.HasReply|flow.HasID
	for _, w := range words[2:] {
		if err := field(&ev, w); err != nil {
			return ev, err
		}
	}
	return ev, nil
}

// connection reads "NAME/ID".
func (s *script) connection(word string) (orig, reply flow.Key, id uint32, err error) {
	name, num, _ := strings.Cut(word, "/")
	keys, ok := s.flows[name]
	if !ok {
		return orig, reply, 0, fmt.Errorf("no flow %q", name)
	}
	return keys[0], keys[1], id, number(num, &id)
}

func number(word string, n *uint32) error {
	v, err := strconv.ParseUint(word, 10, 32)
	*n = uint32(v)
	return err
}

var (
	tcpStates = map[string]flow.TCPState{
		"syn-sent": flow.TCPSynSent, "established": flow.TCPEstablished, "fin-wait": flow.TCPFinWait, "close-wait": flow.TCPCloseWait,
		"last-ack": flow.TCPLastAck, "time-wait": flow.TCPTimeWait, "close": flow.TCPClose,
	}
	statuses = map[string]flow.Status{
		"new": flow.StatusConfirmed, "replied": flow.StatusConfirmed | flow.StatusSeenReply,
		"offload":  flow.StatusConfirmed | flow.StatusSeenReply | flow.StatusOffload,
		"hardware": flow.StatusConfirmed | flow.StatusSeenReply | flow.StatusOffload | flow.StatusHWOffload,
	}
)

// field reads one optional field of an event.
func field(ev *flow.Event, word string) error {
	name, value, _ := strings.Cut(word, "=")
	ok := true
	switch name {
	case "tcp":
		ev.TCP, ok = tcpStates[value]
		ev.Has |= flow.HasTCP
	case "status":
		ev.Status, ok = statuses[value]
		ev.Has |= flow.HasStatus
	case "timeout":
		ev.Has |= flow.HasTimeout
		return number(value, &ev.Timeout)
	case "packets":
		ev.Has |= flow.HasCounters
		_, err := fmt.Sscanf(value, "%d/%d", &ev.Packets[0], &ev.Packets[1])
		ev.Bytes = [2]uint64{100 * ev.Packets[0], 100 * ev.Packets[1]}
		return err
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("no such field: %q", word)
	}
	return nil
}

// tellChange writes a change as one line.
func (s *script) tellChange(c *flow.Change) string {
	f := &c.Flow
	line := fmt.Sprintf("%v %s/%d", c.Kind, s.names[f.Orig], f.ID)
	if c.Kind.Ends() {
		return line + fmt.Sprintf(" reason=%v packets=%d/%d", c.Reason, f.Packets[0], f.Packets[1])
	}
	return line + fmt.Sprintf(" state=%v offload=%v", f.State, f.Offload())
}

// tellAction writes a request to the kernel as one line.
func (s *script) tellAction(a flow.Action) string {
	verb := map[flow.Verb]string{flow.Read: "read", flow.Remove: "remove", flow.Extend: "extend"}[a.Verb]
	line := fmt.Sprintf("> %s %s/%d", verb, s.names[a.Orig], a.ID)
	if a.Verb == flow.Extend {
		line += fmt.Sprintf(" timeout=%d reopen=%v", a.Timeout, a.Reopen)
	}
	return line
}
