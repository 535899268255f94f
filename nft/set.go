package nft

import (
	"slices"
	"strconv"
	"strings"

	"flowd/flow"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A Service is what connections go to: the destination port of their original
// direction, before NAT.
type Service struct {
	Proto flow.Proto // TCP or UDP; others are ignored: their flows are not offloaded
	Port  uint16     // 0: every port
}

// A set is one wanted named set: of ports, or of the source addresses that the kernel
// puts into it.
type set struct {
	name  string
	key   nftables.SetDatatype
	ports []uint16 // sorted
}

// dynamic tells whether the kernel fills the set.
func (s set) dynamic() bool { return len(s.ports) == 0 }

// maxSources is how many source addresses of each family the quota looks after at the
// same time; nft uses it for sets of which nobody says how large they may be. Sources
// beyond it are let through.
const maxSources = 1<<16 - 1

// sets returns the wanted sets, in the order of their text.
func (r Ruleset) sets() []set {
	var sets []set
	for _, p := range offloaded {
		if ports, all := r.never(p); !all && len(ports) > 0 {
			sets = append(sets, set{neverName(p), nftables.TypeInetService, ports})
		}
	}
	for _, t := range r.Timeouts.all() {
		if len(t.ports) > 0 {
			sets = append(sets, set{t.name, nftables.TypeInetService, t.ports})
		}
	}
	if r.PerSource > 0 {
		sets = append(sets, set{r.quotaName("4"), nftables.TypeIPAddr, nil},
			set{r.quotaName("6"), nftables.TypeIP6Addr, nil})
	}
	return sets
}

// offloaded are the protocols whose flows are offloaded.
var offloaded = []flow.Proto{flow.TCP, flow.UDP}

// never returns the ports whose flows are not offloaded, sorted, each once, or that
// all are.
func (r Ruleset) never(p flow.Proto) (ports []uint16, all bool) {
	for _, s := range r.NeverOffload {
		if s.Proto == p {
			all = all || s.Port == 0
			ports = append(ports, s.Port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), all
}

// neverName is the name of the set of ports whose flows are not offloaded.
func neverName(p flow.Proto) string { return "never_" + p.String() }

// quotaName is the name of the set of source addresses of one family. The number is
// part of it: an address keeps the one with which it came into the set
// (nft_dynset_new clones the expression), so another number needs another set.
func (r Ruleset) quotaName(family string) string {
	return "quota" + family + "_" + strconv.FormatUint(uint64(r.PerSource), 10)
}

// A setState is a named set that the kernel has.
type setState struct {
	name     string
	flags    uint32 // NFT_SET_*
	key, len uint32 // type and bytes
	size     uint32 // 0: no bound
	ports    []uint16
}

// differs returns how have differs from s, or nothing.
func (s set) differs(have setState) string {
	flags, size := uint32(0), uint32(0)
	if s.dynamic() {
		flags, size = unix.NFT_SET_EVAL, maxSources
	}
	switch {
	case have.flags != flags || have.key != s.key.GetNFTMagic() || have.len != s.key.Bytes || have.size != size:
		return "is of another kind"
	case !s.dynamic() && !slices.Equal(have.ports, s.ports):
		return "holds other ports"
	}
	return ""
}

// portsInLine is how many ports nft puts in a line (nftables, src/expression.c,
// calculate_delim).
const portsInLine = 5

func (s set) String() string {
	var b strings.Builder
	b.WriteString("\tset " + s.name + " {\n\t\ttype " + s.key.Name + "\n")
	if s.dynamic() {
		b.WriteString("\t\tsize " + strconv.Itoa(maxSources) + "\n\t\tflags dynamic\n\t}\n")
		return b.String()
	}
	var lines []string
	for some := range slices.Chunk(s.ports, portsInLine) {
		var line []string
		for _, port := range some {
			line = append(line, strconv.Itoa(int(port)))
		}
		lines = append(lines, strings.Join(line, ", "))
	}
	b.WriteString("\t\telements = { " + strings.Join(lines, ",\n\t\t\t     ") + " }\n\t}\n")
	return b.String()
}
