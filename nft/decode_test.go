package nft

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// FuzzDecode: no message, whatever is in it, ends the program.
func FuzzDecode(f *testing.F) {
	add := func(c chain) {
		b := newBatch(table)
		b.addChain(c)
		f.Add(b.messages[0].Data)
	}
	add(Ruleset{}.forward())
	add(chain{name: tapName, hook: inetIngress, devices: []string{"lan0", "wan0"}})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := netlink.Message{Data: data}
		c := &Conn{}
		known := map[int32]link{}
		for _, kind := range []netlink.HeaderType{unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWNETCONF, 0} {
			m.Header.Type = kind
			noteDevice(known, m)
		}
		c.parseGeneration(m)
		for _, cat := range catalogues {
			cat.foreign(m)
		}
		parseObject(m)
		s, _, _ := parseSet(m)
		decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) { a.Nested(s.decode) })
		decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) { decodeHook(a, hookDevices) })
		reply := syscall.NetlinkMessage{Data: data}
		reply.Header.Type, reply.Header.Flags = unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS
		parseAnswer(reply)
	})
}

// TestHookThereAndBack: what hook encodes decodeHook decodes.
func TestHookThereAndBack(t *testing.T) {
	b := newBatch(table)
	b.addChain(chain{name: tapName, hook: inetIngress, priority: tapPriority, devices: []string{"lan0", "wan0"}})
	err := decode([]netlink.Message{b.messages[0].Message}, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_CHAIN_HOOK {
			return
		}
		num, priority, devices := decodeHook(a, hookDevices)
		if num != inetIngress || priority != tapPriority || len(devices) != 2 || devices[1] != "wan0" {
			t.Errorf("hook %d, priority %d, devices %q", num, priority, devices)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAnswer decodes what netlink_ack writes.
func TestAnswer(t *testing.T) {
	request := make([]byte, unix.SizeofNlMsghdr+8)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	words, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NLMSGERR_ATTR_MSG, Data: []byte("why\x00")},
		{Type: unix.NLMSGERR_ATTR_OFFS, Data: binary.NativeEndian.AppendUint32(nil, 20)},
	})
	if err != nil {
		t.Fatal(err)
	}
	code := -int32(unix.EEXIST)
	errno := binary.NativeEndian.AppendUint32(nil, uint32(code))
	for _, whole := range []bool{true, false} {
		var m syscall.NetlinkMessage
		m.Header.Type, m.Header.Flags = unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS
		m.Data = append(append(m.Data, errno...), request...)
		if !whole {
			m.Header.Flags |= unix.NLM_F_CAPPED
			m.Data = m.Data[:4+unix.SizeofNlMsghdr]
		}
		m.Data = append(m.Data, words...)
		a, ok := parseAnswer(m)
		if want := (answer{errno: unix.EEXIST, text: "why", offset: 20}); !ok || a != want {
			t.Errorf("answer %+v, want %+v", a, want)
		}
	}
}
