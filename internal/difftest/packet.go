package difftest

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// Probe is a packet to be sent, and the flow that it is of; nil: it opens one.
type Probe struct {
	dataplane.Packet
	Flow *Flow
}

// Flow is an entry of connection tracking that stands before its packet is sent.
type Flow struct {
	Answered bool // packets have been seen both ways: it is established
	Reply    bool // the packet is of the direction that answers
	Mark     uint32
}

// Probes returns n packets of which none belongs to the flow of another. Most are aimed
// at a rule of s, for few of those that are thrown about would hit one.
func (g *Gen) Probes(s *dataplane.State, n int) []Probe {
	used := flows{}
	var out []Probe
	for len(out) < n {
		x := Probe{Packet: g.Packet()}
		if !g.odds(4) {
			g.aim(&x.Packet, s)
		}
		if g.odds(6) {
			g.flow(&x, s.Settings.MarkMask)
		}
		if used.take(&x.Packet) {
			out = append(out, x)
		}
	}
	return out
}

// flow has the packet be of a flow that is known, and perhaps cut: of the flow's mark the bit
// that says so is set, beside any that are others'.
func (g *Gen) flow(x *Probe, mask uint32) {
	if x.Conn != dataplane.ConnNew || !x.Ports() && !x.ICMP() {
		return
	}
	x.Flow = &Flow{Answered: g.odds(2), Mark: g.Uint32() &^ mask}
	x.Flow.Reply = x.Flow.Answered && x.Ports() && g.odds(2)
	if x.Flow.Answered {
		x.Conn = dataplane.ConnEstablished
	}
	if g.odds(2) {
		_, cut, _ := filter.Marks(mask)
		x.Cut, x.Flow.Mark = true, x.Flow.Mark|cut
	}
}

// flows are those that packets are of.
type flows map[tuple]bool

// tuple is how connection tracking names a flow, in one direction.
type tuple struct {
	proto    dataplane.Protocol
	src, dst netip.AddrPort
}

// take notes the packet's flow; false: it is, or might be by translation, another packet's.
func (u flows) take(p *dataplane.Packet) bool {
	if p.ICMP() {
		return true // each has an identifier of its own
	}
	src, dst := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
	// What is translated leaves from the node, from whichever port: none other that the node gets may
	// look like its answer.
	asked := func(x netip.AddrPort) tuple { return tuple{proto: p.Protocol, dst: x} }
	there, back := tuple{p.Protocol, src, dst}, tuple{p.Protocol, dst, src}
	if u[there] || u[back] || isNode(p.Dst) && u[asked(src)] {
		return false
	}
	u[there], u[asked(dst)] = true, true
	return true
}

// aim changes the packet so that a rule of s, which it picks, most likely fits it, or just not.
func (g *Gen) aim(p *dataplane.Packet, s *dataplane.State) {
	var ep *dataplane.Endpoint
	var r *dataplane.Rule
	ingress := g.odds(2)
	for i := 0; i < 4 && r == nil; i++ {
		if ep = s.Endpoints[Iface(g.IntN(Pods-Unknown))]; ep != nil {
			r = g.ruleOf(s, ep, ingress)
		}
	}
	if r == nil {
		return
	}
	f := p.Family()
	if want := familyOf(r); want != 0 && !g.odds(8) {
		f = want
	}
	g.aimTransport(p, r, f)
	src, dst := g.within(s, &r.Src, f), g.within(s, &r.Dst, f)
	if ingress {
		dst = podAddr(ep, f)
	} else {
		src = podAddr(ep, f)
	}
	g.aimTriple(s, &r.Src, p.Protocol, &src, &p.SrcPort, !ingress)
	g.aimTriple(s, &r.Dst, p.Protocol, &dst, &p.DstPort, ingress)
	if src.IsValid() && dst.IsValid() && src != dst && !isNode(src) {
		p.Src, p.Dst, p.In, p.Out = src, dst, device(src), device(dst)
	}
}

// familyOf returns the family of the packets that a rule is about; 0: of either.
func familyOf(r *dataplane.Rule) dataplane.Family {
	switch {
	case r.Family != 0:
		return r.Family
	case r.Protocol == dataplane.ICMP4, r.ICMP != nil && r.ICMP.Type == 8:
		return dataplane.IPv4
	case r.Protocol == dataplane.ICMP6, r.ICMP != nil && r.ICMP.Type == 128:
		return dataplane.IPv6
	}
	return 0
}

