package calc

import (
	"net/netip"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// A node's tunnel address is in the datastore twice, written in one commit: IPAM holds it
// under the node's handle, and the Node resource says it. Where a Node resource does not,
// for somebody applied one that he wrote himself, what IPAM holds counts, and no tunnel
// goes down while the node puts the address back.

// tunnelEnd names an address of a tunnel device of a node.
type tunnelEnd struct {
	node   string
	encap  dataplane.Encap
	family dataplane.Family
}

// heldAddr is a tunnel address as a block has it.
type heldAddr struct {
	tunnelEnd
	addr netip.Addr
}

// tunnelTypes are the values of the attribute type of a tunnel's address.
var tunnelTypes = map[string]tunnelEnd{
	"ipipTunnelAddress":    {encap: dataplane.IPIP, family: dataplane.IPv4},
	"vxlanTunnelAddress":   {encap: dataplane.VXLAN, family: dataplane.IPv4},
	"vxlanV6TunnelAddress": {encap: dataplane.VXLAN, family: dataplane.IPv6},
}

// readHeld tells whether an allocation is that of a tunnel's address.
func readHeld(addr netip.Addr, attrs *api.AllocAttributes) (heldAddr, bool) {
	t := attrs.Secondary[api.AttrType]
	if t == "" { // nearly all are pods'
		return heldAddr{}, false
	}
	e, ok := tunnelTypes[t]
	e.node = attrs.Secondary[api.AttrNode]
	return heldAddr{e, addr}, ok && e.node != "" && e.family == dataplane.FamilyOf(addr)
}

// tunnelAddr is the address of a node's tunnel device; invalid if it has none yet.
func (f *fabric) tunnelAddr(n *node, e dataplane.Encap, fam dataplane.Family) netip.Addr {
	if a := n.end(fam).tunnelAddr(e); a.IsValid() {
		return a
	}
	return f.held[tunnelEnd{n.name, e, fam}]
}

// hold makes an address count for an end if none that is less does.
func hold(held map[tunnelEnd]netip.Addr, h heldAddr) {
	if a, ok := held[h.tunnelEnd]; !ok || h.addr.Less(a) {
		held[h.tunnelEnd] = h.addr
	}
}

// holding is a heldAddr's block and address: blocks that overlap may have the same.
type holding struct {
	block store.Key
	addr  netip.Addr
}

// rehold notes that block k holds the addresses is where it held was, and adds the nodes
// that it concerns to changed.
func (f *fabricTables) rehold(k store.Key, was, is []heldAddr, changed keySet[string]) {
	for _, h := range was {
		f.holdings.remove(h.tunnelEnd, holding{k, h.addr})
	}
	for _, h := range is {
		f.holdings.add(h.tunnelEnd, holding{k, h.addr})
	}
	for _, h := range append(was[:len(was):len(was)], is...) {
		before := f.held[h.tunnelEnd]
		delete(f.held, h.tunnelEnd)
		for x := range f.holdings[h.tunnelEnd] {
			hold(f.held, heldAddr{h.tunnelEnd, x.addr})
		}
		if f.held[h.tunnelEnd] != before {
			changed.add(h.node)
		}
	}
}
