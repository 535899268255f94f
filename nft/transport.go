package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An answer is what the kernel says to one message of a transaction. It is a
// refusal unless errno is 0.
type answer struct {
	message int // its index
	errno   unix.Errno
	text    string // the kernel's own words, mostly none
	offset  int    // of the attribute in the message that is to blame, or 0
}

// commit sends the batch as one transaction, once, and reads all that the kernel
// says to it. generation is the one that the batch was made for.
func (c *Conn) commit(b *batch, generation uint32) error {
	if b.err != nil {
		return b.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := b.frame(generation)
	refusals, err := c.exchange(messages)
	if err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	if len(refusals) > 0 {
		return refusals[0].in(messages)
	}
	// The kernel compares generations with its commit mutex held, so this
	// transaction made the very next one. 0 is never used (nf_tables_commit).
	c.own.add(max(generation+1, 1))
	return nil
}

// exchange sends the messages and returns all refusals, in their order. The kernel
// handles a transaction, and queues all that it has to say, before the system call
// that sends it returns (nfnetlink_rcv_batch): no reply comes later.
func (c *Conn) exchange(messages []message) ([]answer, error) {
	var batch []netlink.Message
	for _, m := range messages {
		batch = append(batch, m.Message)
	}
	sent, err := c.nf.SendMessages(batch)
	if err != nil {
		return nil, errno(err)
	}
	raw, err := c.nf.SyscallConn()
	if err != nil {
		return nil, err
	}
	var answers []answer
	var readErr error
	err = raw.Control(func(fd uintptr) {
		answers, readErr = readAnswers(int(fd), sent)
	})
	if err := errors.Join(err, readErr); err != nil {
		return nil, err
	}
	if len(answers) == 0 {
		return nil, errors.New("the kernel did not answer")
	}
	return slices.DeleteFunc(answers, func(a answer) bool { return a.errno == 0 }), nil
}

// readAnswers reads what waits in the socket: answers to the messages, whose
// sequence numbers ascend.
func readAnswers(fd int, sent []netlink.Message) ([]answer, error) {
	size := 4 << 10 // headers, and attributes with words: a few hundred bytes
	for _, m := range sent {
		size = max(size, 4<<10+int(m.Header.Length))
	}
	buf := make([]byte, size)
	var answers []answer
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return answers, nil
		default:
			return nil, err
		}
		replies, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, reply := range replies {
			index := int(reply.Header.Seq - sent[0].Header.Sequence)
			if a, ok := parseAnswer(reply); ok && index >= 0 && index < len(sent) {
				a.message = index
				answers = append(answers, a)
			}
		}
	}
}

// parseAnswer decodes struct nlmsgerr (uapi/linux/netlink.h): an error number and
// the message that it answers, whole or only its header. Attributes follow.
func parseAnswer(m syscall.NetlinkMessage) (a answer, ok bool) {
	if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4+unix.SizeofNlMsghdr {
		return a, false
	}
	a.errno = unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
	answered := unix.SizeofNlMsghdr
	if m.Header.Flags&unix.NLM_F_CAPPED == 0 && a.errno != 0 {
		answered = int(binary.NativeEndian.Uint32(m.Data[4:]))
	}
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || answered > len(m.Data)-4 {
		return a, true
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[4+answered:])
	if err != nil {
		return a, true
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NLMSGERR_ATTR_MSG:
			a.text = attributes.String()
		case unix.NLMSGERR_ATTR_OFFS:
			a.offset = int(attributes.Uint32())
		}
	}
	return a, true
}

// in returns the refusal as an error that names what in the messages it is about.
func (a answer) in(messages []message) error {
	if a.message == 0 { // the frame: it was not begun, or not committed in the end
		if a.errno == unix.EPERM {
			return explain(a.errno)
		}
		return fmt.Errorf("transaction: %w", a.errno)
	}
	m := messages[a.message]
	words := m.object + ": "
	if a.errno == unix.EPERM { // nft_table_has_owner
		words += "the table belongs to another process: "
	}
	if device := m.deviceAt(a.offset); device != "" {
		words += "device " + device + ": "
	}
	if a.text != "" {
		words += a.text + ": "
	}
	return fmt.Errorf("%s%w", words, a.errno)
}

// deviceAt returns the name of the device whose attribute begins at offset.
func (m message) deviceAt(offset int) string {
	begin := offset - unix.SizeofNlMsghdr + unix.SizeofNlAttr
	if offset == 0 || begin < 0 || begin > len(m.Data) {
		return ""
	}
	name, _, _ := bytes.Cut(m.Data[begin:], []byte{0})
	if slices.Contains(m.devices, string(name)) {
		return string(name)
	}
	return ""
}
