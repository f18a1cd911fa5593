package main

// fault is a mistake in the sources: in the file, one text stands in the place of another.
type fault struct {
	name string
	file string // from the module's root
	was  string // which occurs once in the file
	is   string
}

// faults are mistakes that somebody could make, in the compiler, in nft and in iptables.
var faults = []fault{
	{
		"notNets match instead of not matching", "filter/policy.go",
		`all = append(all, Match{Field: f, Not: true, Value: c.netsValue(in)})`,
		`all = append(all, Match{Field: f, Value: c.netsValue(in)})`,
	},
	{
		"one notNet alone is lost", "filter/policy.go",
		`if in := c.nets(x.NotNets); len(in) > 0 {`,
		`if in := c.nets(x.NotNets); len(in) > 1 {`,
	},
	{
		"policies of a tier in the wrong order", "filter/endpoint.go",
		`for i, id := range t.Policies {`,
		"for i := range t.Policies {\n\t\tid := t.Policies[len(t.Policies)-1-i]",
	},
	{
		"a bit of the mark is used twice", "filter/context.go",
		`mask &^= *bit`,
		`mask &^= *bit &^ c.accept`,
	},
	{
		"the pass mark is not cleared between tiers", "filter/endpoint.go",
		`rules = append(rules, Rule{Actions: []Action{clearMarks(c.pass)}})`,
		`rules = append(rules, Rule{Actions: []Action{clearMarks(c.accept)}})`,
	},
	{
		"the accept mark is not cleared at first", "filter/hook.go",
		`{Actions: []Action{clearMarks(c.accept | c.pass)}},`,
		`{Actions: []Action{clearMarks(c.pass)}},`,
	},
	{
		"port ranges with one port between them become one", "filter/policy.go",
		`int(r.Min) <= int(out[n-1].Ports.Max)+1`,
		`int(r.Min) <= int(out[n-1].Ports.Max)+2`,
	},
	{
		"ICMP of IPv6 is matched as that of IPv4", "filter/policy.go",
		`p := c.family.ICMP()`,
		`p := dataplane.ICMP4`,
	},
	{
		"the default of tiers with several policies is forgotten", "filter/endpoint.go",
		`if t.Default != dataplane.Pass {`,
		`if t.Default != dataplane.Pass && len(t.Policies) == 1 {`,
	},
	{
		"single addresses of a set with prefixes are forgotten", "filter/members.go",
		`return []SetKind{Addrs, Nets}`,
		`return []SetKind{Nets}`,
	},
	{
		"a log rule decides", "filter/policy.go",
		`return Rule{Actions: []Action{Log{Prefix: c.set.LogPrefix + ": ", Group: c.set.LogGroup, Rate: c.set.LogRate}}}`,
		`return Rule{Actions: []Action{Log{Prefix: c.set.LogPrefix + ": ", Group: c.set.LogGroup, Rate: c.set.LogRate}}, Verdict: Return}`,
	},
	{
		"a packet that fits two alternatives is logged twice", "filter/policy.go",
		`conditions[i] = disjoint(conditions[i])`,
		`_ = disjoint(conditions[i])`,
	},
	{
		"named ports of every protocol are TCP's", "filter/compile.go",
		`return Triples, Element{Prefix: m.Prefix, Protocol: m.Protocol,`,
		`return Triples, Element{Prefix: m.Prefix, Protocol: dataplane.TCP,`,
	},
	{
		"after Pass the next rule is asked", "filter/policy.go",
		`return Rule{Actions: []Action{setMark(c.pass)}, Verdict: Return}`,
		`return Rule{Actions: []Action{setMark(c.pass)}}`,
	},
	{
		"FilterDenyAction Reject drops", "filter/context.go",
		`return Reject`,
		`return Drop`,
	},
	{
		"what is established is accepted before it is cut", "filter/hook.go",
		`{Match: []Match{{Field: CtMark, Value: Bits{c.cut, c.cut}}}, Verdict: Goto, Target: chainCut},
		{Match: []Match{{Field: ConnState, Value: Conns(1 << dataplane.ConnEstablished)}}, Verdict: c.allow()},`,
		`{Match: []Match{{Field: ConnState, Value: Conns(1 << dataplane.ConnEstablished)}}, Verdict: c.allow()},
		{Match: []Match{{Field: CtMark, Value: Bits{c.cut, c.cut}}}, Verdict: Goto, Target: chainCut},`,
	},
	{
		"traffic between pools is masqueraded", "filter/hook.go",
		`match := append(from, c.notIn(DstAddr, dataplane.SetAllPools, Opens)...)`,
		`match := append(from, c.notIn(SrcAddr, dataplane.SetNodes, Opens)...)`,
	},
	{
		"an endpoint's former addresses stay", "filter/compiler.go",
		`c.replace(ch, setSources, old.addrs, now.addrs)`,
		`c.replace(ch, setSources, nil, now.addrs)`,
	},
	{
		"what leaves a set is not told", "filter/compiler.go",
		`ch.Sets[name] = &SetChange{Kind: set.Kind, Sense: set.Sense, Add: f.add, Remove: f.remove}`,
		`ch.Sets[name] = &SetChange{Kind: set.Kind, Sense: set.Sense, Add: f.add}`,
	},
	{
		"nft: a range of ports ends one port early", "nft/encode.go",
		`FromData: be16(v.Min), ToData: be16(v.Max)`,
		`FromData: be16(v.Min), ToData: be16(v.Max - 1)`,
	},
	{
		"nft: an ICMP code of 0 is any", "nft/encode.go",
		`if v.HasCode {`,
		`if v.HasCode && v.Code > 0 {`,
	},
	{
		"nft: IPv6 destinations are looked for 4 bytes early", "nft/encode.go",
		`dataplane.IPv6: {8, 24}}`,
		`dataplane.IPv6: {8, 20}}`,
	},
	{
		"nft: bits of the mark beyond the mask are lost", "nft/encode.go",
		`Mask: ne32(^b.Mask), Xor: ne32(b.Value & b.Mask)`,
		`Mask: ne32(0), Xor: ne32(b.Value & b.Mask)`,
	},
	{
		"iptables: negations are lost", "iptables/render.go",
		`return append(b, " !"...)`,
		`return b`,
	},
	{
		"iptables: sets of IPv6 are made for IPv4", "iptables/set.go",
		`dataplane.IPv6: "inet6"}[f]`,
		`dataplane.IPv6: "inet"}[f]`,
	},
	{
		"iptables: the scratch bit is not looked at", "iptables/lower.go",
		`end.Match = append(f.fits, filter.Match{Field: filter.Mark, Value: filter.Bits{Mask: l.scratch}})`,
		`end.Match = f.fits`,
	},
	{
		"iptables: the scratch bit is not cleared", "iptables/lower.go",
		`out := []filter.Rule{{Match: guard, Actions: []filter.Action{clear}}}`,
		"out := []filter.Rule{}\n\t_ = clear",
	},
	{
		"iptables: a list of ports loses a second range", "iptables/lower.go",
		`parts[len(parts)-1] += "," + s`,
		`_ = s`,
	},
}
