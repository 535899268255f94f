package nft

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"flowd/flow"
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

// ipsConfirmed is the status of a connection whose first packet is through
// (uapi/linux/netfilter/nf_conntrack_common.h, IPS_CONFIRMED).
const ipsConfirmed = 1 << 3

// The two places where an IP header has its source address.
const (
	ip4Source, ip4Len = 12, 4
	ip6Source, ip6Len = 8, 16
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

// ctUnconfirmed matches the first packet of a connection, wherever it is going to.
// "ct state new" would match all those that come before the first reply, too.
func ctUnconfirmed() term {
	mask := binary.NativeEndian.AppendUint32(nil, ipsConfirmed)
	return constant("ct status ! confirmed",
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: make([]byte, 4)})
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

// l4proto matches one transport protocol.
func l4proto(p flow.Proto) term {
	return constant("meta l4proto "+p.String(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(p)}})
}

// toPorts and notToPorts match connections by the destination port of their original
// direction, before NAT, which packets of both directions share. The set must have a
// name: nft 1.0.6 cannot list such ports in an anonymous one. It wants the protocol
// matched before.
func toPorts(set string) term    { return ports("@"+set, set, false) }
func notToPorts(set string) term { return ports("!= @"+set, set, true) }

func ports(text, set string, invert bool) term {
	return constant("ct original proto-dst "+text,
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: reg, Direction: expr.CtDirOriginal},
		&expr.Lookup{SourceRegister: reg, SetName: set, Invert: invert})
}

// tcpFlags matches TCP packets with one of the flags. It is the cheapest of the forms
// that were measured. Nft lists "tcp flags & (fin | rst) != 0" in this shorter way.
func tcpFlags(text string, flags byte) term {
	return constant("tcp flags "+text,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{flags}, Xor: []byte{0}},
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

// setTimeout gives a connection its timeouts, if its first packet is this.
func setTimeout(name string) term {
	return constant("ct timeout set "+strconv.Quote(name),
		&expr.Objref{Type: int(objectTimeout), Name: name})
}

// overQuota4 and overQuota6 match the first packets of connections whose source
// address holds more than n with this one. It is entered in the set of its family
// when it is first seen, and leaves it when it holds none.
func overQuota4(set string, n uint32) term {
	return perSource(set, "ip saddr", n, unix.NFPROTO_IPV4, ip4Source, ip4Len)
}

func overQuota6(set string, n uint32) term {
	return perSource(set, "ip6 saddr", n, unix.NFPROTO_IPV6, ip6Source, ip6Len)
}

func perSource(set, source string, n uint32, family byte, offset, size uint32) term {
	return constant(fmt.Sprintf("add @%s { %s ct count over %d }", set, source, n),
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Dynset{SrcRegKey: reg, SetName: set, Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{connLimit(n)}})
}

// connLimit matches if there are more than n connections (NFT_CONNLIMIT_F_INV).
func connLimit(n uint32) expr.Any {
	return &expr.Connlimit{Count: n, Flags: expr.NFT_CONNLIMIT_F_INV}
}

// The verdicts that rules end with.
const (
	drops   = expr.VerdictDrop
	returns = expr.VerdictReturn
	goes    = expr.VerdictGoto
)

func verdict(kind expr.VerdictKind, chain string) term {
	text := map[expr.VerdictKind]string{drops: "drop", returns: "return", goes: "goto " + chain}[kind]
	return constant(text, &expr.Verdict{Kind: kind, Chain: chain})
}