// aimTriple sets the port to one that a set of named ports has with the address; and the address too, unless it
// is fixed.
func (g *Gen) aimTriple(s *dataplane.State, x *dataplane.Peer, proto dataplane.Protocol, addr *netip.Addr, port *uint16, fixed bool) {
	if !addr.IsValid() || g.odds(4) {
		return
	}
	var fit []dataplane.Member
	for _, id := range slices.Concat(x.PortSets, x.NotPortSets) {
		for m := range s.Sets[id] {
			a := m.Prefix.Addr()
			if m.Protocol == proto && a.Is4() == addr.Is4() && (!fixed || a == *addr) {
				fit = append(fit, m)
			}
		}
	}
	if len(fit) == 0 {
		return
	}
	slices.SortFunc(fit, func(a, b dataplane.Member) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Port, b.Port))
	})
	m := Of(g, fit...)
	*addr, *port = m.Prefix.Addr(), m.Port
}

// ruleOf returns one of the rules that the endpoint is under.
func (g *Gen) ruleOf(s *dataplane.State, ep *dataplane.Endpoint, ingress bool) *dataplane.Rule {
	tiers := ep.Egress
	if ingress {
		tiers = ep.Ingress
	}
	var rules []dataplane.Rule
	add := func(ids []dataplane.PolicyID) {
		for _, id := range ids {
			switch pol := s.Policies[id]; {
			case pol == nil:
			case ingress:
				rules = append(rules, pol.Ingress...)
			default:
				rules = append(rules, pol.Egress...)
			}
		}
	}
	for _, t := range tiers {
		add(t.Policies)
	}
	add(ep.Profiles)
	if len(rules) == 0 {
		return nil
	}
	return &rules[g.IntN(len(rules))]
}

func (g *Gen) aimTransport(p *dataplane.Packet, r *dataplane.Rule, f dataplane.Family) {
	switch {
	case r.ICMP != nil || r.NotICMP != nil:
		p.Protocol = f.ICMP()
	case r.Protocol != 0 && r.Protocol != dataplane.ICMP4 && r.Protocol != dataplane.ICMP6:
		p.Protocol = r.Protocol
	case r.NotProtocol != 0 && g.odds(2):
		p.Protocol = r.NotProtocol
	}
	if p.Protocol == dataplane.ICMP4 || p.Protocol == dataplane.ICMP6 {
		p.Protocol = f.ICMP()
	}
	p.Src, p.Dst = PodAddr(0, f), PodAddr(1, f) // if nothing else comes, of the right family
	p.In, p.Out = device(p.Src), device(p.Dst)
	p.SrcPort, p.DstPort, p.Type, p.Code = 0, 0, 0, 0
	g.fill(p, f)
	for _, i := range []*dataplane.ICMP{r.ICMP, r.NotICMP} {
		if i != nil && p.ICMP() && !g.odds(4) {
			p.Type, p.Code = i.Type, i.Code^uint8(g.IntN(8)/7)
		}
	}
	if p.Ports() {
		g.aimPort(&p.SrcPort, &r.Src)
		g.aimPort(&p.DstPort, &r.Dst)
	}
	p.Conn = ConnOf(p)
}

// aimPort sets the port to one at the edge of a range, inside or out.
func (g *Gen) aimPort(port *uint16, x *dataplane.Peer) {
	if all := slices.Concat(x.Ports, x.NotPorts); len(all) > 0 {
		r := Of(g, all...)
		*port = max(1, Of(g, r.Min, r.Max, r.Min-1, r.Max+1))
	} else if len(x.PortSets)+len(x.NotPortSets) > 0 {
		*port = Of(g, ports...)
	}
}

