package nft

import (
	"fmt"
	"io"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// table is how the library knows flowd's table.
var table = &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}

// A batch gathers the messages of one transaction. It uses google/nftables as an
// encoder only: the library hands each message to capture, by the hook that it
// has for tests, and never opens a socket. It could not send all that is needed
// (raw.go), and its own transport neither says which message failed nor works
// with descriptors above 1023.
type batch struct {
	table    *nftables.Table
	lib      *nftables.Conn
	captured []netlink.Message
	messages []message
	err      error // the first that the encoder met
}

// A message is one step of a transaction and the words for what it is about.
type message struct {
	netlink.Message
	object  string
	devices []string // names in it that may be the reason of a failure
}

func newBatch(t *nftables.Table) *batch {
	b := &batch{table: t}
	b.lib, b.err = nftables.New(nftables.WithTestDial(b.capture), nftables.AsLasting())
	return b
}

// capture takes what the library means to send. It is also asked for replies, with
// no request: there are none.
func (b *batch) capture(sent []netlink.Message) ([]netlink.Message, error) {
	if len(sent) == 0 {
		return nil, io.EOF
	}
	b.captured = append(b.captured, sent...)
	return nil, nil
}

// encode adds what the library makes of one call, without the frame of a batch
// that it puts around it.
func (b *batch) encode(object string, call func(lib *nftables.Conn)) {
	if b.err != nil {
		return
	}
	b.captured = b.captured[:0]
	call(b.lib)
	if err := b.lib.Flush(); err != nil {
		b.err = fmt.Errorf("%s: encode: %w", object, err)
		return
	}
	if len(b.captured) < 3 {
		b.err = fmt.Errorf("%s: encode: nothing encoded", object)
		return
	}
	for _, m := range b.captured[1 : len(b.captured)-1] {
		b.add(message{Message: m, object: object})
	}
}

// add appends m, with the parts of its header that belong to a socket left for
// that to fill in, and without asking for an echo.
func (b *batch) add(m message) {
	h := &m.Header
	h.Sequence, h.PID, h.Length = 0, 0, 0
	h.Flags &^= netlink.Echo
	b.messages = append(b.messages, m)
}

func (b *batch) addTable() {
	b.encode("table", func(lib *nftables.Conn) { lib.AddTable(b.table) })
}

// flushTable empties all chains of the table.
func (b *batch) flushTable() {
	b.encode("rules", func(lib *nftables.Conn) { lib.FlushTable(b.table) })
}

func (b *batch) addCounter(name string) {
	b.encode("counter "+name, func(lib *nftables.Conn) {
		lib.AddObj(&nftables.CounterObj{Table: b.table, Name: name})
	})
}

// addFlowtable adds the flowtable, or devices to it. It always carries all flags:
// those that it leaves out are cleared (nft_flowtable_update).
func (b *batch) addFlowtable(devices []string) {
	for _, some := range portions(devices) {
		first := len(b.messages)
		b.encode(flowtableObject, func(lib *nftables.Conn) {
			lib.AddFlowtable(&nftables.Flowtable{
				Table:   b.table,
				Name:    flowtableName,
				Devices: terminated(some),
				Flags:   flowtableFlags,
			})
		})
		for i := range b.messages[first:] {
			b.messages[first+i].devices = some
		}
	}
}

// maxDevices is how many devices one message may name: one less than
// NFT_NETDEVICE_MAX, at which the kernel says EFBIG (nf_tables_parse_netdev_hooks).
const maxDevices = 255

// portions divides devices into lists that fit a message; of none it makes one.
func portions(devices []string) [][]string {
	if len(devices) == 0 {
		return [][]string{nil}
	}
	return slices.Collect(slices.Chunk(devices, maxDevices))
}

const (
	flowtableObject = "flowtable " + flowtableName
	flowtableFlags  = nftables.FlowtableFlagsCounter
)

