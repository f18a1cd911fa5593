package ipam

import (
	"net/netip"

	"github.com/calicogo/calico/api"
)

const hostPrefix = "host:"

// newAffinity returns node's pending claim on cidr.
func newAffinity(node string, cidr netip.Prefix) *api.BlockAffinity {
	return &api.BlockAffinity{
		Meta: api.Named(api.KindBlockAffinity, "", AffinityName(node, cidr)),
		Spec: api.BlockAffinitySpec{State: api.AffinityPending, Node: node, Type: "host", CIDR: cidr.String()},
	}
}

// inState returns a copy of a in the given state.
func inState(a *api.BlockAffinity, s api.AffinityState) *api.BlockAffinity {
	c := *a
	c.Spec.State = s
	c.Spec.Deleted = false
	return &c
}

// ofNode tells whether the claim is that of the node, not of a load balancer's virtual one.
func ofNode(a *api.BlockAffinity, node string) bool {
	return a.Spec.Node == node && (a.Spec.Type == "" || a.Spec.Type == "host")
}

// affinityCIDR is the block that a claims; invalid if that does not parse.
func affinityCIDR(a *api.BlockAffinity) netip.Prefix {
	p, _ := parseBlockCIDR(a.Spec.CIDR)
	return p
}
