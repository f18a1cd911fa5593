package filter

import "github.com/calicogo/calico/dataplane"

// endpointChains returns the chains of an endpoint: for packets from it, and to it. Each only leads
// on to the chain that the endpoint shares with all others of the same tiers and profiles. (The
// maps that dispatch could lead there too; but their elements do not change in one with the rules,
// and a packet could meet another endpoint's rules of before.)
func (c *context) endpointChains(ep *dataplane.Endpoint) (from, to *Chain) {
	return c.lead(group{ep.Egress, ep.Profiles, false}), c.lead(group{ep.Ingress, ep.Profiles, true})
}

// group is what endpoints have in common that share a chain: what they are governed by in one
// direction.
type group struct {
	tiers    []dataplane.TierPolicies
	profiles []dataplane.PolicyID
	ingress  bool
}

func (c *context) lead(g group) *Chain {
	name := chainGroup(&g)
	if _, ok := c.groups[name]; !ok {
		c.groups[name] = g
	}
	return &Chain{Rules: []Rule{{Verdict: Goto, Target: name}}}
}

// group returns the chain of a group. The marks are clear where it begins; a packet that returns
// is one that it marked as accepted.
func (c *context) group(g group) *Chain {
	var rules []Rule
	for i, t := range g.tiers {
		if i > 0 {
			rules = append(rules, Rule{Actions: []Action{clearMarks(c.pass)}})
		}
		rules = append(rules, c.tier(t, g.ingress)...)
	}
	for _, id := range g.profiles {
		rules = append(rules, c.ask(id, g.ingress), c.done())
	}
	return &Chain{Rules: append(rules, Rule{Verdict: c.deny()})}
}

func (c *context) tier(t dataplane.TierPolicies, ingress bool) []Rule {
	rules := make([]Rule, 0, len(t.Policies)+len(t.Policies)/between+2)
	undecided, done := []Match{c.unmarked(c.accept | c.pass)}, c.done()
	for i, id := range t.Policies {
		ask := c.ask(id, ingress)
		if i > 0 {
			ask.Match = undecided
		}
		rules = append(rules, ask)
		if (i+1)%between == 0 || i == len(t.Policies)-1 {
			rules = append(rules, done)
		}
	}
	if t.Default != dataplane.Pass {
		rules = append(rules, Rule{Match: []Match{c.unmarked(c.pass)}, Verdict: c.deny()})
	}
	return rules
}

// between is after how many policies of a tier it is asked whether one has accepted. Each is asked
// only what none before it has decided, so that once would do: a rule a policy is saved, and
// a packet that is accepted early meets few rules more.
const between = 8

// ask jumps to a policy or profile.
func (c *context) ask(id dataplane.PolicyID, ingress bool) Rule {
	name := chainPolicy(id, ingress)
	c.policies[name] = policyChain{id, ingress}
	return Rule{Verdict: Jump, Target: name}
}

// done returns what is accepted.
func (c *context) done() Rule {
	return Rule{Match: []Match{c.marked(c.accept)}, Verdict: Return}
}

// sources returns the endpoint's elements of [setSources] and [setFurther]. Addresses are
// by far the most, and have a set of their own, which is cheaper to search and to change.
func (c *context) sources(ep *dataplane.Endpoint) (addrs, further []Element) {
	for _, e := range c.nets(ep.Allowed(&c.set)) {
		e.Iface = string(ep.Interface)
		if e.Prefix.IsSingleIP() {
			addrs = append(addrs, e)
		} else {
			further = append(further, e)
		}
	}
	return addrs, further
}

// entry is what the program says of an endpoint's interface outside its chains.
type entry struct {
	iface, addrs, further []Element
	from, to              string // chains; empty: none
}

// entry returns that of ep; nil: of an interface that is not known. A pod without an address
// of the family has no chains: nothing may come from it or go to it.
func (c *context) entry(ep *dataplane.Endpoint) entry {
	if ep == nil {
		return entry{}
	}
	e := entry{iface: []Element{{Iface: string(ep.Interface)}}}
	e.addrs, e.further = c.sources(ep)
	if len(e.addrs)+len(e.further) > 0 {
		e.from, e.to = chainFrom(ep.Interface), chainTo(ep.Interface)
	}
	return e
}
