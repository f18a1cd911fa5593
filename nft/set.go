package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// set returns the kernel's set for one of the program that shares none. Those without intervals are hash
// tables in the kernel. They have no size: a table of a given size is allocated whole, and
// refuses more; the others grow and shrink.
func (e *encoder) set(name string, k filter.SetKind) *nftables.Set {
	fields := e.fields(k)
	s := &nftables.Set{Name: name, KeyType: fields[0]}
	s.Interval = k == filter.Nets || k == filter.PortRanges || k == filter.IfaceNets
	if k == filter.Ifaces {
		s.KeyByteOrder = binaryutil.NativeEndian
	}
	if len(fields) > 1 {
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(fields...), true
	}
	return s
}

// fields are the types of the parts of a key.
func (e *encoder) fields(k filter.SetKind) []nftables.SetDatatype {
	addr := nftables.TypeIPAddr
	if e.family == dataplane.IPv6 {
		addr = nftables.TypeIP6Addr
	}
	switch k {
	case filter.Addrs, filter.Nets:
		return []nftables.SetDatatype{addr}
	case filter.PortRanges:
		return []nftables.SetDatatype{nftables.TypeInetService}
	case filter.Triples:
		return []nftables.SetDatatype{addr, nftables.TypeInetProto, nftables.TypeInetService}
	case filter.IfaceAddrs, filter.IfaceNets:
		return []nftables.SetDatatype{nftables.TypeIFName, addr}
	}
	return []nftables.SetDatatype{nftables.TypeIFName}
}

// vmap returns the kernel's set for a map of the program.
func (e *encoder) vmap(name string) *nftables.Set {
	return &nftables.Set{
		Name: name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian,
		IsMap: true, DataType: nftables.TypeVerdict,
	}
}
