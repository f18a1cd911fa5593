package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// block is an IPAMBlock as far as routes are concerned.
type block struct {
	key   store.Key
	cidr  netip.Prefix
	owner string                // the node whose block it is; empty: nobody's
	away  map[netip.Addr]string // addresses in use on a node that is not owner
	held  []heldAddr            // addresses of nodes' tunnels
}

// readBlock reads a stored block; nil if there is nothing to route.
func readBlock(o *api.IPAMBlock) (*block, []Problem) {
	if o.Spec.Deleted {
		return nil, nil
	}
	key := store.KeyOf(o)
	cidr, err := parseNet(o.Spec.CIDR)
	if err != nil {
		return nil, []Problem{{key, BadBlock, fmt.Sprintf("cidr: %v; there are no routes to its addresses", err)}}
	}
	b := &block{key: key, cidr: cidr}
	if a := o.Spec.Affinity; a != nil {
		b.owner, _ = strings.CutPrefix(*a, "host:")
		if b.owner == *a {
			b.owner = "" // virtual: no node's
		}
	}
	return b, b.readAllocations(&o.Spec)
}

func (b *block) readAllocations(spec *api.IPAMBlockSpec) []Problem {
	var ps []Problem
	for ord, attr := range spec.Allocations {
		if attr == nil {
			continue
		}
		addr, ok := nthAddr(b.cidr, ord)
		if !ok || *attr < 0 || *attr >= len(spec.Attributes) {
			ps = append(ps, Problem{b.key, BadBlock, fmt.Sprintf("allocation %d is outside of the block or names attributes that are not there; it has no route of its own", ord)})
			continue
		}
		a := &spec.Attributes[*attr]
		if a.ReleasedAt != nil {
			continue
		}
		if h, ok := readHeld(addr, a); ok {
			b.held = append(b.held, h)
		}
		if n := a.Secondary[api.AttrNode]; n != "" && n != b.owner {
			if b.away == nil {
				b.away = map[netip.Addr]string{}
			}
			b.away[addr] = n
		}
	}
	return ps
}

// nodes calls f with every node that routes of the block depend on.
func (b *block) nodes(f func(string)) {
	if b.owner != "" {
		f(b.owner)
	}
	for _, n := range b.away {
		f(n)
	}
}

// claim is a wish for a route. The state has one route a prefix; the least claim has it.
type claim struct {
	rank  claimRank
	age   int64  // among workloads the newest record wins
	by    string // decides where nothing else does
	route dataplane.Route
}

type claimRank uint8

const (
	rankWorkload claimRank = iota // a pod of this node
	rankAddress                   // a single address, in use away from its block's node
	rankBlock
)

func compareClaims(a, b claim) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.age, a.age), cmp.Compare(a.by, b.by))
}

// prefixClaim is a claim and what it claims.
type prefixClaim struct {
	prefix netip.Prefix
	claim
}

// claims are the routes that the block asks for on this node.
func (b *block) claims(f *fabric) ([]prefixClaim, []Problem) {
	fam := familyOf(b.cidr)
	if fam == dataplane.IPv6 && !f.conf.ipv6 {
		return nil, nil
	}
	var cs []prefixClaim
	var ps []Problem
	p := f.poolOf(b.cidr)
	if p == nil {
		ps = append(ps, Problem{b.key, NoPool, "no pool contains the block: it is routed without encapsulation"})
	}
	claimFor := func(rank claimRank, prefix netip.Prefix, node string) {
		r, ok, problem := f.hop(p, fam, node)
		if ok {
			cs = append(cs, prefixClaim{prefix, claim{rank: rank, by: b.key.Name, route: r}})
		}
		if problem != nil {
			ps = append(ps, *problem)
		}
	}
	switch b.owner {
	case "":
	case f.self:
		cs = append(cs, prefixClaim{b.cidr, claim{rank: rankBlock, by: b.key.Name, route: dataplane.Route{Kind: dataplane.RouteBlackhole}}})
	default:
		claimFor(rankBlock, b.cidr, b.owner)
	}
	for a, n := range b.away {
		if n != f.self {
			claimFor(rankAddress, hostNet(a), n)
		}
	}
	return cs, ps
}

// claims are the routes that a local endpoint asks for.
func (l *local) claims(v6 bool) []prefixClaim {
	var cs []prefixClaim
	for _, a := range l.addrs {
		if v6 || a.Is4() {
			r := dataplane.Route{Kind: dataplane.RouteWorkload, Device: string(l.att.Interface)}
			cs = append(cs, prefixClaim{hostNet(a), claim{rankWorkload, recordRevision(l.att), string(l.att.Interface), r}})
		}
	}
	return cs
}
