package filter

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// policy returns the chain of a policy's direction. A policy that is not there has no
// rules.
func (c *context) policy(pol *dataplane.Policy, ingress bool) *Chain {
	ch := &Chain{}
	if pol == nil {
		return ch
	}
	from := pol.Egress
	if ingress {
		from = pol.Ingress
	}
	for i := range from {
		ch.Rules = append(ch.Rules, c.rules(&from[i], sense(from[i:]))...)
		if from[i].Action == dataplane.Pass && matchesSets(&from[i]) {
			ch.Rules = append(ch.Rules, c.undecided(&from[i])...)
		}
	}
	return ch
}

// undecided returns the rules behind those of a Pass rule that matches sets. Whether a packet more
// that passes on is one more or one less in the end, nobody knows; so it passes on by sets that
// open, and who is in those that close but not, or not yet, in those that open is dropped.
// Both have the same members but in the midst of a change.
func (c *context) undecided(r *dataplane.Rule) []Rule {
	drop := c.rules(r, Closes)
	for i := range drop {
		drop[i].Actions, drop[i].Verdict = nil, Drop
	}
	return drop
}

func matchesSets(r *dataplane.Rule) bool {
	n := 0
	for _, x := range []*dataplane.Peer{&r.Src, &r.Dst} {
		n += len(x.Sets) + len(x.NotSets) + len(x.PortSets) + len(x.NotPortSets)
	}
	return n > 0
}

// sense is that of the first of rules: whether it lets pass what it matches. A Log rule has
// that of the one that it most likely goes with, so that they share sets.
func sense(rules []dataplane.Rule) Sense {
	for i := range rules {
		switch rules[i].Action {
		case dataplane.Log:
		case dataplane.Allow, dataplane.Pass:
			return Opens
		default:
			return Closes
		}
	}
	return Closes
}

// rules returns the rules that together do what r does: none if r cannot match in this
// family, several where conditions are or-ed. At most one of them logs a packet.
func (c *context) rules(r *dataplane.Rule, s Sense) []Rule {
	conditions, ok := c.conditions(r, s)
	if !ok {
		return nil
	}
	if r.Action == dataplane.Log {
		for i := range conditions {
			conditions[i] = disjoint(conditions[i])
		}
	}
	var out []Rule
	for _, match := range product(slices.Insert(conditions, 0, protocols(r))) {
		one := c.effect(r.Action)
		one.Match = match
		out = append(out, one)
	}
	return out
}

// product returns every way to choose one alternative of each condition.
func product(conditions [][][]Match) [][]Match {
	out := [][]Match{nil}
	for _, alternatives := range conditions {
		var longer [][]Match
		for _, have := range out {
			for _, a := range alternatives {
				longer = append(longer, slices.Concat(have, a))
			}
		}
		out = longer
	}
	return out
}

// effect returns what a policy's rule does.
func (c *context) effect(a dataplane.Action) Rule {
	switch a {
	case dataplane.Allow:
		return Rule{Actions: []Action{setMark(c.accept)}, Verdict: Return}
	case dataplane.Pass:
		return Rule{Actions: []Action{setMark(c.pass)}, Verdict: Return}
	case dataplane.Log:
		return Rule{Actions: []Action{Log{Prefix: c.set.LogPrefix + ": ", Group: c.set.LogGroup, Rate: c.set.LogRate}}}
	}
	return Rule{Verdict: c.deny()}
}

// protocols returns the alternatives of the protocol's match; nil matches: any protocol.
// A condition on ports or ICMP implies one.
func protocols(r *dataplane.Rule) [][]Match {
	is := func(p dataplane.Protocol) Match { return Match{Field: Protocol, Value: Number(p)} }
	var not []Match
	if r.NotProtocol != 0 {
		not = []Match{{Field: Protocol, Not: true, Value: Number(r.NotProtocol)}}
	}
	switch {
	case r.Protocol != 0:
		return [][]Match{append([]Match{is(r.Protocol)}, not...)}
	case matchesPorts(&r.Src) || matchesPorts(&r.Dst):
		var out [][]Match
		for _, p := range withPorts {
			if p != r.NotProtocol {
				out = append(out, []Match{is(p)})
			}
		}
		return out
	}
	return [][]Match{not}
}

var withPorts = []dataplane.Protocol{dataplane.TCP, dataplane.UDP, dataplane.SCTP, dataplane.UDPLite}

func matchesPorts(x *dataplane.Peer) bool {
	return len(x.Ports)+len(x.PortSets)+len(x.NotPorts)+len(x.NotPortSets) > 0
}

// conditions returns r's but for the protocol's, each as its alternatives; false: the rule
// matches nothing.
func (c *context) conditions(r *dataplane.Rule, s Sense) ([][][]Match, bool) {
	if r.Family != 0 && r.Family != c.family {
		return nil, false
	}
	ports := matchesPorts(&r.Src) || matchesPorts(&r.Dst)
	if ports && r.Protocol != 0 && !r.Protocol.HasPorts() {
		return nil, false
	}
	icmp, ok := c.icmp(r)
	if !ok || ports && icmp != nil {
		return nil, false
	}
	src, ok1 := c.addr(&r.Src, SrcAddr, s)
	dst, ok2 := c.addr(&r.Dst, DstAddr, s)
	srcPorts, ok3 := c.ports(&r.Src, SrcPort, SrcTriple, s)
	dstPorts, ok4 := c.ports(&r.Dst, DstPort, DstTriple, s)
	return slices.Concat([][][]Match{{icmp}}, src, dst, [][][]Match{srcPorts, dstPorts}), ok1 && ok2 && ok3 && ok4
}

