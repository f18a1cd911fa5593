package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// pool is an IPPool as far as packets between nodes are concerned. Disabled pools count:
// disabling a pool stops new allocations, not the pods that have addresses.
type pool struct {
	name  string
	cidr  netip.Prefix
	encap dataplane.Encap
	cross bool // encapsulate only between nodes of different subnets
	masq  bool // natOutgoing
}

func readPool(o *api.IPPool) (*pool, []Problem) {
	cidr, err := parseNet(o.Spec.CIDR)
	if err != nil {
		return nil, []Problem{{store.KeyOf(o), BadAddress, fmt.Sprintf("cidr: %v; the pool is left out", err)}}
	}
	p := &pool{name: o.Name, cidr: cidr, masq: o.Spec.NATOutgoing}
	switch {
	case encapsulates(o.Spec.VXLANMode):
		p.encap, p.cross = dataplane.VXLAN, o.Spec.VXLANMode == api.EncapCrossSubnet
	case encapsulates(o.Spec.IPIPMode):
		p.encap, p.cross = dataplane.IPIP, o.Spec.IPIPMode == api.EncapCrossSubnet
	}
	return p, nil
}

func encapsulates(m api.EncapMode) bool { return m != "" && m != api.EncapNever }

// fabric is all that the routes of blocks and the tunnels depend on.
type fabric struct {
	self  string
	nodes map[string]*node
	pools []*pool                  // the most specific first, then by name
	held  map[tunnelEnd]netip.Addr // tunnel addresses that IPAM has for nodes
	conf  fabricConfig
	// devices are this node's tunnel devices, made of the above by settle.
	devices map[string]dataplane.Tunnel
}

// fabricConfig is the part of the configuration that routes and tunnels depend on.
type fabricConfig struct {
	ipv6          bool
	ipipRoutes    bool // the agent, not BGP, programs the routes of IPIP pools
	noEncapRoutes bool // likewise of pools without encapsulation
	vxlan, ipip   enabled
	vni           int
	port          uint16
	mtu, mtu6     int // of VXLAN in IPv4 and IPv6
	ipipMTU       int
}

func sortPools(ps []*pool) {
	slices.SortFunc(ps, func(a, b *pool) int {
		return cmp.Or(b.cidr.Bits()-a.cidr.Bits(), cmp.Compare(a.name, b.name))
	})
}

// settle makes the tunnel devices and says what is in their way.
func (f *fabric) settle() []Problem {
	f.devices = map[string]dataplane.Tunnel{}
	var ps []Problem
	for _, fam := range dataplane.Families {
		for _, encap := range []dataplane.Encap{dataplane.VXLAN, dataplane.IPIP} {
			if !f.wants(encap, fam) {
				continue
			}
			t, lacks := f.tunnel(encap, fam)
			if lacks != "" {
				ps = append(ps, Problem{nodeKey(f.self), NoTunnel, lacks})
			}
			if t.Underlay.IsValid() && (t.Addr.IsValid() || encap == dataplane.IPIP) {
				f.devices[deviceName(encap, fam)] = t
			}
		}
	}
	return ps
}

func (f *fabric) wants(e dataplane.Encap, fam dataplane.Family) bool {
	if fam == dataplane.IPv6 && (!f.conf.ipv6 || e == dataplane.IPIP) {
		return false
	}
	switch f.enabled(e) {
	case off:
		return false
	case on:
		if fam == dataplane.IPv4 {
			return true
		}
	}
	return f.called(e, fam)
}

// called tells whether a pool calls for the encapsulation.
func (f *fabric) called(e dataplane.Encap, fam dataplane.Family) bool {
	return slices.ContainsFunc(f.pools, func(p *pool) bool { return p.encap == e && familyOf(p.cidr) == fam })
}

func (f *fabric) enabled(e dataplane.Encap) enabled {
	if e == dataplane.IPIP {
		return f.conf.ipip
	}
	return f.conf.vxlan
}

// tunnel is the device of an encapsulation, and what is wrong with it. IPIP carries pods'
// packets without an address of its own, which only the node itself needs; the routes of a
// VXLAN go to addresses.
func (f *fabric) tunnel(e dataplane.Encap, fam dataplane.Family) (t dataplane.Tunnel, lacks string) {
	name := deviceName(e, fam)
	t = dataplane.Tunnel{Encap: e, Family: fam}
	own := f.nodes[f.self]
	if own != nil {
		t.Underlay, t.Addr = own.end(fam).underlay, f.tunnelAddr(own, e, fam)
	}
	if !t.Underlay.IsValid() {
		return t, fmt.Sprintf("no %s device: this node's spec.bgp has no %v address", name, fam)
	}
	if e == dataplane.IPIP {
		t.MTU = f.conf.ipipMTU
		if !t.Addr.IsValid() && f.called(e, fam) {
			lacks = fmt.Sprintf("%s has no address: this node has no IPIP tunnel address yet; its own packets to other nodes' pods may find no way back", name)
		}
		return t, lacks
	}
	if !t.Addr.IsValid() {
		return t, fmt.Sprintf("no %s device: this node has no %v tunnel address yet", name, fam)
	}
	t.MAC, t.VNI, t.Port, t.MTU = own.end(fam).mac, f.conf.vni, f.conf.port, f.conf.mtu
	if fam == dataplane.IPv6 {
		t.MTU = f.conf.mtu6
	}
	return t, ""
}

