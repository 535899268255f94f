// Package nft holds flowd's part of the nftables ruleset: the whole wanted table
// as a value (Ruleset), its text, and the one netlink transaction that makes the
// kernel agree with it.
//
// flowd owns a single table, inet flowd, and touches no other. What is applied
// serves on without flowd; it is applied again in place: neither the table, nor a
// base chain, nor a flowtable that still serves is ever deleted, since
// unregistering a hook drops every packet that waits in any NFQUEUE of the
// namespace (nf_queue_nf_hook_drop) and deleting a flowtable sends its flows back
// to the classic path.
//
// The package also says what the kernel can do (Conn.Probe), tells who changed the
// ruleset (Conn.Watch) and which devices forward (Conn.Devices).
package nft