func (c *context) icmp(r *dataplane.Rule) ([]Match, bool) {
	if r.ICMP == nil && r.NotICMP == nil {
		return nil, true
	}
	p := c.family.ICMP()
	if r.Protocol != 0 && r.Protocol != p {
		return nil, false
	}
	match := []Match{{Field: Protocol, Value: Number(p)}}
	if r.ICMP != nil {
		match = append(match, Match{Field: ICMP, Value: Type(*r.ICMP)})
	}
	if r.NotICMP != nil {
		match = append(match, Match{Field: ICMP, Not: true, Value: Type(*r.NotICMP)})
	}
	return match, true
}

// addr returns the conditions of a peer's address; false: it matches nothing.
func (c *context) addr(x *dataplane.Peer, f Field, s Sense) ([][][]Match, bool) {
	var all []Match
	if len(x.Nets) > 0 {
		switch in := c.nets(x.Nets); {
		case len(in) == 0:
			return nil, false
		case in[0].Prefix.Bits() > 0:
			all = append(all, Match{Field: f, Value: c.netsValue(in)})
		}
	}
	if in := c.nets(x.NotNets); len(in) > 0 {
		all = append(all, Match{Field: f, Not: true, Value: c.netsValue(in)})
	}
	for _, id := range x.NotSets {
		all = append(all, c.notIn(f, id, s.inverse())...)
	}
	out := [][][]Match{{all}}
	for _, id := range x.Sets {
		out = append(out, c.in(f, id, s))
	}
	return out, true
}

// nets returns the family's prefixes of a list, sorted, without those that another one
// contains.
func (c *context) nets(list []netip.Prefix) []Element {
	var in []netip.Prefix
	for _, p := range list {
		if p.IsValid() && dataplane.FamilyOf(p.Addr()) == c.family {
			in = append(in, p.Masked())
		}
	}
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []Element
	for _, p := range in {
		if n := len(out); n == 0 || !out[n-1].Prefix.Contains(p.Addr()) {
			out = append(out, Element{Prefix: p})
		}
	}
	return out
}

func (c *context) netsValue(in []Element) Value {
	if len(in) == 1 {
		return Prefix{in[0].Prefix}
	}
	return c.constant(Nets, in)
}

// ports returns the alternatives of the match of a peer's ports; false: it matches
// nothing.
func (c *context) ports(x *dataplane.Peer, port, triple Field, s Sense) ([][]Match, bool) {
	var not []Match
	if in := ranges(x.NotPorts); len(in) > 0 {
		not = append(not, Match{Field: port, Not: true, Value: c.portsValue(in)})
	}
	for _, id := range x.NotPortSets {
		not = append(not, Match{Field: triple, Not: true, Value: c.ref(id, Triples, s.inverse())})
	}
	if len(x.Ports)+len(x.PortSets) == 0 {
		if len(not) == 0 && matchesPorts(x) {
			not = []Match{{Field: port, Value: Ports{0, 65535}}} // none excluded, but it must have a port
		}
		return [][]Match{not}, true
	}
	var out [][]Match
	if in := ranges(x.Ports); len(in) > 0 {
		out = append(out, append([]Match{{Field: port, Value: c.portsValue(in)}}, not...))
	}
	for _, id := range x.PortSets {
		out = append(out, append([]Match{{Field: triple, Value: c.ref(id, Triples, s)}}, not...))
	}
	return out, len(out) > 0
}

// disjoint adds to each alternative that none before it holds. The first match of an
// alternative is what tells it from the others.
func disjoint(alternatives [][]Match) [][]Match {
	out := [][]Match{}
	for i, a := range alternatives {
		one := slices.Clone(a)
		for _, before := range alternatives[:i] {
			one = append(one, not(before[0]))
		}
		out = append(out, one)
	}
	return out
}

// ranges returns the ranges sorted, and those that overlap or touch as one.
func ranges(list []dataplane.PortRange) []Element {
	in := slices.DeleteFunc(slices.Clone(list), func(r dataplane.PortRange) bool { return r.Min > r.Max })
	slices.SortFunc(in, func(a, b dataplane.PortRange) int { return cmp.Compare(a.Min, b.Min) })
	var out []Element
	for _, r := range in {
		if n := len(out); n > 0 && int(r.Min) <= int(out[n-1].Ports.Max)+1 {
			out[n-1].Ports.Max = max(out[n-1].Ports.Max, r.Max)
		} else {
			out = append(out, Element{Ports: r})
		}
	}
	return out
}

func (c *context) portsValue(in []Element) Value {
	if len(in) == 1 {
		return Ports(in[0].Ports)
	}
	return c.constant(PortRanges, in)
}