func (e *end) tunnelAddr(encap dataplane.Encap) netip.Addr {
	if encap == dataplane.IPIP {
		return e.ipip
	}
	return e.vxlan
}

func deviceName(e dataplane.Encap, fam dataplane.Family) string {
	switch {
	case e == dataplane.IPIP:
		return dataplane.DeviceIPIP
	case fam == dataplane.IPv6:
		return dataplane.DeviceVXLANv6
	}
	return dataplane.DeviceVXLAN
}

// vteps are the ends of this node's tunnels at the other node n.
func (f *fabric) vteps(n *node) map[dataplane.VTEPKey]dataplane.VTEP {
	vs := map[dataplane.VTEPKey]dataplane.VTEP{}
	if n == nil || n.name == f.self {
		return vs
	}
	for dev, t := range f.devices {
		if v, ok := f.vtep(n, t.Encap, t.Family); ok {
			vs[dataplane.VTEPKey{Device: dev, Node: n.name}] = v
		}
	}
	return vs
}

// vtep is false for a node that lacks what the encapsulation needs. A tunnel of IPIP has
// no addresses inside: its routes name the node's own address.
func (f *fabric) vtep(n *node, encap dataplane.Encap, fam dataplane.Family) (dataplane.VTEP, bool) {
	e := n.end(fam)
	if !e.underlay.IsValid() {
		return dataplane.VTEP{}, false
	}
	if encap == dataplane.IPIP {
		return dataplane.VTEP{Underlay: e.underlay, Addr: e.underlay}, true
	}
	addr := f.tunnelAddr(n, encap, fam)
	return dataplane.VTEP{Underlay: e.underlay, Addr: addr, MAC: e.mac}, addr.IsValid()
}

// poolOf is the pool that a block belongs to; nil if there is none.
func (f *fabric) poolOf(block netip.Prefix) *pool {
	i := slices.IndexFunc(f.pools, func(p *pool) bool { return contains(p.cidr, block) })
	if i < 0 {
		return nil
	}
	return f.pools[i]
}

// hop is the route of an address of pool p (nil: of none) on the other node called to. It
// is false where there is none; the problem, if any, says why.
func (f *fabric) hop(p *pool, fam dataplane.Family, to string) (dataplane.Route, bool, *Problem) {
	encap, cross := dataplane.NoEncap, false
	if p != nil {
		encap, cross = p.encap, p.cross
	}
	if encap == dataplane.NoEncap && !f.conf.noEncapRoutes || encap == dataplane.IPIP && !f.conf.ipipRoutes {
		return dataplane.Route{}, false, nil // BGP's part
	}
	n := f.nodes[to]
	if n == nil {
		return noHop(to, NoNodeAddress, "there is no such node: no routes to its addresses")
	}
	e := n.end(fam)
	if !e.underlay.IsValid() {
		return noHop(to, NoNodeAddress, fmt.Sprintf("spec.bgp has no %v address: no routes to the node's pods", fam))
	}
	if encap == dataplane.NoEncap || cross && f.sameSubnet(e, fam) {
		return dataplane.Route{Kind: dataplane.RouteDirect, Gateway: e.underlay}, true, nil
	}
	dev := deviceName(encap, fam)
	if _, ok := f.devices[dev]; !ok || encap == dataplane.IPIP && fam == dataplane.IPv6 {
		return noHop(f.self, NoTunnel, fmt.Sprintf("no routes to pods of %v pools that need a tunnel: this node has no such device", fam))
	}
	v, ok := f.vtep(n, encap, fam)
	if !ok {
		return noHop(to, NoNodeAddress, fmt.Sprintf("no %v tunnel address: no routes to the node's pods in pools with VXLAN", fam))
	}
	return dataplane.Route{Kind: dataplane.RouteTunnel, Device: dev, Gateway: v.Addr}, true, nil
}

func noHop(node string, r Reason, msg string) (dataplane.Route, bool, *Problem) {
	return dataplane.Route{}, false, &Problem{nodeKey(node), r, msg}
}

func (f *fabric) sameSubnet(e *end, fam dataplane.Family) bool {
	own := f.nodes[f.self]
	return own != nil && own.end(fam).subnet.IsValid() && own.end(fam).subnet.Contains(e.underlay)
}

func nodeKey(name string) store.Key { return store.Key{Kind: "Node", Name: name} }

// ownSets are the sets that are there whatever the rules say.
var ownSets = [...]dataplane.SetID{dataplane.SetAllPools, dataplane.SetMasqPools, dataplane.SetNodes}

// each calls f with what the pool adds to the own sets.
func (p *pool) each(v6 bool, f func(dataplane.SetID, dataplane.Member)) {
	if p == nil || !v6 && p.cidr.Addr().Is6() {
		return
	}
	f(dataplane.SetAllPools, dataplane.Member{Prefix: p.cidr})
	if p.masq {
		f(dataplane.SetMasqPools, dataplane.Member{Prefix: p.cidr})
	}
}

// each calls f with what the node, another than this one, adds to the own sets.
func (n *node) each(v6 bool, f func(dataplane.SetID, dataplane.Member)) {
	if n == nil {
		return
	}
	for _, e := range n.ends {
		if e.underlay.IsValid() && (v6 || e.underlay.Is4()) {
			f(dataplane.SetNodes, dataplane.Member{Prefix: hostNet(e.underlay)})
		}
	}
}
