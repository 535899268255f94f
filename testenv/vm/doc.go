// Package vm boots stock Debian kernels under QEMU to run tests and experiments on them.
//
// A guest has no disk and no network: kernel, programs (nft, ip, conntrack, tcpdump,
// iperf3...) and the job's own files come as initramfs, its output over serial ports,
// and files back on a raw disk. It lives for one job.
//
//	k, err := vm.Prepare(ctx, "6.12")
//	...
//	res, err := k.Run(ctx, vm.Job{Script: "nft list ruleset", Stdout: os.Stdout})
//
// Kernels and programs are Debian packages from the mirror that the machine itself uses,
// fetched once and kept in a cache (see Cache).
package vm