// within returns an address that the peer's nets and sets contain, if it finds one, or now and then
// any.
func (g *Gen) within(s *dataplane.State, x *dataplane.Peer, f dataplane.Family) netip.Addr {
	var all, fit []netip.Addr
	for i := range Pods {
		all = append(all, PodAddr(i, f))
	}
	all = append(all, NodeAddr(f), tunnelled(f))
	all = append(all, outside[f]...)
	for _, a := range all {
		if inNets(a, x.Nets) && inSets(s, a, x.Sets) {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 || g.odds(6) {
		fit = all
	}
	for range 2 { // a pod has policies of its own, which may say otherwise
		if a := Of(g, fit...); !strings.HasPrefix(device(a), "cali") {
			return a
		}
	}
	return Of(g, fit...)
}

func inNets(a netip.Addr, nets []netip.Prefix) bool {
	return len(nets) == 0 || slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func inSets(s *dataplane.State, a netip.Addr, ids []dataplane.SetID) bool {
	for _, id := range ids {
		found := false
		for m := range s.Sets[id] {
			found = found || m.Prefix.Contains(a)
		}
		if !found {
			return false
		}
	}
	return true
}

// device is where an address is reached; empty: it is the node's.
func device(a netip.Addr) string {
	f := dataplane.FamilyOf(a)
	for i := range Pods {
		if a == PodAddr(i, f) {
			return string(Iface(i))
		}
	}
	switch {
	case isNode(a):
		return ""
	case a == tunnelled(f):
		return Tunnel
	}
	return Uplink
}

func isNode(a netip.Addr) bool {
	f := dataplane.FamilyOf(a)
	return a == NodeAddr(f) || a == TunnelAddr(f)
}

func podAddr(ep *dataplane.Endpoint, f dataplane.Family) netip.Addr {
	for i := range Pods {
		if ep.Interface == Iface(i) {
			return PodAddr(i, f)
		}
	}
	return netip.Addr{}
}

// Packet returns a random packet that a kernel could see in the world: its interfaces
// fit its addresses, as routes do.
func (g *Gen) Packet() dataplane.Packet {
	f := Of(g, dataplane.Families[:]...)
	p := dataplane.Packet{}
	switch g.IntN(10) {
	case 0, 1:
		g.fromHost(&p, f)
	case 2, 3, 4:
		g.fromOutside(&p, f)
	default:
		g.fromPod(&p, f)
	}
	g.transport(&p, f)
	return p
}

func (g *Gen) fromPod(p *dataplane.Packet, f dataplane.Family) {
	i := g.IntN(Pods)
	p.In, p.Src = string(Iface(i)), PodAddr(i, f)
	if g.odds(8) {
		p.Src = g.addr(f) // spoofed
	}
	switch g.IntN(9) {
	case 0, 1:
		p.Dst = NodeAddr(f)
		if f == dataplane.IPv6 && g.odds(3) {
			p.Src = LinkLocal(g)
		}
	case 2, 3:
		p.Out, p.Dst = Uplink, Of(g, outside[f]...)
	case 4:
		p.Out, p.Dst = Tunnel, tunnelled(f)
	default:
		g.toPod(p, f)
	}
}

func (g *Gen) fromOutside(p *dataplane.Packet, f dataplane.Family) {
	p.In, p.Src = Uplink, Of(g, outside[f][:len(outside[f])-1]...)
	if g.odds(4) {
		p.In, p.Src = Tunnel, tunnelled(f)
	}
	if g.odds(4) {
		p.Dst = NodeAddr(f)
		return
	}
	g.toPod(p, f)
}

// toPod sends the packet to a pod, now and then the very one that it comes from, as a
// service may.
func (g *Gen) toPod(p *dataplane.Packet, f dataplane.Family) {
	i := g.IntN(Pods)
	p.Out, p.Dst = string(Iface(i)), PodAddr(i, f)
}

func (g *Gen) fromHost(p *dataplane.Packet, f dataplane.Family) {
	p.Src = Of(g, NodeAddr(f), TunnelAddr(f))
	switch g.IntN(3) {
	case 0:
		g.toPod(p, f)
	case 1:
		p.Out, p.Dst = Uplink, Of(g, outside[f][:len(outside[f])-1]...)
	case 2:
		p.Out, p.Dst = Tunnel, tunnelled(f)
	}
}

// transport fills what comes after the addresses. Ports that rules do not name are ever
// fresh ones, so that each packet opens a flow.
func (g *Gen) transport(p *dataplane.Packet, f dataplane.Family) {
	if g.odds(4) {
		p.Protocol = f.ICMP()
	} else {
		p.Protocol = Of(g, allProtos...)
	}
	g.fill(p, f)
	p.Conn = ConnOf(p)
}

// fill gives the packet what its protocol has beyond the addresses.
func (g *Gen) fill(p *dataplane.Packet, f dataplane.Family) {
	if p.Protocol == f.ICMP() {
		p.Type, p.Code = Of(g, icmpTypes...), uint8(g.IntN(2))
	}
	if p.Protocol.HasPorts() {
		g.id++
		p.SrcPort, p.DstPort = 10000+g.id%50000, Of(g, ports...)
		if g.odds(5) {
			p.SrcPort, p.DstPort = Of(g, ports...), 10000+g.id%50000
		}
	}
}

// ConnOf is what connection tracking makes of a packet that opens a flow: ICMP opens one
// only by a query, and neighbour discovery is not tracked.
func ConnOf(p *dataplane.Packet) dataplane.Conn {
	switch {
	case p.Protocol != p.Family().ICMP():
		return dataplane.ConnNew
	case p.Family() == dataplane.IPv4 && (p.Type == 8 || p.Type == 13), p.Family() == dataplane.IPv6 && p.Type == 128:
		return dataplane.ConnNew
	case p.Family() == dataplane.IPv6 && p.Type >= 130 && p.Type <= 136:
		return dataplane.ConnUntracked
	}
	return dataplane.ConnInvalid
}
