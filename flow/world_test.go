package flow

import "pgregory.net/rapid"

// space is a small world in which tuples clash: two clients, a server that they
// reach directly or translated to one and the same address, the way back, and a
// connection to itself. Odd places hold what the even ones are answered with.
var space = makeSpace()

func makeSpace() []Key {
	addr := func(n byte, port uint16) (a [16]byte, p uint16) { return [16]byte{10, 0, 0, n}, port }
	var keys []Key
	for _, proto := range []Proto{TCP, UDP} {
		add := func(src, dst byte, sport, dport uint16) {
			k := Key{Family: IPv4, Proto: proto}
			k.Src, k.SrcPort = addr(src, sport)
			k.Dst, k.DstPort = addr(dst, dport)
			keys = append(keys, k)
		}
		add(1, 9, 1000, 80) // client to server
		add(9, 1, 80, 1000)
		add(2, 9, 1000, 80) // another client
		add(9, 2, 80, 1000)
		add(1, 9, 1001, 80) // either client, translated
		add(9, 254, 80, 5000)
		add(3, 3, 7, 7) // to itself
	}
	return keys
}

// replyOf picks what a tuple is answered with: turned round, or translated.
func replyOf(orig Key, translated bool) Key {
	reply := orig.Reverse()
	if translated {
		reply.Dst, reply.DstPort = [16]byte{10, 0, 0, 254}, 5000
	}
	return reply
}

var statuses = []Status{0, replied, offload, hw, StatusSeenReply | StatusDying, offload | StatusDying}

// anyEvent draws events as the kernel sends them, in any order.
func anyEvent(kinds ...Kind) *rapid.Generator[*Event] {
	return rapid.Custom(func(t *rapid.T) *Event {
		orig := rapid.SampledFrom(space).Draw(t, "orig")
		ev := event(rapid.SampledFrom(kinds).Draw(t, "kind"), orig, rapid.Uint32Range(1, 3).Draw(t, "id"))
		ev.Reply = replyOf(orig, rapid.Bool().Draw(t, "translated"))
		ev.Has |= Has(rapid.Uint16().Draw(t, "has")) &^ Partial
		if rapid.IntRange(0, 3).Draw(t, "whole") > 0 {
			ev.Has |= HasID | HasReply
		}
		ev.Status = rapid.SampledFrom(statuses).Draw(t, "status")
		ev.Mark, ev.Timeout = rapid.Uint32Range(0, 1).Draw(t, "mark"), rapid.SampledFrom([]uint32{0, 1, 10, 11, 60, 300}).Draw(t, "timeout")
		ev.Labels[3] = byte(ev.Mark << 2)
		ev.TCP = TCPState(rapid.Uint8Range(0, uint8(TCPSynSent2)).Draw(t, "tcp"))
		withCounters(rapid.Uint64Range(0, 3).Draw(t, "packets"), rapid.Uint64Range(0, 3).Draw(t, "answers"))(ev)
		return ev
	})
}
