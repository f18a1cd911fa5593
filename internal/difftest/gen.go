// Package difftest makes random node states and packets, and holds that every
// implementation of policy gives them one verdict: dataplane.Eval, filter's Trace, and
// nftables in a real kernel.
package difftest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
)

// Seed returns the seed of a random test: that of the environment's DIFFTEST_SEED, or one
// of the clock. It is printed if the test fails.
func Seed(t testing.TB) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DIFFTEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("DIFFTEST_SEED=%q: not a number", s)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with DIFFTEST_SEED=%d", seed)
		}
	})
	return seed
}

// Count is the number of rounds: that of the environment's variable, or n.
func Count(t testing.TB, variable string, n int) int {
	s := os.Getenv(variable)
	if s == "" {
		return n
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%q: not a number", variable, s)
	}
	return n
}

// Gen makes random states and packets. They are of a small world, so that rules and
// packets meet: some pods, some addresses outside, few ports and protocols.
type Gen struct {
	*rand.Rand
	id uint16 // for fresh ports
}

// NewGen returns a Gen; equal seeds give equal sequences.
func NewGen(seed uint64) *Gen { return &Gen{Rand: rand.New(rand.NewPCG(seed, 1))} }

// Pods is the number of pods' interfaces in a world. The last ones are known in no state.
const (
	Pods    = 6
	Unknown = 1
)

// Iface is the interface of pod i.
func Iface(i int) dataplane.Interface { return dataplane.Interface(fmt.Sprintf("cali%d", i)) }

// Uplink is the device to the world outside, Tunnel one that looks like a tunnel's.
const (
	Uplink = "eth0"
	Tunnel = dataplane.DeviceVXLAN
)

