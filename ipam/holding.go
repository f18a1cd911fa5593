package ipam

import (
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

// Holding is an address in use, and what is kept with it.
type Holding struct {
	Allocation
	Attrs map[string]string // shared: not to be written to
}

// HoldingsOf lists the addresses of a stored block that are in use by a node, as their
// attribute api.AttrNode says, whoever owns the block. A block without any costs a look at
// its attributes.
func HoldingsOf(o *api.IPAMBlock, node string) ([]Holding, error) {
	of := func(a api.AllocAttributes) bool { return a.ReleasedAt == nil && a.Secondary[api.AttrNode] == node }
	if !slices.ContainsFunc(o.Spec.Attributes, of) {
		return nil, nil
	}
	b, err := parseBlock(o)
	if err != nil {
		return nil, err
	}
	var hs []Holding
	for ord, i := range b.obj.Spec.Allocations {
		if i == nil || !of(b.obj.Spec.Attributes[*i]) {
			continue
		}
		al := Allocation{addrAt(b.cidr, ord), b.handleOf(ord), b.sequence(ord)}
		hs = append(hs, Holding{al, b.obj.Spec.Attributes[*i].Secondary})
	}
	return hs, nil
}

// Surplus tells, from stored blocks, whether ReleaseEmptyBlocks may find some of the node's
// to give back: one in which no address is in use, beside another one of its family. It
// saves the call, which lists all blocks of the cluster, where there is nothing to gain.
func Surplus(blocks []*api.IPAMBlock, node string) bool {
	type count struct{ owned, idle int }
	counts := map[dataplane.Family]count{}
	for _, o := range blocks {
		cidr, err := parseBlockCIDR(o.Spec.CIDR)
		if err != nil || (block{cidr, o}).owner() != hostPrefix+node {
			continue
		}
		c := counts[dataplane.FamilyOf(cidr.Addr())]
		c.owned++
		if !slices.ContainsFunc(o.Spec.Attributes, func(a api.AllocAttributes) bool { return a.ReleasedAt == nil }) {
			c.idle++
		}
		counts[dataplane.FamilyOf(cidr.Addr())] = c
	}
	for _, c := range counts {
		if c.idle > 0 && c.owned > 1 {
			return true
		}
	}
	return false
}
