package difftest

import (
	"fmt"
	"maps"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// State returns a random state.
func (g *Gen) State() *dataplane.State {
	s := dataplane.NewState()
	s.Settings = g.Settings()
	for i := range 6 {
		kind, name := "NetworkPolicy", fmt.Sprint("p", i)
		if i >= 4 {
			kind = "Profile"
		}
		if !g.odds(12) {
			id := dataplane.PolicyID{Kind: kind, Name: name}
			s.Policies[id] = g.Policy(id)
		}
	}
	for i := range Pods - Unknown {
		if !g.odds(8) {
			s.Endpoints[Iface(i)] = g.Endpoint(i)
		}
	}
	for _, id := range setNames {
		s.Sets[id] = g.nets()
	}
	for _, id := range tripleSets {
		s.Sets[id] = g.triples()
	}
	g.wellKnown(s)
	return s
}

// Settings returns random settings.
func (g *Gen) Settings() dataplane.Settings {
	s := dataplane.DefaultSettings()
	s.EndpointToHost = Of(g, dataplane.Deny, dataplane.Allow, dataplane.Allow, dataplane.Pass)
	s.FilterAllow = Of(g, dataplane.Accept, dataplane.Accept, dataplane.Return)
	s.FilterDeny = Of(g, dataplane.Drop, dataplane.Drop, dataplane.Reject)
	s.MangleAllow = Of(g, dataplane.Accept, dataplane.Return)
	s.AllowSpoofing, s.AllowVXLANFromPod, s.AllowIPIPFromPod = g.odds(3), g.odds(3), g.odds(3)
	s.MarkMask = Of[uint32](g, 0xffff0000, 0xf, 0x8000000d, 0xffffffff)
	s.IPv6 = !g.odds(15)
	s.VXLANPort = Of[uint16](g, s.VXLANPort, s.VXLANPort, 8080)
	s.LogGroup = Of[uint16](g, 0, 0, 2)
	s.LogPrefix = Of(g, s.LogPrefix, s.LogPrefix, `it's "100%" $HOME \ -j`)
	if g.odds(6) {
		s.LogRate = dataplane.Rate{Packets: 1 + g.IntN(3), Per: dataplane.PerSecond + dataplane.Period(g.IntN(4)), Burst: 1 + g.IntN(5)}
	}
	s.InterfacePrefixes = Of(g, s.InterfacePrefixes, s.InterfacePrefixes, []string{"tap", "cali"}, []string{"cali", "cal", "cali"})
	if g.odds(5) {
		s.NATOutgoingAddr = NodeAddr(Of(g, dataplane.Families[:]...)).String()
	}
	return s
}

// wellKnown fills the sets and tunnels that do not come from policy.
func (g *Gen) wellKnown(s *dataplane.State) {
	s.Sets[dataplane.SetAllPools] = netsOf("10.65.0.0/16", "fd00:65::/32")
	if g.odds(4) {
		s.Sets[dataplane.SetAllPools] = netsOf("10.65.0.0/24", "10.65.0.0/17")
	}
	s.Sets[dataplane.SetMasqPools] = Of(g, netsOf("10.65.0.0/16", "fd00:65::/32"), netsOf("10.65.0.0/23"), dataplane.Members{})
	s.Sets[dataplane.SetNodes] = Of(g, netsOf("192.168.7.2/32", "fd00:7::2/128"), dataplane.Members{})
	if g.odds(2) {
		f := Of(g, dataplane.Families[:]...)
		s.Tunnels[Tunnel] = dataplane.Tunnel{Encap: dataplane.VXLAN, Family: f, Addr: TunnelAddr(f), Underlay: NodeAddr(f), Port: Of[uint16](g, 4789, 4789, 0, 443)}
	}
	if g.odds(3) {
		s.Tunnels[dataplane.DeviceIPIP] = dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Underlay: NodeAddr(dataplane.IPv4)}
	}
}

func netsOf(list ...string) dataplane.Members {
	m := dataplane.Members{}
	for _, s := range list {
		m[dataplane.Member{Prefix: netip.MustParsePrefix(s)}] = struct{}{}
	}
	return m
}

