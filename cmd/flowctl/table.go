package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"flowd/api/flowdv1"
	"flowd/flow"
)

// table prints rows in columns. It prints as it goes: columns widen when they
// must and stay so, which keeps a listing of a million flows out of memory.
type table struct {
	w      io.Writer
	widths []int
}

func newTable(w io.Writer, header ...string) *table {
	t := &table{w: w, widths: make([]int, len(header))}
	for i, h := range header {
		t.widths[i] = len(h)
	}
	return t
}

func (t *table) fit(rows [][]string) {
	for _, row := range rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], len(cell))
		}
	}
}

func (t *table) print(rows [][]string) error {
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			if i == len(row)-1 {
				b.WriteString(cell)
				break
			}
			fmt.Fprintf(&b, "%-*s  ", t.widths[i], cell)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

var (
	header     = []string{"PROTO", "SOURCE", "DESTINATION", "STATE", "OFFLOAD", "PACKETS", "BYTES", "AGE", "IDLE", "EXPIRES"}
	wideHeader = append(header[:len(header):len(header)], "LIFETIME", "REPLY-SOURCE", "REPLY-DESTINATION", "ID", "ZONE", "MARK", "LABELS")
)

// row is a flow in the columns of header, or of wideHeader.
func row(f *flowdv1.Flow, wide bool, now time.Time) []string {
	proto := flow.Proto(f.Protocol)
	state := flow.State(f.State).String()
	if f.Candidate {
		state += ",candidate"
	}
	expires := "-"
	if f.ExpiresS != nil {
		expires = span(float64(*f.ExpiresS))
	}
	src, dst := ends(proto, f.Orig)
	cells := []string{
		proto.String(), src, dst, state, flow.Offload(f.Offload).String(),
		fmt.Sprintf("%d/%d", f.PacketsOrig, f.PacketsReply),
		size(f.BytesOrig) + "/" + size(f.BytesReply),
		span(seconds(f.StartNs, now)), span(seconds(f.SeenNs, now)), expires,
	}
	if !wide {
		return cells
	}
	src, dst = ends(proto, f.Reply)
	var labels []string
	for _, l := range f.Labels {
		labels = append(labels, strconv.Itoa(int(l)))
	}
	lifetime := span(float64(f.LifetimeS))
	if f.OwnLifetime {
		lifetime += ",own"
	}
	return append(cells, lifetime, src, dst, strconv.Itoa(int(f.Id)), strconv.Itoa(int(f.Orig.GetZone())),
		fmt.Sprintf("%#x", f.Mark), strings.Join(labels, ","))
}

// ends writes both ends of a tuple, an IPv6 address with port in brackets.
func ends(p flow.Proto, t *flowdv1.Tuple) (src, dst string) {
	src, dst = address(t.GetSrc()), address(t.GetDst())
	switch {
	case p.HasPorts():
		return withPort(src, t.GetSport()), withPort(dst, t.GetDport())
	case p == flow.ICMP || p == flow.ICMPv6:
		return fmt.Sprintf("%s id %d", src, t.GetSport()), fmt.Sprintf("%s type %d", dst, t.GetDport()>>8)
	}
	return src, dst
}

func withPort(a string, port uint32) string {
	if strings.Contains(a, ":") {
		a = "[" + a + "]"
	}
	return fmt.Sprintf("%s:%d", a, port)
}

// size writes bytes with a binary prefix, three digits or so.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatUint(n, 10)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.3g%c", v, units[i])
}

// span writes seconds as the two largest of days, hours, minutes and seconds.
func span(s float64) string {
	switch n := int64(s); {
	case s < 10:
		return fmt.Sprintf("%.1fs", s)
	case n < 60:
		return fmt.Sprintf("%ds", n)
	case n < 3600:
		return fmt.Sprintf("%dm%02ds", n/60, n%60)
	case n < 86400:
		return fmt.Sprintf("%dh%02dm", n/3600, n/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", n/86400, n/3600%24)
	}
}
