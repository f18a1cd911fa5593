package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// set returns the kernel's set for one of the program. Those without intervals are hash
// tables in the kernel. They have no size: a table of a given size is allocated whole, and
// refuses more; the others grow and shrink.
func (e *encoder) set(name string, k filter.SetKind) *nftables.Set {
	addr := nftables.TypeIPAddr
	if e.family == dataplane.IPv6 {
		addr = nftables.TypeIP6Addr
	}
	s := &nftables.Set{Name: name}
	switch k {
	case filter.Addrs:
		s.KeyType = addr
	case filter.Nets:
		s.KeyType, s.Interval = addr, true
	case filter.PortRanges:
		s.KeyType, s.Interval = nftables.TypeInetService, true
	case filter.Triples:
		s.KeyType = nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService)
		s.Concatenation = true
	case filter.Ifaces:
		s.KeyType, s.KeyByteOrder = nftables.TypeIFName, binaryutil.NativeEndian
	case filter.IfaceAddrs, filter.IfaceNets:
		s.KeyType = nftables.MustConcatSetType(nftables.TypeIFName, addr)
		s.Concatenation, s.Interval = true, k == filter.IfaceNets
	}
	return s
}

// vmap returns the kernel's set for a map of the program.
func (e *encoder) vmap(name string) *nftables.Set {
	return &nftables.Set{
		Name: name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian,
		IsMap: true, DataType: nftables.TypeVerdict,
	}
}
