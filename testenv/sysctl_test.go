package testenv

import (
	"errors"
	"os"
	"testing"
)

func TestSysctl(t *testing.T) {
	lab := Up(t)
	for _, test := range []struct {
		space       *Namespace
		name, value string
	}{
		{lab.Router, "net.ipv4.ip_forward", "1"},
		{lab.Client, "net.ipv4.ip_forward", "0"},
		{lab.Router, "net.netfilter.nf_conntrack_acct", "1"},
		{lab.Router, "net/ipv6/conf/wan0/forwarding", "1"},
	} {
		value, err := test.space.Sysctl(test.name)
		if value != test.value || err != nil {
			t.Errorf("%s in %s: %q, want %q (%v)", test.name, test.space.Name, value, test.value, err)
		}
	}
	const timeout = "net.netfilter.nf_conntrack_udp_timeout"
	before, err := (*Namespace)(nil).Sysctl(timeout)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Router.SetSysctl(timeout, "77"); err != nil {
		t.Fatal(err)
	}
	if value, err := lab.Router.Sysctl(timeout); value != "77" || err != nil {
		t.Errorf("after SetSysctl: %q (%v)", value, err)
	}
	if value, err := (*Namespace)(nil).Sysctl(timeout); value != before || err != nil {
		t.Errorf("outside of the namespace: %q, want %q (%v)", value, before, err)
	}
	if err := lab.Router.SetSysctl("net.no_such", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("SetSysctl of nothing: %v, want ErrNotExist", err)
	}
}
