package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// fabricTables are what routes and tunnels are made of.
type fabricTables struct {
	fabric
	byNode   multimap[string, store.Key]  // blocks whose routes depend on the node
	holdings multimap[tunnelEnd, holding] // of which fabric.held has the least
	tunnels  map[string]dataplane.Tunnel
	vtepsOf  map[string]map[dataplane.VTEPKey]dataplane.VTEP // by node
	vteps    map[dataplane.VTEPKey]dataplane.VTEP

	claimsOf map[store.Key][]prefixClaim // by block
	claims   map[netip.Prefix][]claim    // in order: the first has the route
	dirty    keySet[netip.Prefix]
	routes   map[netip.Prefix]dataplane.Route

	overlaps []Problem // nil: to be looked for
}

func newFabricTables(g *Graph) fabricTables {
	return fabricTables{
		fabric:   fabric{self: g.self, nodes: g.nodes.rows, held: map[tunnelEnd]netip.Addr{}},
		byNode:   multimap[string, store.Key]{},
		holdings: multimap[tunnelEnd, holding]{},
		tunnels:  map[string]dataplane.Tunnel{},
		vtepsOf:  map[string]map[dataplane.VTEPKey]dataplane.VTEP{},
		vteps:    map[dataplane.VTEPKey]dataplane.VTEP{},
		claimsOf: map[store.Key][]prefixClaim{},
		claims:   map[netip.Prefix][]claim{},
		dirty:    keySet[netip.Prefix]{},
		routes:   map[netip.Prefix]dataplane.Route{},
	}
}

// settleFabric settles tunnels, their far ends and the claims of blocks. What concerns
// every route, a change of a pool, of this node or of the configuration, makes it look at
// all of them; what concerns one node or block, only at theirs.
func (g *Graph) settleFabric() {
	nodes := g.changedNodes()
	all := g.changedPools()
	if conf := fabricConfigOf(g.conf); conf != g.fabric.conf {
		g.fabric.conf, all = conf, true
	}
	blocks := g.changedBlocks(nodes)
	_, self := nodes[g.self]
	if all = all || self; all {
		g.settleTunnels()
		for n := range g.nodes.rows {
			nodes.add(n)
		}
	}
	for n := range nodes {
		g.settleVTEPs(n)
		for k := range g.fabric.byNode[n] {
			blocks.add(k)
		}
	}
	if all {
		for k := range g.blocks.rows {
			blocks.add(k)
		}
	}
	for k := range blocks {
		g.claimBlock(k)
	}
	g.fabricV6 = g.v6
}

// changedNodes keeps the set of other nodes' addresses and tells which nodes changed.
func (g *Graph) changedNodes() keySet[string] {
	changed := keySet[string]{}
	for name, was := range g.nodes.before {
		is := g.nodes.rows[name]
		if g.v6 == g.fabricV6 && (was == is || was != nil && is != nil && *was == *is) {
			continue
		}
		changed.add(name)
		if name != g.self {
			was.each(g.fabricV6, g.holdOwn(false))
			is.each(g.v6, g.holdOwn(true))
		}
	}
	g.nodes.settled()
	return changed
}

// changedPools keeps the sets of pools and tells whether a pool changed.
func (g *Graph) changedPools() bool {
	changed := false
	for name, was := range g.pools.before {
		is := g.pools.rows[name]
		if g.v6 == g.fabricV6 && (was == is || was != nil && is != nil && *was == *is) {
			continue
		}
		changed = true
		was.each(g.fabricV6, g.holdOwn(false))
		is.each(g.v6, g.holdOwn(true))
	}
	g.pools.settled()
	if changed {
		g.fabric.pools = slices.Collect(maps.Values(g.pools.rows))
		sortPools(g.fabric.pools)
		g.fabric.overlaps = nil
	}
	return changed
}

// holdOwn returns what adds a holder (in) to a member of one of the own sets, or takes one away.
func (g *Graph) holdOwn(in bool) func(dataplane.SetID, dataplane.Member) {
	return func(id dataplane.SetID, m dataplane.Member) {
		s := g.rules.live[id]
		g.rules.touchSet(s)
		s.hold(m, in)
	}
}

func (g *Graph) settleTunnels() {
	f := &g.fabric
	g.problems.set("tunnels", nodeKey(g.self), f.settle())
	for dev := range f.tunnels {
		if _, ok := f.devices[dev]; !ok {
			change(f.tunnels, g.delta.Tunnels, dev, nil)
		}
	}
	for dev, t := range f.devices {
		change(f.tunnels, g.delta.Tunnels, dev, &t)
	}
	for n := range f.vtepsOf {
		g.settleVTEPs(n)
	}
}

func (g *Graph) settleVTEPs(name string) {
	f := &g.fabric
	is := f.fabric.vteps(g.nodes.rows[name])
	for k := range f.vtepsOf[name] {
		if _, ok := is[k]; !ok {
			change(f.vteps, g.delta.VTEPs, k, nil)
		}
	}
	for k, v := range is {
		change(f.vteps, g.delta.VTEPs, k, &v)
	}
	if delete(f.vtepsOf, name); len(is) > 0 {
		f.vtepsOf[name] = is
	}
}

