// Package bpf loads the node's eBPF programs, attaches them to devices and owns their maps.
//
// Today that is one pair of programs: IP in IP where the kernel's module ipip is missing
// (ipip.c says how). They are clsact filters in direct-action mode (tc-bpf(8)), and nothing is
// pinned: a filter outlives the process that made it and holds its program, which holds its
// maps. The next process finds filter, program and maps again, keeps the maps with their
// contents, and puts its own program in the place of another one in a single step, so that
// there is no moment without.
//
// A filter is ours by its priority, handle and name together; other filters, and qdiscs that
// we did not make, are left alone.
//
// The compiled programs are part of the source. To make them anew, after a change of a .c
// file, run `go generate ./bpf` with clang, llvm-strip and libbpf's headers installed.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang -target bpfel,bpfeb -no-global-types ipip ipip.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
