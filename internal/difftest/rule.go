package difftest

import (
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// Policy returns a random policy or profile.
func (g *Gen) Policy(id dataplane.PolicyID) *dataplane.Policy {
	p := &dataplane.Policy{ID: id}
	for range g.IntN(4) {
		p.Ingress = append(p.Ingress, g.Rule())
	}
	for range g.IntN(4) {
		p.Egress = append(p.Egress, g.Rule())
	}
	if id.Kind == "Profile" || g.odds(3) { // or nearly nothing would pass
		p.Ingress = append(p.Ingress, dataplane.Rule{Action: dataplane.Allow, Dst: dataplane.Peer{NotSets: g.sometimes(setNames...)}})
		p.Egress = append(p.Egress, dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{NotSets: g.sometimes(setNames...)}})
	}
	return p
}

// Rule returns a random rule, now and then one that contradicts itself. Most have one or two
// conditions, so that packets fit them.
func (g *Gen) Rule() dataplane.Rule {
	r := dataplane.Rule{Action: Of(g, dataplane.Allow, dataplane.Allow, dataplane.Allow, dataplane.Deny, dataplane.Deny, dataplane.Pass, dataplane.Log)}
	if g.odds(8) {
		r.Family = Of(g, dataplane.Families[:]...)
	}
	switch g.IntN(7) {
	case 0, 1:
		r.Protocol = Of(g, dataplane.TCP, dataplane.UDP, dataplane.SCTP, dataplane.UDPLite)
	case 2:
		g.icmpRule(&r)
	case 3:
		r.Protocol = Of(g, allProtos...)
	}
	if g.odds(8) {
		r.NotProtocol = Of(g, append(allProtos, dataplane.ICMP4, dataplane.ICMP6)...)
	}
	if g.odds(3) {
		r.Src = g.peer()
	}
	if g.odds(3) {
		r.Dst = g.peer()
	}
	if r.Protocol.HasPorts() && !g.odds(4) || g.odds(12) {
		g.portRule(Of(g, &r.Dst, &r.Src))
		if g.odds(10) {
			g.portRule(Of(g, &r.Dst, &r.Src))
		}
	}
	return r
}

func (g *Gen) icmpRule(r *dataplane.Rule) {
	f := Of(g, dataplane.Families[:]...)
	r.Protocol = Of(g, f.ICMP(), f.ICMP(), 0)
	if g.odds(12) {
		r.Protocol = Of(g, dataplane.ICMP4, dataplane.ICMP6)
	}
	if g.odds(2) {
		r.ICMP = g.icmp(f)
	}
	if g.odds(3) {
		r.NotICMP = g.icmp(f)
	}
}

// icmp returns a type that opens flows in the family, most often; or any.
func (g *Gen) icmp(f dataplane.Family) *dataplane.ICMP {
	i := &dataplane.ICMP{Type: Of(g, icmpTypes...), Code: uint8(g.IntN(2)), HasCode: g.odds(2)}
	if !g.odds(3) {
		i.Type = map[dataplane.Family]uint8{4: 8, 6: 128}[f]
	}
	return i
}

// icmpTypes are those that open flows, most often; others; and those of neighbour discovery.
var icmpTypes = []uint8{8, 8, 8, 13, 128, 128, 128, 0, 3, 1, 135, 136, 133, 134}

// peer returns one with one condition on addresses, or a few.
func (g *Gen) peer() (p dataplane.Peer) {
	for {
		switch g.IntN(4) {
		case 0:
			p.Nets = g.several(g.Net)
		case 1:
			p.NotNets = g.several(g.Net)
		case 2:
			p.Sets = g.sets(setNames)
		case 3:
			p.NotSets = g.sets(setNames)
		}
		if !g.odds(4) {
			return p
		}
	}
}

// several returns 1 to 4 prefixes, most often one.
func (g *Gen) several(f func() netip.Prefix) (out []netip.Prefix) {
	for out = append(out, f()); len(out) < 4 && g.odds(2); {
		out = append(out, f())
	}
	return out
}

// sets returns one of the ids, or two.
func (g *Gen) sets(ids []dataplane.SetID) (out []dataplane.SetID) {
	out = append(out, Of(g, ids...))
	if g.odds(3) {
		out = append(out, Of(g, ids...))
	}
	return out
}

// sometimes is sets, and mostly none.
func (g *Gen) sometimes(ids ...dataplane.SetID) []dataplane.SetID {
	if !g.odds(4) {
		return nil
	}
	return g.sets(ids)
}

func (g *Gen) portRule(p *dataplane.Peer) {
	named := append(slices.Clone(tripleSets), "p:none")
	for {
		switch g.IntN(4) {
		case 0:
			p.Ports = g.portRanges()
		case 1:
			p.PortSets = g.sets(named)
		case 2:
			p.NotPorts = g.portRanges()
		case 3:
			p.NotPortSets = g.sets(named)
		}
		if !g.odds(3) {
			return
		}
	}
}

// portRanges returns a few, now and then more than an iptables rule takes.
func (g *Gen) portRanges() (out []dataplane.PortRange) {
	for range 1 + g.IntN(3) {
		out = append(out, g.portRange())
	}
	if last := out[len(out)-1].Max; last < 65000 && g.odds(3) {
		out = append(out, dataplane.PortRange{Min: last + 2, Max: last + 2 + uint16(g.IntN(2))}) // but for one between
	}
	if g.odds(3) {
		for i := range 10 + g.IntN(30) { // which neither touch nor overlap
			low := uint16(2000 + 100*i)
			out = append(out, dataplane.PortRange{Min: low, Max: low + uint16(g.IntN(2))})
		}
		g.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out
}

func (g *Gen) portRange() dataplane.PortRange {
	a, b := Of(g, ports...), Of(g, ports...)
	switch {
	case g.odds(12):
		a = 0
	case g.odds(2):
		b = a
	case a > b && !g.odds(10):
		a, b = b, a
	}
	return dataplane.PortRange{Min: a, Max: b}
}