// terminated returns the names with the NUL that the library leaves out. Linux
// 6.16 takes a name without it for the beginning of names.
func terminated(names []string) []string {
	var t []string
	for _, name := range names {
		t = append(t, name+"\x00")
	}
	return t
}

func (b *batch) delFlowtable(name string) {
	b.encode("flowtable "+name, func(lib *nftables.Conn) {
		lib.DelFlowtable(&nftables.Flowtable{Table: b.table, Name: name})
	})
}

func (b *batch) delChain(name string) {
	b.encode("chain "+name, func(lib *nftables.Conn) {
		lib.DelChain(&nftables.Chain{Table: b.table, Name: name})
	})
}

func (b *batch) delSet(name string) {
	b.encode("set "+name, func(lib *nftables.Conn) {
		lib.DelSet(&nftables.Set{Table: b.table, Name: name})
	})
}

// addSet adds a named set with its ports.
func (b *batch) addSet(s set) {
	lib := &nftables.Set{Table: b.table, Name: s.name, KeyType: s.key, KeyByteOrder: binaryutil.BigEndian}
	if s.dynamic() {
		lib.Dynamic, lib.Size = true, maxSources
	}
	var elements []nftables.SetElement
	for _, port := range s.ports {
		elements = append(elements, nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(port)})
	}
	object := "set " + s.name
	b.encode(object, func(conn *nftables.Conn) {
		if err := conn.AddSet(lib, elements); err != nil {
			b.err = fmt.Errorf("%s: encode: %w", object, err)
		}
	})
}

func (b *batch) delObject(o objectID) {
	b.encode(o.String(), func(lib *nftables.Conn) {
		lib.DeleteObject(&nftables.NamedObj{Table: b.table, Name: o.name, Type: o.kind})
	})
}

// addRule appends rule number n, counted from 1, to a chain.
func (b *batch) addRule(chain string, n int, r rule) {
	object := fmt.Sprintf("chain %s: rule %d", chain, n)
	stamp := r.stamp()
	lib := &nftables.Rule{
		Table:    b.table,
		Chain:    &nftables.Chain{Table: b.table, Name: chain},
		UserData: userdata.Append(nil, stampType, stamp[:]),
	}
	for _, t := range r {
		lib.Exprs = append(lib.Exprs, t.exprs(b)...)
	}
	b.encode(object, func(conn *nftables.Conn) { conn.AddRule(lib) })
}

// protocolSet adds an anonymous set of transport protocols, which lives as long
// as the one rule that looks into it.
func (b *batch) protocolSet(protocols ...byte) *nftables.Set {
	set := &nftables.Set{
		Table:     b.table,
		Anonymous: true,
		Constant:  true,
		KeyType:   nftables.TypeInetProto,
	}
	var elements []nftables.SetElement
	for _, p := range protocols {
		elements = append(elements, nftables.SetElement{Key: []byte{p}})
	}
	b.encode("set of protocols", func(lib *nftables.Conn) {
		if err := lib.AddSet(set, elements); err != nil {
			b.err = fmt.Errorf("set of protocols: encode: %w", err)
		}
	})
	return set
}

// frame returns the transaction as it is sent. With a generation the kernel
// refuses it, by ERESTART, unless that is the present one.
//
// The kernel tells of each message that it refuses. Of those that it takes only
// the last one is to be acknowledged, as a sign that it came that far: many
// acknowledgements might overrun the socket.
func (b *batch) frame(generation uint32) []message {
	begin := message{object: "transaction"}
	begin.Header.Type = unix.NFNL_MSG_BATCH_BEGIN
	begin.Header.Flags = netlink.Request
	begin.Data = batchHeader(generation)
	end := begin
	end.Header.Type = unix.NFNL_MSG_BATCH_END
	end.Data = batchHeader(0)
	messages := append(append([]message{begin}, b.messages...), end)
	messages[len(messages)-2].Header.Flags |= netlink.Acknowledge
	return messages
}
