package nft

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A rule is a list of terms, matched from the first to the last.
type rule []term

// A term is one match or action of a rule: its text, as nft lists it, and what
// the kernel is sent for it. exprs is called once for each transaction, since a
// term may need a set of its own in it.
type term struct {
	text  string
	exprs func(b *batch) []expr.Any
}

func (r rule) String() string {
	var text []string
	for _, t := range r {
		text = append(text, t.text)
	}
	return strings.Join(text, " ")
}

// A stamp marks a rule as ours, in its user data, so that reading it back needs
// no understanding of its expressions.
type stamp [9]byte

// stampVersion is the first byte of each stamp. It must change whenever the same
// text is sent as other expressions.
const stampVersion = 1

// stampType is the type of the stamp's TLV in a rule's user data. Nft lists type
// 0 (the comment) and 1, and passes over what it does not know
// (nftables, src/netlink_delinearize.c, parse_rule_udata_cb).
const stampType = 'f'

func (r rule) stamp() (s stamp) {
	h := fnv.New64a()
	h.Write([]byte(r.String()))
	s[0] = stampVersion
	h.Sum(s[1:1])
	return s
}

// reg is the register that all terms load into: NFT_REG_1, 16 bytes, free again
// after each term.
const reg = unix.NFT_REG_1

// Values of the packet's fields (netinet/in.h, RFC 9293 section 3.1).
const (
	tcpFlagsOffset = 13
	tcpFin         = 1 << 0
	tcpRst         = 1 << 2
)

func constant(text string, exprs ...expr.Any) term {
	return term{text, func(*batch) []expr.Any { return exprs }}
}

// ctEstablished matches packets of connections that were seen in both directions.
func ctEstablished() term {
	// A state is one bit of a 32-bit value in the machine's byte order.
	state := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED)
	return constant("ct state established",
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: state, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)})
}

// ctPackets matches connections that have shown at least n packets. Without a
// direction the kernel adds both (nft_ct.c, nft_ct_get_eval). Comparing order,
// rather than equality, needs the bytes of both sides in network order.
func ctPackets(n uint64) term {
	return constant("ct packets >= "+strconv.FormatUint(n, 10),
		&expr.Ct{Key: expr.CtKeyPKTS, Register: reg},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 8, Size: 8},
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg, Data: binary.BigEndian.AppendUint64(nil, n)})
}

func tcpOrUDP() term {
	return term{"meta l4proto { tcp, udp }", func(b *batch) []expr.Any {
		set := b.protocolSet(unix.IPPROTO_TCP, unix.IPPROTO_UDP)
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
			&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
		}
	}}
}

// tcpFinOrRst is the cheapest of the forms that were measured. Nft lists
// "tcp flags & (fin | rst) != 0" in this shorter way.
func tcpFinOrRst() term {
	return constant("tcp flags fin,rst",
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{tcpFin | tcpRst}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{0}})
}

func flowAdd(flowtable string) term {
	return constant("flow add @"+flowtable, &expr.FlowOffload{Name: flowtable})
}

func countIn(counter string) term {
	return constant("counter name "+strconv.Quote(counter),
		&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counter})
}

func logTo(group uint16) term {
	return constant("log group "+strconv.Itoa(int(group))+
		" snaplen "+strconv.Itoa(tapSnaplen)+" queue-threshold "+strconv.Itoa(tapThreshold),
		&expr.Log{
			Key:        1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_QTHRESHOLD,
			Group:      group,
			Snaplen:    tapSnaplen,
			QThreshold: tapThreshold,
		})
}
