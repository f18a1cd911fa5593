package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Nodes returns the addresses of the nodes that the programs know.
func (e *Encapsulator) Nodes() (map[netip.Addr]bool, error) {
	m := map[netip.Addr]bool{}
	var k [4]byte
	var v uint8
	it := e.objs.IpipNodes.Iterate()
	for it.Next(&k, &v) {
		m[netip.AddrFrom4(k)] = true
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list the nodes known to the eBPF programs: %w", err)
	}
	return m, nil
}

// AddNode has the programs exchange packets with a node; that they do already is no error.
func (e *Encapsulator) AddNode(a netip.Addr) error {
	if !a.Is4() {
		return fmt.Errorf("the eBPF programs take an IPv4 address, not %v", a)
	}
	if err := e.objs.IpipNodes.Put(a.As4(), uint8(1)); err != nil {
		return fmt.Errorf("tell the eBPF programs of node %v: %w", a, err)
	}
	return nil
}

// DeleteNode has the programs drop what comes from a node's address, or goes there; that
// they do already is no error.
func (e *Encapsulator) DeleteNode(a netip.Addr) error {
	if !a.Is4() {
		return nil
	}
	if err := e.objs.IpipNodes.Delete(a.As4()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("have the eBPF programs forget node %v: %w", a, err)
	}
	return nil
}
