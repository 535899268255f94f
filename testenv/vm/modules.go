package vm

import (
	"fmt"
	"path"
	"strings"
)

// loadedModules are loaded by every guest before its script, each after what it depends
// on: what connection tracking, flowtables and the guest's own disk need, and tun, which
// has no /dev/net/tun before. A kernel that has one of them built in, or not at all, goes
// without.
var loadedModules = strings.Fields(`
	virtio_pci virtio_blk
	nf_conntrack nf_conntrack_netlink nf_nat nf_tables nf_log_syslog
	nfnetlink_log nfnetlink_queue nfnetlink_cttimeout
	nf_flow_table nf_flow_table_inet nft_flow_offload nft_counter nft_objref
	nft_ct nft_log nft_queue nft_chain_nat nft_nat nft_masq nft_redir nft_limit nft_reject_inet
	nft_dup_netdev nft_fwd_netdev
	veth tun`)

// offeredModules are in the guest with what they depend on, and are loaded when something
// asks for them: the kernel for a rule, a kind of link or a socket, or modprobe.
// Loading takes 30 to 50 ms each where the processor is emulated, mostly to verify the
// signature; some also make devices in every namespace or change what others do.
var offeredModules = strings.Fields(`
	nf_conntrack_ftp nf_conntrack_sip nf_conntrack_tftp nf_conntrack_pptp nf_conntrack_h323 nf_conntrack_irc
	nf_nat_ftp nf_nat_sip nf_nat_tftp nf_nat_pptp nf_nat_h323 nf_nat_irc nf_conntrack_bridge
	nft_connlimit nft_quota nft_reject nft_reject_ipv4 nft_reject_ipv6 nft_reject_netdev nft_reject_bridge
	nft_dup_ipv4 nft_dup_ipv6 nft_numgen nft_hash nft_fib nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_fib_netdev
	nft_socket nft_tproxy nft_synproxy nft_tunnel nft_osf nft_meta_bridge nft_xfrm nft_compat
	nfnetlink_cthelper nfnetlink_hook nfnetlink_osf nfnetlink_acct
	dummy bridge br_netfilter 8021q bonding team macvlan macvtap ipvlan vrf ifb nlmon netdevsim
	wireguard pppoe ppp_generic l2tp_eth l2tp_ip l2tp_netlink pktgen
	ipip ip_gre ip6_gre ip6_tunnel sit vxlan geneve xfrm_user xfrm_interface esp4 esp6
	sch_ingress sch_netem sch_htb sch_tbf sch_fq sch_fq_codel sch_cake sch_prio sch_red
	cls_flower cls_matchall cls_u32 cls_bpf cls_fw
	act_mirred act_gact act_ct act_police act_skbedit act_connmark act_vlan act_pedit act_csum
	x_tables ip_set xt_conntrack xt_mark xt_connmark xt_comment xt_multiport xt_addrtype xt_nat
	xt_MASQUERADE xt_NFQUEUE xt_NFLOG xt_CT xt_TCPMSS xt_tcpmss xt_FLOWOFFLOAD xt_set
	tcp_bbr sctp sctp_diag tcp_diag udp_diag inet_diag overlay`)

// moduleOptions is the guest's /etc/modprobe.d: no devices that nobody has asked for.
const moduleOptions = "options bonding max_bonds=0\noptions ifb numifbs=0\noptions dummy numdummies=0\n"

// moduleTree knows the modules of one kernel: where they are and what they depend on.
type moduleTree struct {
	paths map[string]string   // module name: path below lib/modules/RELEASE
	deps  map[string][]string // path: paths it needs, in the order in which depmod wrote them
}

// parseModulesDep reads modules.dep as depmod writes it: "path: dependency dependency...".
func parseModulesDep(text string) (moduleTree, error) {
	t := moduleTree{paths: map[string]string{}, deps: map[string][]string{}}
	for line := range strings.Lines(text) {
		file, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return t, fmt.Errorf("modules.dep: no colon in %q", line)
		}
		t.paths[moduleName(file)] = file
		t.deps[file] = strings.Fields(deps)
	}
	return t, nil
}

// moduleName makes the name that the kernel uses of the path of a file:
// kernel/net/sched/act-ct.ko.xz is act_ct.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// order returns the paths of the named modules and of all they need, every one after
// those it needs. Names that this kernel does not have as a module are left out.
func (t moduleTree) order(names []string) []string {
	var out []string
	seen := map[string]bool{}
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, dep := range t.deps[file] {
			visit(dep)
		}
		out = append(out, file)
	}
	for _, name := range names {
		if file, ok := t.paths[name]; ok {
			visit(file)
		}
	}
	return out
}