// Endpoint returns a random endpoint for pod i.
func (g *Gen) Endpoint(i int) *dataplane.Endpoint {
	ep := &dataplane.Endpoint{Interface: Iface(i)}
	for _, f := range dataplane.Families {
		if !g.odds(10) {
			ep.Addrs = append(ep.Addrs, PodAddr(i, f))
		}
	}
	if g.odds(10) {
		ep.Addrs = append(ep.Addrs, g.addr(Of(g, dataplane.Families[:]...))) // a second one
	}
	ep.Sources = some(g, 2, g.Net)
	ep.Ingress, ep.Egress = g.tiers(), g.tiers()
	for range g.IntN(3) {
		ep.Profiles = append(ep.Profiles, dataplane.PolicyID{Kind: "Profile", Name: Of(g, "p4", "p5")})
	}
	return ep
}

func (g *Gen) tiers() []dataplane.TierPolicies {
	var out []dataplane.TierPolicies
	order := g.Perm(4)
	for i := range g.IntN(3) {
		t := dataplane.TierPolicies{Tier: fmt.Sprint("t", i), Default: Of(g, dataplane.Deny, dataplane.Pass, dataplane.Pass)}
		for range 1 + g.IntN(2) {
			if len(order) > 0 {
				t.Policies = append(t.Policies, dataplane.PolicyID{Kind: "NetworkPolicy", Name: fmt.Sprint("p", order[0])})
				order = order[1:]
			}
		}
		if len(t.Policies) > 0 {
			out = append(out, t)
		}
	}
	return out
}

// Net returns a prefix around an address of the world.
func (g *Gen) Net() netip.Prefix {
	a := g.addr(Of(g, dataplane.Families[:]...))
	bits := a.BitLen() - Of(g, 0, 0, 0, 1, 4, 8, 9, 16, 20)
	if g.odds(25) {
		bits = 0
	}
	p := netip.PrefixFrom(a, bits)
	if g.odds(4) {
		return p // with host bits
	}
	return p.Masked()
}

func (g *Gen) addr(f dataplane.Family) netip.Addr {
	if g.odds(2) {
		return PodAddr(g.IntN(Pods), f)
	}
	return Of(g, outside[f]...)
}

// Member returns a member for the set.
func (g *Gen) Member(id dataplane.SetID) dataplane.Member {
	if id[0] != 'p' || id == dataplane.SetAllPools {
		return dataplane.Member{Prefix: g.Net()}
	}
	a := PodAddr(g.IntN(Pods), Of(g, dataplane.Families[:]...)) // few, or no packet would fit
	if g.odds(4) {
		a = g.addr(dataplane.FamilyOf(a))
	}
	return dataplane.Member{
		Prefix: netip.PrefixFrom(a, a.BitLen()), Port: Of(g, ports...),
		Protocol: Of(g, dataplane.TCP, dataplane.TCP, dataplane.UDP, dataplane.UDP, dataplane.SCTP, dataplane.UDPLite),
	}
}

// nets returns a set of prefixes: of single addresses alone, of longer ones alone, or of both.
func (g *Gen) nets() dataplane.Members {
	m, kind := g.members("s:a", 8), g.IntN(4)
	maps.DeleteFunc(m, func(x dataplane.Member, _ struct{}) bool {
		return kind == 0 && !x.Prefix.IsSingleIP() || kind == 1 && x.Prefix.IsSingleIP()
	})
	if kind == 2 { // with addresses that are in it twice
		for range 2 {
			a := g.addr(Of(g, dataplane.Families[:]...))
			for _, bits := range []int{0, 4} {
				m[dataplane.Member{Prefix: netip.PrefixFrom(a, a.BitLen()-bits)}] = struct{}{}
			}
		}
	}
	return m
}

func (g *Gen) triples() dataplane.Members { return g.members("p:http", 200) }

func (g *Gen) members(id dataplane.SetID, n int) dataplane.Members {
	m := dataplane.Members{}
	for range g.IntN(n + 1) {
		m[g.Member(id)] = struct{}{}
	}
	return m
}