// PodAddr is the address of pod i.
func PodAddr(i int, f dataplane.Family) netip.Addr {
	if f == dataplane.IPv4 {
		return netip.AddrFrom4([4]byte{10, 65, byte(i / 2), byte(10 + i)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:65::%x:%x", i/2, 10+i))
}

// NodeAddr is the address of the node on the uplink; TunnelAddr that of its tunnel.
func NodeAddr(f dataplane.Family) netip.Addr {
	return pick2(f, "192.168.7.1", "fd00:7::1")
}

func TunnelAddr(f dataplane.Family) netip.Addr { return pick2(f, "10.65.9.1", "fd00:65::9:1") }

// tunnelled is an address beyond the tunnel.
func tunnelled(f dataplane.Family) netip.Addr { return pick2(f, "10.66.0.1", "fd00:66::1") }

func pick2(f dataplane.Family, four, six string) netip.Addr {
	if f == dataplane.IPv4 {
		return netip.MustParseAddr(four)
	}
	return netip.MustParseAddr(six)
}

// outside are addresses beyond the uplink: other nodes, pods there, the world.
var outside = map[dataplane.Family][]netip.Addr{
	dataplane.IPv4: addrs("192.168.7.2", "192.168.7.3", "10.65.200.5", "10.65.200.6", "10.65.77.1", "8.8.8.8", "172.16.3.4", "10.65.255.255"),
	dataplane.IPv6: addrs("fd00:7::2", "fd00:7::3", "fd00:65::200:5", "fd00:65::200:6", "fd00:65::77:1", "2001:db8::8", "2001:db8:1::4"),
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// Of returns one of xs.
func Of[T any](g *Gen, xs ...T) T { return xs[g.IntN(len(xs))] }

// some returns up to n values of f, and often none.
func some[T any](g *Gen, n int, f func() T) (out []T) {
	if g.IntN(3) > 0 {
		return nil
	}
	for range 1 + g.IntN(n) {
		out = append(out, f())
	}
	return out
}

// odds is true once in n.
func (g *Gen) odds(n int) bool { return g.IntN(n) == 0 }

var (
	setNames   = []dataplane.SetID{"s:a", "s:b", "s:c"}
	tripleSets = []dataplane.SetID{"p:http", "p:dns"}
	ports      = []uint16{1, 53, 80, 81, 443, 4789, 8080, 65535}
	allProtos  = []dataplane.Protocol{
		dataplane.TCP, dataplane.TCP, dataplane.UDP, dataplane.UDP, dataplane.SCTP, dataplane.UDPLite, 4, 89, 253,
	}
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
	s.AllowSpoofing, s.AllowVXLANFromPod, s.AllowIPIPFromPod = g.odds(3), g.odds(3), g.odds(3)
	s.MarkMask = Of[uint32](g, 0xffff0000, 0xf, 0x8000000d, 0xffffffff)
	s.IPv6 = !g.odds(15)
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
		s.Tunnels[Tunnel] = dataplane.Tunnel{Encap: dataplane.VXLAN, Family: f, Addr: TunnelAddr(f), Underlay: NodeAddr(f), Port: 4789}
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

// Rule returns a random rule, now and then one that contradicts itself.
func (g *Gen) Rule() dataplane.Rule {
	r := dataplane.Rule{Action: Of(g, dataplane.Allow, dataplane.Allow, dataplane.Allow, dataplane.Deny, dataplane.Pass, dataplane.Log)}
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
	r.Src, r.Dst = g.peer(), g.peer()
	if r.Protocol.HasPorts() && g.odds(2) || g.odds(20) {
		g.portRule(Of(g, &r.Dst, &r.Dst, &r.Src))
	}
	return r
}

func (g *Gen) icmpRule(r *dataplane.Rule) {
	r.Protocol = Of(g, dataplane.ICMP4, dataplane.ICMP6, 0)
	if g.odds(2) {
		r.ICMP = g.icmp()
	}
	if g.odds(3) {
		r.NotICMP = g.icmp()
	}
}

func (g *Gen) icmp() *dataplane.ICMP {
	return &dataplane.ICMP{Type: Of(g, icmpTypes...), Code: uint8(g.IntN(2)), HasCode: g.odds(2)}
}

var icmpTypes = []uint8{0, 3, 8, 8, 13, 128, 128, 1, 135, 136, 133, 134}

func (g *Gen) peer() dataplane.Peer {
	return dataplane.Peer{
		Nets: g.twice(g.Net), NotNets: g.twice(g.Net),
		Sets: g.sometimes(setNames...), NotSets: g.sometimes(setNames...),
	}
}

// sometimes is one or two of the ids, and mostly none.
func (g *Gen) sometimes(ids ...dataplane.SetID) []dataplane.SetID {
	if g.odds(2) {
		return nil
	}
	return some(g, 2, func() dataplane.SetID { return Of(g, ids...) })
}

// twice is some, more rarely.
func (g *Gen) twice(f func() netip.Prefix) []netip.Prefix {
	if g.odds(2) {
		return nil
	}
	return some(g, 4, f)
}

func (g *Gen) portRule(p *dataplane.Peer) {
	sets := func() dataplane.SetID { return Of(g, append(tripleSets, "p:none")...) }
	p.Ports, p.PortSets = some(g, 4, g.portRange), some(g, 2, sets)
	p.NotPorts, p.NotPortSets = some(g, 3, g.portRange), some(g, 1, sets)
}

func (g *Gen) portRange() dataplane.PortRange {
	a, b := Of(g, ports...), Of(g, ports...)
	switch {
	case g.odds(2):
		b = a
	case a > b && !g.odds(10):
		a, b = b, a
	}
	return dataplane.PortRange{Min: a, Max: b}
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

func (g *Gen) nets() dataplane.Members    { return g.members("s:a", 6) }
func (g *Gen) triples() dataplane.Members { return g.members("p:http", 200) }

func (g *Gen) members(id dataplane.SetID, n int) dataplane.Members {
	m := dataplane.Members{}
	for range g.IntN(n + 1) {
		m[g.Member(id)] = struct{}{}
	}
	return m
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
		p.Protocol, p.Type, p.Code = f.ICMP(), Of(g, icmpTypes...), uint8(g.IntN(2))
	} else {
		p.Protocol = Of(g, allProtos...)
	}
	if p.Protocol.HasPorts() {
		g.id++
		p.SrcPort, p.DstPort = 10000+g.id%50000, Of(g, ports...)
		if g.odds(5) {
			p.SrcPort, p.DstPort = Of(g, ports...), 10000+g.id%50000
		}
	}
	p.Conn = ConnOf(p)
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
