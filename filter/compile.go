package filter

import (
	"github.com/calicogo/calico/dataplane"
)

// Compile returns the program of one family that holds s. It is the plain definition of
// what a [Compiler] does.
func Compile(s *dataplane.State, f dataplane.Family) (*Program, error) {
	c, err := newContext(s, f)
	if err != nil {
		return nil, err
	}
	return c.compile(s), nil
}

func (c *context) compile(s *dataplane.State) *Program {
	p := NewProgram(c.family)
	p.Chains = c.base()
	if c.off() {
		return p
	}
	p.Sets, p.Maps = c.fixed()
	for _, ep := range s.Endpoints {
		c.compileEndpoint(p, ep)
	}
	for name, pc := range c.policies {
		p.Chains[name] = c.policy(s.Policies[pc.id], pc.ingress)
	}
	for _, ch := range p.Chains {
		for _, name := range ch.setRefs() {
			if src, ok := c.sets[name]; ok && p.Sets[name] == nil {
				p.Sets[name] = &Set{Kind: src.kind, Elements: src.contents(s, c.family)}
			}
		}
	}
	return p
}

// setRefs returns the names of the sets that the chain refers to.
func (ch *Chain) setRefs() (out []string) {
	for _, r := range ch.Rules {
		for _, m := range r.Match {
			if ref, ok := m.Value.(SetRef); ok {
				out = append(out, string(ref))
			}
		}
	}
	return out
}

func (c *context) compileEndpoint(p *Program, ep *dataplane.Endpoint) {
	e := c.entry(ep)
	for set, elements := range map[string][]Element{setIfaces: e.iface, setSources: e.addrs, setFurther: e.further} {
		for _, x := range elements {
			p.Sets[set].Elements[x] = struct{}{}
		}
	}
	if e.from == "" {
		return
	}
	p.Chains[e.from], p.Chains[e.to] = c.endpointChains(ep)
	p.Maps[mapFromWl].Chains[string(ep.Interface)] = e.from
	p.Maps[mapToWl].Chains[string(ep.Interface)] = e.to
}

// contents returns the elements of the set in state s.
func (src setSource) contents(s *dataplane.State, f dataplane.Family) map[Element]struct{} {
	out := map[Element]struct{}{}
	for _, e := range src.elements {
		out[e] = struct{}{}
	}
	all := map[Element]struct{}{}
	for m := range s.Sets[src.id] {
		if e, ok := element(m, src.kind, f); ok {
			all[e] = struct{}{}
		}
	}
	for e := range all {
		if src.kind != Nets || !contained(e, all) {
			out[e] = struct{}{}
		}
	}
	return out
}

// element returns the member as an element of a set of that kind and family, if it is of
// that sort.
func element(m dataplane.Member, k SetKind, f dataplane.Family) (Element, bool) {
	if !m.Prefix.IsValid() || dataplane.FamilyOf(m.Prefix.Addr()) != f || (k == Triples) != (m.Protocol != 0) {
		return Element{}, false
	}
	if k == Nets {
		return Element{Prefix: m.Prefix.Masked()}, true
	}
	ports := dataplane.PortRange{Min: m.Port, Max: m.Port}
	return Element{Prefix: m.Prefix, Protocol: m.Protocol, Ports: ports}, m.Prefix.IsSingleIP()
}

// contained tells whether a shorter prefix of all contains e's.
func contained(e Element, all map[Element]struct{}) bool {
	for bits := range e.Prefix.Bits() {
		if _, ok := all[Element{Prefix: outer(e.Prefix, bits)}]; ok {
			return true
		}
	}
	return false
}
