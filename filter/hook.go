package filter

import (
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// hook is a row of the one table from which base chains are compiled. Our priorities
// stand beside those of others, so that the order of tables is certain.
type hook struct {
	name  string
	base  Base
	rules func(*context) []Rule
}

// Not yet here: preDNAT (prerouting, mangle, -149), doNotTrack (raw), host endpoints and
// failsafes (input, output, and forward after the pods' rules).
var hooks = []hook{
	{chainRaw, Base{Prerouting, RawTable, -299}, (*context).raw},
	{chainInput, Base{Input, FilterTable, 1}, (*context).input},
	{chainForward, Base{Forward, FilterTable, 1}, (*context).forward},
	{chainOutput, Base{Output, FilterTable, 1}, (*context).output},
	{chainPostrouting, Base{Postrouting, NATTable, 99}, (*context).postrouting},
}

// base returns the base chains and those that they share.
func (c *context) base() map[string]*Chain {
	out := map[string]*Chain{}
	for _, h := range hooks {
		base := h.base
		out[h.name] = &Chain{Base: &base, Rules: h.rules(c)}
	}
	if c.off() {
		return out
	}
	out[chainSource] = &Chain{Rules: c.source()}
	out[chainCut] = &Chain{Rules: cutFlow()}
	out[chainWlToHost] = &Chain{Rules: c.wlToHost()}
	out[chainFromWl] = &Chain{Rules: c.fromWl()}
	out[chainToWl] = &Chain{Rules: c.toWl()}
	return out
}

// guard returns base chains to stand for the real ones while sets fill: pods open no flows.
func (c *context) guard() map[string]*Chain {
	out := map[string]*Chain{}
	for _, h := range hooks {
		if h.base.Table != FilterTable || h.base.Hook == Output || c.off() {
			continue
		}
		begins := Match{Field: ConnState, Not: true, Value: Conns(1 << dataplane.ConnEstablished)}
		rules := c.each(InIface, Rule{Match: []Match{begins}, Verdict: Drop})
		if h.base.Hook == Forward {
			rules = append(rules, c.each(OutIface, Rule{Match: []Match{begins}, Verdict: Drop})...)
		}
		base := h.base
		out[h.name] = &Chain{Base: &base, Rules: append(rules, h.rules(c)...)}
	}
	return out
}

func (c *context) raw() []Rule {
	if c.off() {
		return c.each(InIface, Rule{Verdict: Drop})
	}
	return c.each(InIface, Rule{Verdict: Goto, Target: chainSource})
}

// forward judges what comes from a pod or goes to one. It is one chain: the kernel follows
// every jump to the end, whenever a rule changes, and must not meet the pods' chains more
// often than it has to.
func (c *context) forward() []Rule {
	if c.off() {
		return c.each(OutIface, Rule{Verdict: Drop})
	}
	var other []Match
	for _, m := range slices.Concat(c.workload(InIface), c.workload(OutIface)) {
		other = append(other, not(m))
	}
	rules := append([]Rule{{Match: other, Verdict: Return}}, c.unknownOut()...)
	rules = append(rules, c.flow()...)
	rules = append(rules, c.each(InIface, Rule{Verdict: Jump, Target: chainFromWl})...)
	rules = append(rules, c.each(OutIface, Rule{Verdict: Jump, Target: chainToWl})...)
	return append(rules, Rule{Verdict: c.allow()})
}

func (c *context) input() []Rule {
	if c.off() {
		return nil // dropped in raw
	}
	return append(c.foreignTunnels(), c.each(InIface, Rule{Verdict: Goto, Target: chainWlToHost})...)
}

func (c *context) output() []Rule {
	if c.off() {
		return c.each(OutIface, Rule{Verdict: Drop})
	}
	return append(c.unknownOut(), c.each(OutIface, Rule{Verdict: c.allow()})...)
}

func (c *context) postrouting() []Rule {
	if c.off() {
		return nil
	}
	var rules []Rule
	for _, from := range c.in(SrcAddr, dataplane.SetMasqPools, Opens) {
		match := append(from, c.notIn(DstAddr, dataplane.SetAllPools, Opens)...)
		rules = append(rules, Rule{Match: match, Actions: []Action{c.natOutgoing()}})
	}
	for _, device := range c.sortedTunnels() {
		if t := c.tunnels[device]; t.Family == c.family && t.Addr.IsValid() {
			rules = append(rules, foreignSource(device, t.Addr))
		}
	}
	return rules
}

func (c *context) natOutgoing() Action {
	if c.snat.IsValid() {
		return SNAT{c.snat}
	}
	return Masquerade{}
}

// foreignSource gives the host's own packets into a tunnel the tunnel's address, so that
// answers come back through it.
func foreignSource(device string, addr netip.Addr) Rule {
	return Rule{
		Match: []Match{
			{Field: OutIface, Value: Iface{Name: device}},
			{Field: SrcAddr, Not: true, Value: prefixOf(addr)},
			{Field: SrcLocal},
		},
		Actions: []Action{Masquerade{}},
	}
}

func prefixOf(a netip.Addr) Prefix { return Prefix{netip.PrefixFrom(a, a.BitLen())} }

// source lets pass what comes from an address of the pod behind its interface. No other
// pod's interface is in the set, so one that is unknown gets nothing through.
func (c *context) source() []Rule {
	rules := []Rule{{Match: []Match{{Field: InIfaceSrc, Value: SetRef{setSources, IfaceAddrs}}}, Verdict: Return}}
	if c.set.AllowSpoofing {
		rules = append(rules, Rule{Match: []Match{{Field: InIfaceSrc, Value: SetRef{setFurther, IfaceNets}}}, Verdict: Return})
	}
	if c.family == dataplane.IPv6 {
		known := Match{Field: InIface, Value: SetRef{setIfaces, Ifaces}}
		local := Match{Field: SrcAddr, Value: c.constant(Nets, []Element{
			{Prefix: netip.MustParsePrefix("::/128")}, {Prefix: netip.MustParsePrefix("fe80::/10")},
		})}
		rules = append(rules, discovery(Return, known, local)...)
	}
	return append(rules, Rule{Verdict: Drop})
}

// discovery returns rules for the packets of neighbour discovery.
func discovery(v Verdict, also ...Match) []Rule {
	var rules []Rule
	for _, t := range dataplane.DiscoveryTypes {
		match := append([]Match{{Field: Protocol, Value: Number(dataplane.ICMP6)}, {Field: ICMP, Value: Type{Type: t}}}, also...)
		rules = append(rules, Rule{Match: match, Verdict: v})
	}
	return rules
}

// unknownOut denies what goes to a pod's interface that is not known.
func (c *context) unknownOut() []Rule {
	unknown := Match{Field: OutIface, Not: true, Value: SetRef{setIfaces, Ifaces}}
	return c.each(OutIface, Rule{Match: []Match{unknown}, Verdict: c.deny()})
}

func (c *context) wlToHost() []Rule {
	var rules []Rule
	if c.family == dataplane.IPv6 {
		rules = discovery(Accept)
	}
	rules = append(rules, c.flow()...)
	rules = append(rules, Rule{Verdict: Jump, Target: chainFromWl})
	end := c.deny()
	switch c.set.EndpointToHost {
	case dataplane.Allow:
		end = c.allow()
	case dataplane.Pass:
		end = Return
	}
	return append(rules, Rule{Verdict: end})
}

// flow judges by connection tracking. A flow that was cut stays so for whichever of its ends
// speaks, though it is established.
func (c *context) flow() []Rule {
	return []Rule{
		{Match: []Match{{Field: CtMark, Value: Bits{c.cut, c.cut}}}, Verdict: Goto, Target: chainCut},
		{Match: []Match{{Field: ConnState, Value: Conns(1 << dataplane.ConnEstablished)}}, Verdict: c.allow()},
		{Match: []Match{{Field: ConnState, Value: Conns(1 << dataplane.ConnInvalid)}}, Verdict: Drop},
	}
}

func cutFlow() []Rule {
	return []Rule{
		{Match: []Match{{Field: Protocol, Value: Number(dataplane.TCP)}}, Verdict: Reset},
		{Verdict: Drop},
	}
}

func (c *context) fromWl() []Rule {
	return append(c.podTunnels(), c.dispatch(mapFromWl)...)
}

func (c *context) toWl() []Rule { return c.dispatch(mapToWl) }

// dispatch denies what the endpoint's chain does not mark as allowed; so also what finds
// no endpoint.
func (c *context) dispatch(m string) []Rule {
	return []Rule{
		{Actions: []Action{clearMarks(c.accept | c.pass)}},
		{Verdict: Dispatch, Target: m},
		{Match: []Match{c.unmarked(c.accept)}, Verdict: c.deny()},
	}
}

// podTunnels denies packets that a pod has encapsulated itself.
func (c *context) podTunnels() []Rule {
	var rules []Rule
	if !c.set.AllowIPIPFromPod {
		rules = append(rules, Rule{Match: ipip(), Verdict: c.deny()})
	}
	if !c.set.AllowVXLANFromPod {
		rules = append(rules, Rule{Match: vxlan(c.set.VXLANPort), Verdict: c.deny()})
	}
	return rules
}

// foreignTunnels denies packets for our tunnel devices that come from no node.
func (c *context) foreignTunnels() []Rule {
	var rules []Rule
	for _, device := range c.sortedTunnels() {
		t := c.tunnels[device]
		if t.OuterFamily() != c.family {
			continue
		}
		var match []Match
		switch t.Encap {
		case dataplane.IPIP:
			match = ipip()
		case dataplane.VXLAN:
			match = vxlan(t.OuterPort(&c.set))
		default:
			continue
		}
		stranger := c.notIn(SrcAddr, dataplane.SetNodes, Opens)
		rules = append(rules, Rule{Match: append(match, stranger...), Verdict: c.deny()})
	}
	return rules
}

const protocolIPIP = 4

func ipip() []Match { return []Match{{Field: Protocol, Value: Number(protocolIPIP)}} }

func vxlan(port uint16) []Match {
	return []Match{{Field: Protocol, Value: Number(dataplane.UDP)}, {Field: DstPort, Value: Ports{Min: port, Max: port}}}
}

// each returns the rule once for each way in which the device may be a pod's.
func (c *context) each(f Field, r Rule) []Rule {
	var rules []Rule
	for _, m := range c.workload(f) {
		one := r
		one.Match = append([]Match{m}, r.Match...)
		rules = append(rules, one)
	}
	return rules
}
