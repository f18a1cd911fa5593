package filter

import "github.com/calicogo/calico/dataplane"

// endpointChains returns the chains of an endpoint by name.
func (c *context) endpointChains(ep *dataplane.Endpoint) map[string]*Chain {
	return map[string]*Chain{
		chainFrom(ep.Interface): {Rules: c.endpoint(ep.Egress, ep.Profiles, false)},
		chainTo(ep.Interface):   {Rules: c.endpoint(ep.Ingress, ep.Profiles, true)},
	}
}

// endpoint returns the rules of one direction. The marks are clear where they begin; a
// packet that returns is one that they marked as accepted.
func (c *context) endpoint(tiers []dataplane.TierPolicies, profiles []dataplane.PolicyID, ingress bool) []Rule {
	var rules []Rule
	for i, t := range tiers {
		if i > 0 {
			rules = append(rules, Rule{Actions: []Action{clearMarks(c.pass)}})
		}
		rules = append(rules, c.tier(t, ingress)...)
	}
	for _, id := range profiles {
		rules = append(rules, c.ask(id, ingress)...)
	}
	return append(rules, Rule{Verdict: c.deny()})
}

func (c *context) tier(t dataplane.TierPolicies, ingress bool) []Rule {
	var rules []Rule
	for i, id := range t.Policies {
		ask := c.ask(id, ingress)
		if i > 0 {
			ask[0].Match = []Match{c.unmarked(c.pass)}
		}
		rules = append(rules, ask...)
	}
	if t.Default != dataplane.Pass {
		rules = append(rules, Rule{Match: []Match{c.unmarked(c.pass)}, Verdict: c.deny()})
	}
	return rules
}

// ask jumps to a policy or profile and returns what it accepts.
func (c *context) ask(id dataplane.PolicyID, ingress bool) []Rule {
	name := chainPolicy(id, ingress)
	c.policies[name] = policyChain{id, ingress}
	return []Rule{
		{Verdict: Jump, Target: name},
		{Match: []Match{c.marked(c.accept)}, Verdict: Return},
	}
}

// sources returns the endpoint's elements of [setSources].
func (c *context) sources(ep *dataplane.Endpoint) []Element {
	nets := c.nets(ep.Allowed(&c.set))
	for i := range nets {
		nets[i].Iface = string(ep.Interface)
	}
	return nets
}
