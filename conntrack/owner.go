package conntrack

import (
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// owners are the local endpoints, and which of them have an address: mostly one.
type owners struct {
	endpoints map[dataplane.Interface]*dataplane.Endpoint
	byAddr    map[netip.Addr][]dataplane.Interface
	further   map[dataplane.Interface]*dataplane.Endpoint // those that have more addresses behind them
}

func newOwners() *owners {
	return &owners{
		endpoints: map[dataplane.Interface]*dataplane.Endpoint{}, byAddr: map[netip.Addr][]dataplane.Interface{},
		further: map[dataplane.Interface]*dataplane.Endpoint{},
	}
}

// put makes ep, or with nil nothing, what the interface is, and returns what it was.
func (o *owners) put(id dataplane.Interface, ep *dataplane.Endpoint) (old *dataplane.Endpoint) {
	old = o.endpoints[id]
	if old != nil {
		for _, a := range old.Addrs {
			rest := slices.DeleteFunc(slices.Clone(o.byAddr[a]), func(x dataplane.Interface) bool { return x == id })
			if len(rest) == 0 {
				delete(o.byAddr, a)
			} else {
				o.byAddr[a] = rest
			}
		}
	}
	delete(o.further, id)
	if ep != nil && len(ep.Sources) > 0 {
		o.further[id] = ep
	}
	if ep == nil {
		delete(o.endpoints, id)
		return old
	}
	o.endpoints[id] = ep
	for _, a := range ep.Addrs {
		if !slices.Contains(o.byAddr[a], id) {
			o.byAddr[a] = append(o.byAddr[a], id)
		}
	}
	return old
}

// mayHave tells whether the address may be behind some endpoint though it is none's own.
func (o *owners) mayHave(a netip.Addr) bool {
	for _, ep := range o.further {
		if within(a, ep.Sources) {
			return true
		}
	}
	return false
}

func within(a netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// using calls f with each endpoint that one of the policies governs. Endpoints share lists of
// policies; each list is looked at once.
func (o *owners) using(policies map[dataplane.PolicyID]bool, f func(*dataplane.Endpoint)) {
	if len(policies) == 0 {
		return
	}
	type list struct {
		first *dataplane.PolicyID
		n     int
	}
	seen := map[list]bool{}
	any := func(ids []dataplane.PolicyID) bool {
		if len(ids) == 0 {
			return false
		}
		l := list{&ids[0], len(ids)}
		has, ok := seen[l]
		if !ok {
			has = slices.ContainsFunc(ids, func(id dataplane.PolicyID) bool { return policies[id] })
			seen[l] = has
		}
		return has
	}
	governed := func(tiers []dataplane.TierPolicies) bool {
		return slices.ContainsFunc(tiers, func(t dataplane.TierPolicies) bool { return any(t.Policies) })
	}
	for _, ep := range o.endpoints {
		if governed(ep.Ingress) || governed(ep.Egress) || any(ep.Profiles) {
			f(ep)
		}
	}
}
