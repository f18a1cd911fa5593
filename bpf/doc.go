// Package bpf loads eBPF programs, attaches them to devices and owns their maps.
package bpf

import _ "github.com/cilium/ebpf" // until the first program
