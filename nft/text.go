package nft

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// String returns r as nft would list it, without state:
//
//	nft -s list table inet flowd
//
// lists a new table; in one that was changed the same things may come in another
// order. It is also what nft -f loads. Only device names that nft would not read
// without quotes are quoted, which its listing does not do, and timeouts are seconds,
// without the units that later versions of nft list. The rules' stamps are not in it:
// they are told by the kernel, and not by nft.
func (r Ruleset) String() string {
	var parts []string
	for _, name := range r.counters() {
		parts = append(parts, "\tcounter "+name+" {\n\t}\n")
	}
	for _, t := range r.Timeouts.all() {
		parts = append(parts, t.String())
	}
	for _, s := range r.sets() {
		parts = append(parts, s.String())
	}
	if r.Offload {
		parts = append(parts, flowtableText(r.devices()))
	}
	for _, c := range r.chains() {
		parts = append(parts, c.String())
	}
	return "table inet " + tableName + " {\n" + strings.Join(parts, "\n") + "}\n"
}

func flowtableText(devices []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tflowtable %s {\n", flowtableName)
	fmt.Fprintf(&b, "\t\thook ingress priority %s\n", priorityText(flowtablePriority))
	if len(devices) > 0 {
		fmt.Fprintf(&b, "\t\tdevices = %s\n", listText(devices))
	}
	b.WriteString("\t\tcounter\n\t}\n")
	return b.String()
}

func (t timeout) String() string {
	var values []string
	for _, v := range t.shown() {
		values = append(values, fmt.Sprintf("%s : %d", v.text, v.seconds))
	}
	return fmt.Sprintf("\tct timeout %s {\n\t\tprotocol %s\n\t\tl3proto inet\n\t\tpolicy = { %s }\n\t}\n",
		t.name, t.proto, strings.Join(values, ", "))
}

func (c chain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.name)
	if !c.regular {
		fmt.Fprintf(&b, "\t\ttype filter hook %s", hookText(c.hook))
		switch len(c.devices) {
		case 0:
		case 1:
			fmt.Fprintf(&b, " device \"%s\"", c.devices[0])
		default:
			fmt.Fprintf(&b, " devices = %s", listText(c.devices))
		}
		fmt.Fprintf(&b, " priority %s; policy accept;\n", priorityText(c.priority))
	}
	for _, r := range c.rules {
		fmt.Fprintf(&b, "\t\t%s\n", r)
	}
	b.WriteString("\t}\n")
	return b.String()
}

// plainName is what nft reads as a name without quotes (nftables, src/scanner.l,
// string).
var plainName = regexp.MustCompile(`^[A-Za-z_.][A-Za-z0-9/_.-]*$`)

// listText lists names as nft does, but with quotes where nft could not read its
// own listing. It cannot read a device that is called like one of its keywords
// either, such as ip.
func listText(names []string) string {
	quoted := slices.Clone(names)
	for i, name := range names {
		if !plainName.MatchString(name) {
			quoted[i] = `"` + name + `"`
		}
	}
	return "{ " + strings.Join(quoted, ", ") + " }"
}

// priorityText names a priority as nft does: by the standard one, if that is at
// most 10 away (nftables, src/rule.c, prio2str). The only such name that this
// package comes near to is filter, 0.
func priorityText(priority int32) string {
	switch {
	case priority == 0:
		return "filter"
	case priority >= -10 && priority < 0:
		return fmt.Sprintf("filter - %d", -priority)
	case priority > 0 && priority <= 10:
		return fmt.Sprintf("filter + %d", priority)
	}
	return fmt.Sprint(priority)
}

func hookText(hook uint32) string {
	switch hook {
	case unix.NF_INET_FORWARD:
		return "forward"
	case inetIngress:
		return "ingress"
	}
	return fmt.Sprintf("number %d", hook)
}
