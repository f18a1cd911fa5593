package difftest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// Prefix parses s, which must be right.
func Prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// LinkLocal returns an address that neighbour discovery uses beside a node's own.
func LinkLocal(g *Gen) netip.Addr {
	return Of(g, addrs("fe80::ecee:eeff:feee:eeee", "fe80::1", "::")...)
}

// Step goes on from the state: by a small change of it, or to one that is quite another; and
// returns the way there.
func (g *Gen) Step(s **dataplane.State) *dataplane.Delta {
	if len((*s).Endpoints) == 0 || g.odds(2) {
		next := g.State()
		d := Between(*s, next)
		*s = next
		return d
	}
	d := g.Delta(*s)
	(*s).Apply(d)
	return d
}

// Delta returns a random small change of s, now and then one that changes nothing.
func (g *Gen) Delta(s *dataplane.State) *dataplane.Delta {
	d := dataplane.NewDelta()
	for range 1 + g.IntN(3) {
		g.change(s, d)
	}
	return d
}

func (g *Gen) change(s *dataplane.State, d *dataplane.Delta) {
	switch n := g.IntN(20); {
	case n == 0:
		set := g.Settings()
		d.Settings = &set
	case n == 1:
		f := Of(g, dataplane.Families[:]...)
		d.Tunnels[Tunnel] = Of(g, nil, &dataplane.Tunnel{Encap: dataplane.VXLAN, Family: f, Addr: TunnelAddr(f), Port: 4789})
	case n < 6:
		i := g.IntN(Pods)
		d.Endpoints[Iface(i)] = nil
		if !g.odds(4) {
			d.Endpoints[Iface(i)] = g.Endpoint(i)
		}
	case n < 10:
		i := g.IntN(6)
		id := dataplane.PolicyID{Kind: "NetworkPolicy", Name: fmt.Sprint("p", i)}
		if i >= 4 {
			id.Kind = "Profile"
		}
		d.Policies[id] = nil
		if !g.odds(4) {
			d.Policies[id] = g.Policy(id)
		}
	default:
		id := Of(g, append(append(setNames, tripleSets...), dataplane.SetMasqPools, dataplane.SetNodes)...)
		d.Sets[id] = nil
		if !g.odds(10) {
			d.Sets[id] = g.setDelta(s.Sets[id], id)
		}
	}
}

// setDelta adds what may be there and removes what may not be.
func (g *Gen) setDelta(have dataplane.Members, id dataplane.SetID) *dataplane.SetDelta {
	d := &dataplane.SetDelta{}
	added := map[dataplane.Member]bool{}
	for range g.IntN(4) {
		m := g.Member(id)
		if !added[m] {
			d.Add, added[m] = append(d.Add, m), true
		}
	}
	list := slices.SortedFunc(maps.Keys(have), func(a, b dataplane.Member) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	list = append(list, g.Member(id))
	for range g.IntN(4) {
		if m := Of(g, list...); !added[m] {
			d.Remove = append(d.Remove, m)
		}
	}
	return d
}

// Between returns the change from a to b.
func Between(a, b *dataplane.State) *dataplane.Delta {
	d := b.Delta()
	for id := range a.Endpoints {
		if b.Endpoints[id] == nil {
			d.Endpoints[id] = nil
		}
	}
	for id := range a.Policies {
		if b.Policies[id] == nil {
			d.Policies[id] = nil
		}
	}
	for dev := range a.Tunnels {
		if _, ok := b.Tunnels[dev]; !ok {
			d.Tunnels[dev] = nil
		}
	}
	for id, m := range a.Sets {
		if b.Sets[id] == nil {
			d.Sets[id] = nil
			continue
		}
		for x := range m {
			if _, ok := b.Sets[id][x]; !ok {
				d.Sets[id].Remove = append(d.Sets[id].Remove, x)
			}
		}
	}
	return d
}

// Logs is how often a packet is logged.
func Logs(tr dataplane.Trace) (n int) {
	for _, s := range tr.Steps {
		if s.Matched && s.Action == dataplane.Log {
			n++
		}
	}
	return n
}

// Describe prints a state for a failed test.
func Describe(s *dataplane.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "settings %+v\n", s.Settings)
	for _, id := range slices.Sorted(maps.Keys(s.Endpoints)) {
		fmt.Fprintf(&b, "endpoint %+v\n", *s.Endpoints[id])
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.Policies), dataplane.PolicyID.Compare) {
		for i, r := range s.Policies[id].Ingress {
			fmt.Fprintf(&b, "%v ingress %d %s\n", id, i, rule(r))
		}
		for i, r := range s.Policies[id].Egress {
			fmt.Fprintf(&b, "%v egress %d %s\n", id, i, rule(r))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Sets)) {
		fmt.Fprintf(&b, "set %s %v\n", id, slices.Collect(maps.Keys(s.Sets[id])))
	}
	fmt.Fprintf(&b, "tunnels %+v\n", s.Tunnels)
	return b.String()
}

func rule(r dataplane.Rule) string {
	icmp := func(i *dataplane.ICMP) string {
		if i == nil {
			return "-"
		}
		return fmt.Sprintf("%+v", *i)
	}
	return fmt.Sprintf("%v family %d proto %d !%d icmp %s !%s src %+v dst %+v",
		r.Action, r.Family, r.Protocol, r.NotProtocol, icmp(r.ICMP), icmp(r.NotICMP), r.Src, r.Dst)
}
