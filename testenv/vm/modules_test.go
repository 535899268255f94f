package vm

import (
	"slices"
	"strings"
	"testing"
)

const modulesDep = `kernel/net/netfilter/nft_ct.ko.xz: kernel/net/netfilter/nf_tables.ko.xz kernel/net/netfilter/nf_conntrack.ko.xz
kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko.xz kernel/net/netfilter/nfnetlink.ko.xz
kernel/net/netfilter/nf_conntrack.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/net/netfilter/nfnetlink.ko.xz:
kernel/lib/libcrc32c.ko.xz:
kernel/net/l2/odd-name.ko:
`

func TestModuleOrder(t *testing.T) {
	tree, err := parseModulesDep(modulesDep)
	if err != nil {
		t.Fatal(err)
	}
	order := tree.order([]string{"odd_name", "not_in_this_kernel", "nft_ct", "nf_tables"})
	if len(order) != 6 {
		t.Errorf("%d modules, want 6: %q", len(order), order)
	}
	for file, deps := range tree.deps {
		for _, dep := range deps {
			if slices.Index(order, dep) > slices.Index(order, file) {
				t.Errorf("%s comes before %s, which it needs", file, dep)
			}
		}
	}
	if list := loadList(order); strings.Contains(list, ".xz") || !strings.HasPrefix(list, "kernel/net/l2/odd-name.ko\n") {
		t.Errorf("list to load:\n%s", list)
	}
}

func TestModulesDepBroken(t *testing.T) {
	if _, err := parseModulesDep("kernel/a.ko\n"); err == nil {
		t.Error("a line without a colon: no error")
	}
}

func TestModulesOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range slices.Concat(loadedModules, offeredModules) {
		if seen[name] {
			t.Errorf("%s is listed twice", name)
		}
		seen[name] = true
	}
}
