package filter

import (
	"github.com/calicogo/calico/dataplane"
)

// Compile returns the program of one family that holds s. It is the plain definition of
// what a [Compiler] does.
func Compile(s *dataplane.State, f dataplane.Family) (*Program, error) {
	c, err := newContext(s, f, stateSets{s, f})
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
	for name, g := range c.groups {
		p.Chains[name] = c.group(g)
	}
	for name, pc := range c.policies {
		p.Chains[name] = c.policy(s.Policies[pc.id], pc.ingress)
	}
	for _, ch := range p.Chains {
		for _, name := range ch.setRefs() {
			if src, ok := c.sets[name]; ok && p.Sets[name] == nil {
				p.Sets[name] = c.fill(src)
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
				out = append(out, ref.Name)
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

// fill returns the set as it is now.
func (c *context) fill(src setSource) *Set {
	s := &Set{Kind: src.kind, Sense: src.sense}
	if src.id != "" {
		s.Elements = c.contents.elements(src.id, src.kind)
		return s
	}
	s.Elements = map[Element]struct{}{}
	for _, e := range src.elements {
		s.Elements[e] = struct{}{}
	}
	return s
}

// stateSets are the sets of a state, as far as they are of a family.
type stateSets struct {
	state  *dataplane.State
	family dataplane.Family
}

func (s stateSets) kinds(id dataplane.SetID) []SetKind {
	return kinds(len(s.elements(id, Addrs)) > 0, len(s.elements(id, Nets)) > 0)
}

func (s stateSets) elements(id dataplane.SetID, k SetKind) map[Element]struct{} {
	all := map[Element]struct{}{}
	for m := range s.state.Sets[id] {
		if of, e := element(m, s.family); of == k {
			all[e] = struct{}{}
		}
	}
	out := map[Element]struct{}{}
	for e := range all {
		if k != Nets || !contained(e, all) {
			out[e] = struct{}{}
		}
	}
	return out
}

// element returns the member as an element, and the kind of set it goes to; 0: none of the
// family's.
func element(m dataplane.Member, f dataplane.Family) (SetKind, Element) {
	switch {
	case !m.Prefix.IsValid() || dataplane.FamilyOf(m.Prefix.Addr()) != f:
		return 0, Element{}
	case m.Protocol != 0 && m.Prefix.IsSingleIP():
		return Triples, Element{Prefix: m.Prefix, Protocol: m.Protocol, Ports: dataplane.PortRange{Min: m.Port, Max: m.Port}}
	case m.Protocol != 0:
		return 0, Element{}
	case m.Prefix.IsSingleIP():
		return Addrs, Element{Prefix: m.Prefix}
	}
	return Nets, Element{Prefix: m.Prefix.Masked()}
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
