package filter

import (
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// Result is what a program does to a packet.
type Result struct {
	Verdict    dataplane.Verdict // Return: no chain had anything to say
	Masquerade bool              // or another source address
	Logs       []string          // prefixes, in order
	Path       []Visit           // the rules that fitted, in order
}

// Visit is a rule that a packet fitted.
type Visit struct {
	Chain string
	Rule  int
}

// Trace runs p through the program's hooks as the kernel would.
func (pr *Program) Trace(p dataplane.Packet) Result {
	r := &run{pr: pr, p: p, verdict: dataplane.Return}
	r.pass()
	return r.result()
}

// Verdict returns that of Trace, for who has many packets to judge: it notes nothing on the way.
func (pr *Program) Verdict(p dataplane.Packet) dataplane.Verdict {
	r := &run{pr: pr, p: p, verdict: dataplane.Return, quiet: true}
	r.pass()
	return r.verdict
}

// pass runs the packet through its hooks, or until it is dropped.
func (r *run) pass() {
	for _, h := range path(r.p) {
		if end := r.hook(h); end == Drop || end == Reject || end == Reset {
			return
		}
	}
}

func path(p dataplane.Packet) []Hook {
	switch {
	case p.In == "":
		return []Hook{Output, Postrouting}
	case p.Out == "":
		return []Hook{Prerouting, Input}
	}
	return []Hook{Prerouting, Forward, Postrouting}
}

// run is one packet on its way.
type run struct {
	pr      *Program
	p       dataplane.Packet
	mark    uint32
	verdict dataplane.Verdict
	quiet   bool // out is of no use
	out     Result
}

func (r *run) result() Result {
	r.out.Verdict = r.verdict
	return r.out
}

// hook runs the base chains of a hook. Translation is asked for new flows only.
func (r *run) hook(h Hook) Verdict {
	for i := range hooks {
		name := hooks[i].name
		if hooks[i].base.Hook != h || r.pr.Chains[name] == nil {
			continue
		}
		base := r.pr.Chains[name].Base
		if base.Table == NATTable && (r.p.Conn != dataplane.ConnNew || r.quiet) {
			continue // translation of sources is behind every verdict
		}
		end := r.chain(name)
		switch {
		case end == Drop:
			r.verdict = dataplane.Drop
			return end
		case end == Reject:
			r.verdict = dataplane.Reject
			return end
		case end == Reset:
			r.verdict = dataplane.Reset
			return end
		case end == Accept && base.Table == FilterTable:
			r.verdict = dataplane.Accept
		}
	}
	return Continue
}

// chain runs a chain; Continue: the packet came out at its end or by Return.
func (r *run) chain(name string) Verdict {
	rules := r.pr.Chains[name].Rules
	for i := range rules {
		rule := &rules[i]
		if !r.fits(rule.Match) {
			continue
		}
		if !r.quiet {
			r.out.Path = append(r.out.Path, Visit{name, i})
		}
		if r.act(rule.Actions) {
			return Accept
		}
		if end, done := r.follow(rule); done {
			return end
		}
	}
	return Continue
}

// follow goes where the rule's verdict says; true: the chain is at its end.
func (r *run) follow(rule *Rule) (Verdict, bool) {
	switch rule.Verdict {
	case Continue:
		return Continue, false
	case Return:
		return Continue, true
	case Goto:
		return r.chain(rule.Target), true
	case Jump:
		end := r.chain(rule.Target)
		return end, end != Continue
	case Dispatch:
		m := r.pr.Maps[rule.Target]
		key := r.p.In
		if m.Field == OutIface {
			key = r.p.Out
		}
		target, ok := m.Chains[key]
		if !ok {
			return Continue, false
		}
		end := r.chain(target)
		return end, end != Continue
	}
	return rule.Verdict, true
}

// act does the actions; true: the packet was translated, which ends the hook.
func (r *run) act(actions []Action) bool {
	for _, a := range actions {
		switch a := a.(type) {
		case Log:
			r.out.Logs = append(r.out.Logs, a.Prefix)
		case SetMark:
			r.mark = r.mark&^a.Mask | a.Value
		case Notrack:
			r.p.Conn = dataplane.ConnUntracked
		case Masquerade, SNAT:
			r.out.Masquerade = true
			return true
		case DNAT:
			r.p.Dst = a.Addr
			if a.Port != 0 {
				r.p.DstPort = a.Port
			}
			return true
		}
	}
	return false
}

func (r *run) fits(match []Match) bool {
	for i := range match {
		m := &match[i]
		if holds, has := r.holds(m); !has || holds == m.Not {
			return false
		}
	}
	return true
}

// holds tells whether the condition, not yet negated, is true, and whether the packet
// has the field at all.
func (r *run) holds(m *Match) (holds, has bool) {
	p := &r.p
	switch v := m.Value.(type) {
	case Prefix:
		return v.Contains(r.element(m.Field).Prefix.Addr()), true
	case Number:
		return p.Protocol == dataplane.Protocol(v), true
	case Ports:
		port := r.element(m.Field).Ports.Min
		return v.Min <= port && port <= v.Max, p.Ports()
	case Type:
		icmp := dataplane.ICMP(v)
		return icmp.Matches(p), p.ICMP()
	case Iface:
		name := r.element(m.Field).Iface
		return name == v.Name || v.Prefix && strings.HasPrefix(name, v.Name), name != ""
	case Bits:
		if m.Field == CtMark {
			return (v.Value != 0) == p.Cut, p.Conn == dataplane.ConnNew || p.Conn == dataplane.ConnEstablished
		}
		return r.mark&v.Mask == v.Value, true
	case Conns:
		return v&(1<<p.Conn) != 0, true
	case SetRef:
		return r.inSet(r.pr.Sets[v.Name], m.Field)
	}
	return p.In == "", true // SrcLocal
}

// element returns the packet's part that the field names, as an element.
func (r *run) element(f Field) Element {
	p := &r.p
	switch f {
	case SrcAddr:
		return Element{Prefix: prefixOf(p.Src).Prefix}
	case DstAddr:
		return Element{Prefix: prefixOf(p.Dst).Prefix}
	case SrcPort:
		return Element{Ports: dataplane.PortRange{Min: p.SrcPort, Max: p.SrcPort}}
	case DstPort:
		return Element{Ports: dataplane.PortRange{Min: p.DstPort, Max: p.DstPort}}
	case SrcTriple:
		return Element{Prefix: prefixOf(p.Src).Prefix, Protocol: p.Protocol, Ports: dataplane.PortRange{Min: p.SrcPort, Max: p.SrcPort}}
	case DstTriple:
		return Element{Prefix: prefixOf(p.Dst).Prefix, Protocol: p.Protocol, Ports: dataplane.PortRange{Min: p.DstPort, Max: p.DstPort}}
	case InIface:
		return Element{Iface: p.In}
	case OutIface:
		return Element{Iface: p.Out}
	}
	return Element{Iface: p.In, Prefix: prefixOf(p.Src).Prefix} // InIfaceSrc
}

func (r *run) inSet(s *Set, f Field) (holds, has bool) {
	e := r.element(f)
	has = (s.Kind != Triples && s.Kind != PortRanges || r.p.Ports()) && (s.Kind != Ifaces || e.Iface != "")
	if s.Kind == Addrs || s.Kind == Triples || s.Kind == Ifaces || s.Kind == IfaceAddrs {
		_, holds = s.Elements[e]
		return holds, has
	}
	if s.Kind == PortRanges {
		return s.inRange(e.Ports.Min), has
	}
	return s.inNets(e), has
}

func (s *Set) inRange(port uint16) bool {
	for x := range s.Elements {
		if x.Ports.Min <= port && port <= x.Ports.Max {
			return true
		}
	}
	return false
}

// inNets looks whether a prefix, of e's interface, contains e's address: at each, or, where they are many, for
// those of every length.
func (s *Set) inNets(e Element) bool {
	a := e.Prefix.Addr()
	if len(s.Elements) <= 2*a.BitLen() {
		for x := range s.Elements {
			if x.Iface == e.Iface && x.Prefix.Contains(a) {
				return true
			}
		}
		return false
	}
	for bits := range a.BitLen() + 1 {
		if _, ok := s.Elements[Element{Iface: e.Iface, Prefix: outer(e.Prefix, bits)}]; ok {
			return true
		}
	}
	return false
}