// changedBlocks keeps what is known of blocks by node and tells which blocks changed. It adds
// the nodes whose tunnel addresses changed with them.
func (g *Graph) changedBlocks(nodes keySet[string]) keySet[store.Key] {
	changed := keySet[store.Key]{}
	for k, was := range g.blocks.before {
		is := g.blocks.rows[k]
		var held, holds []heldAddr
		if was != nil {
			was.nodes(func(n string) { g.fabric.byNode.remove(n, k) })
			held = was.held
		}
		if is != nil {
			is.nodes(func(n string) { g.fabric.byNode.add(n, k) })
			holds = is.held
		}
		if !slices.Equal(held, holds) {
			g.fabric.rehold(k, held, holds, nodes)
		}
		changed.add(k)
		if was == nil || is == nil || was.cidr != is.cidr {
			g.fabric.overlaps = nil
		}
	}
	g.blocks.settled()
	return changed
}

// claimBlock renews the claims of a block.
func (g *Graph) claimBlock(k store.Key) {
	var is []prefixClaim
	var ps []Problem
	if b := g.blocks.rows[k]; b != nil {
		is, ps = b.claims(&g.fabric.fabric)
	}
	g.problems.set("block", k, ps)
	g.fabric.reclaim(g.fabric.claimsOf[k], is)
	if delete(g.fabric.claimsOf, k); len(is) > 0 {
		g.fabric.claimsOf[k] = is
	}
}

// claimLocal renews the claims of a local endpoint.
func (g *Graph) claimLocal(was, is *local) {
	var a, b []prefixClaim
	if was != nil {
		a = was.claims(g.wasV6)
	}
	if is != nil {
		b = is.claims(g.v6)
	}
	g.fabric.reclaim(a, b)
	for _, c := range b { // problems name the attachment, which may have changed alone
		g.fabric.dirty.add(c.prefix)
	}
}

// reclaim puts the claims is in the place of was.
func (f *fabricTables) reclaim(was, is []prefixClaim) {
	for _, c := range was {
		if slices.Contains(is, c) {
			continue
		}
		cs := slices.DeleteFunc(f.claims[c.prefix], func(x claim) bool { return x == c.claim })
		if f.claims[c.prefix] = cs; len(cs) == 0 {
			delete(f.claims, c.prefix)
		}
		f.dirty.add(c.prefix)
	}
	for _, c := range is {
		if slices.Contains(was, c) {
			continue
		}
		cs := append(f.claims[c.prefix], c.claim)
		slices.SortFunc(cs, compareClaims)
		f.claims[c.prefix] = cs
		f.dirty.add(c.prefix)
	}
}

// settleRoutes gives each prefix that something touched to its best claim.
func (g *Graph) settleRoutes() {
	f := &g.fabric
	for p := range f.dirty {
		cs := f.claims[p]
		g.duplicateAddress(p, cs)
		if len(cs) == 0 {
			change(f.routes, g.delta.Routes, p, nil)
		} else {
			change(f.routes, g.delta.Routes, p, &cs[0].route)
		}
	}
	clear(f.dirty)
}

func (g *Graph) duplicateAddress(p netip.Prefix, cs []claim) {
	k := store.Key{Kind: "Address", Name: p.String()}
	if len(cs) < 2 || cs[1].rank != rankWorkload {
		g.problems.set("address", k, nil)
		return
	}
	has := g.endpoints.locals[dataplane.Interface(cs[0].by)]
	lacks := g.endpoints.locals[dataplane.Interface(cs[1].by)]
	g.problems.set("address", k, []Problem{{lacks.object(), DuplicateAddress, fmt.Sprintf("address %v is also that of %s, which has the route", p.Addr(), has.name())}})
}

// change notes in changed that v stands at k now (nil: nothing), if that is a change.
func change[K, V comparable](now map[K]V, changed map[K]*V, k K, v *V) {
	old, had := now[k]
	switch {
	case v == nil && had:
		delete(now, k)
		changed[k] = nil
	case v != nil && (!had || old != *v):
		now[k] = *v
		n := *v
		changed[k] = &n
	}
}

// findOverlaps lists pools, and blocks, that share addresses.
func (g *Graph) findOverlaps() []Problem {
	ps := []Problem{}
	var nets []named
	for _, p := range g.pools.rows {
		nets = append(nets, named{p.cidr, store.Key{Kind: "IPPool", Name: p.name}})
	}
	ps = overlaps(ps, nets, OverlappingPool)
	nets = nil
	for k, b := range g.blocks.rows {
		nets = append(nets, named{b.cidr, k})
	}
	return overlaps(ps, nets, OverlappingBlock)
}

type named struct {
	net netip.Prefix
	key store.Key
}

// overlaps appends a problem for each net that lies inside another one.
func overlaps(ps []Problem, nets []named, r Reason) []Problem {
	slices.SortFunc(nets, func(a, b named) int {
		if c := comparePrefixes(a.net, b.net); c != 0 {
			return c
		}
		return compareProblems(Problem{Object: a.key}, Problem{Object: b.key})
	})
	var outer named
	for _, n := range nets {
		if outer.net.IsValid() && contains(outer.net, n.net) {
			ps = append(ps, Problem{n.key, r, fmt.Sprintf("%v shares addresses with %v %v; the more specific of the two decides", n.net, outer.key, outer.net)})
			continue
		}
		outer = n
	}
	return ps
}
