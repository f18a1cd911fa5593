package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

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

// elements returns x as elements of the kernel's set: an interval is two.
func elements(k filter.SetKind, x filter.Element) []nftables.SetElement {
	switch k {
	case filter.Addrs:
		return []nftables.SetElement{{Key: x.Prefix.Addr().AsSlice()}}
	case filter.Nets:
		return interval(x.Prefix.Addr().AsSlice(), last(x.Prefix).AsSlice())
	case filter.PortRanges:
		return interval(be16(x.Ports.Min), be16(x.Ports.Max))
	case filter.Triples:
		key := append(x.Prefix.Addr().AsSlice(), byte(x.Protocol), 0, 0, 0)
		return []nftables.SetElement{{Key: append(append(key, be16(x.Ports.Min)...), 0, 0)}}
	case filter.Ifaces:
		return []nftables.SetElement{{Key: ifName(x.Iface)}}
	}
	key := func(a netip.Addr) []byte { return append(ifName(x.Iface), a.AsSlice()...) }
	if k == filter.IfaceAddrs {
		return []nftables.SetElement{{Key: key(x.Prefix.Addr())}}
	}
	return []nftables.SetElement{{Key: key(x.Prefix.Addr()), KeyEnd: key(last(x.Prefix))}}
}

// interval returns the elements of [first, last]: the second says where it has ended. An
// interval up to the highest value has no end.
func interval(first, last []byte) []nftables.SetElement {
	out := []nftables.SetElement{{Key: first}}
	end := append([]byte(nil), last...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return append(out, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	return out
}

// last returns the highest address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// jump returns the element of a map that leads packets of a device to a chain.
func jump(iface, chain string) nftables.SetElement {
	return nftables.SetElement{Key: ifName(iface), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// maxBytes bounds the elements of one message: a netlink attribute's length has 16 bits,
// and what is beyond is lost without an error.
const maxBytes = 48 << 10

// chunks calls f with the elements in parts that fit a message.
func chunks(all []nftables.SetElement, f func([]nftables.SetElement) error) error {
	start, bytes := 0, 0
	for i := range all {
		n := size(&all[i])
		if bytes+n > maxBytes {
			if err := f(all[start:i]); err != nil {
				return err
			}
			start, bytes = i, 0
		}
		bytes += n
	}
	if start < len(all) {
		return f(all[start:])
	}
	return nil
}

// size is at least the length of the element in a message.
func size(e *nftables.SetElement) int {
	n := 40 + len(e.Key) + len(e.KeyEnd)
	if e.VerdictData != nil {
		n += 32 + len(e.VerdictData.Chain)
	}
	return n
}
