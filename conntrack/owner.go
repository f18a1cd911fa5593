package conntrack

import (
	"maps"
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

// use is why flows of endpoints that a policy governs are in question: the policy has changed, or a set that it asks.
type use struct {
	members *members // of the set that have come or gone; nil: every flow is
	loosens bool     // the change of the set only lets more pass
	ends    map[netip.Addr]bool
}

// using calls f with each endpoint that one of the policies governs, and with each of that policy's uses, once. Endpoints
// share lists of policies; each list is looked at once.
func (o *owners) using(uses map[dataplane.PolicyID][]*use, f func(*dataplane.Endpoint, *use)) {
	if len(uses) == 0 {
		return
	}
	type list struct {
		first *dataplane.PolicyID
		n     int
	}
	known := map[list]map[*use]bool{}
	of := func(ids []dataplane.PolicyID) map[*use]bool {
		if len(ids) == 0 {
			return nil
		}
		l := list{&ids[0], len(ids)}
		all, ok := known[l]
		if !ok {
			all = map[*use]bool{}
			for _, id := range ids {
				for _, u := range uses[id] {
					all[u] = true
				}
			}
			known[l] = all
		}
		return all
	}
	for _, ep := range o.endpoints {
		mine := maps.Clone(of(ep.Profiles))
		for _, tiers := range [][]dataplane.TierPolicies{ep.Ingress, ep.Egress} {
			for _, t := range tiers {
				if more := of(t.Policies); mine == nil {
					mine = maps.Clone(more)
				} else {
					maps.Copy(mine, more)
				}
			}
		}
		for u := range mine {
			f(ep, u)
		}
	}
}
