package difftest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// Coverage counts what decided the fate of packets: each condition of a rule, action and setting,
// by what would have become of the packet without it.
type Coverage map[string]*Decided

// Decided says how often something decided, and which way.
type Decided struct {
	Passed int // the packet passed, and would not have
	Denied int // the packet did not pass, and would have
	Logged int // the packet was logged more or less often than it would have been
	Other  int // it was denied in another way, or left from another address, than it would have
}

// both tells whether all that may be decided has been.
func (d *Decided) both() bool { return d.Passed > 0 && d.Denied > 0 }

// Row returns the counts of that name.
func (c Coverage) Row(name string) *Decided {
	if c[name] == nil {
		c[name] = &Decided{}
	}
	return c[name]
}

// Note counts what the rules that were looked at for the packet have decided, and a setting of g's
// choice.
func (c Coverage) Note(g *Gen, s *dataplane.State, p dataplane.Packet, was dataplane.Trace) {
	for _, step := range was.Steps {
		if step.Rule >= 0 {
			c.rule(s, p, was, step)
		}
	}
	x := Of(g, settings...)
	if other := *s; x.change(&other.Settings) {
		c.note("setting "+x.name, was, dataplane.Eval(&other, p))
	}
}

// rule counts what the rule of a step, and each condition of it, has decided.
func (c Coverage) rule(s *dataplane.State, p dataplane.Packet, was dataplane.Trace, step dataplane.Step) {
	rule := *rulesOf(s.Policies[step.Policy], step.Ingress, step.Rule)
	if step.Matched {
		none := rule
		none.Action, none.Family = dataplane.Log, neither
		without := dataplane.Eval(with(s, step, none), p)
		c.note("action "+rule.Action.String(), was, without)
		for _, f := range fields {
			if f.has(s, &rule) {
				c.note(f.name+": fits", was, without)
			}
		}
		return
	}
	for _, f := range fields {
		if wider := rule; f.has(s, &wider) {
			f.remove(&wider)
			c.note(f.name+": fits not", was, dataplane.Eval(with(s, step, wider), p))
		}
	}
}

// neither is a family that no packet is of.
const neither dataplane.Family = 5

// note compares what became of a packet with what would have without the condition called name.
func (c Coverage) note(name string, was, without dataplane.Trace) {
	d := c.Row(name)
	pass, passed := passes(without), passes(was)
	switch {
	case passed && !pass:
		d.Passed++
	case pass && !passed:
		d.Denied++
	case was.Verdict != without.Verdict || was.Masquerade != without.Masquerade:
		d.Other++
	}
	if Logs(was) != Logs(without) {
		d.Logged++
	}
}

func passes(t dataplane.Trace) bool {
	return t.Verdict == dataplane.Accept || t.Verdict == dataplane.Return
}

func rulesOf(p *dataplane.Policy, ingress bool, i int) *dataplane.Rule {
	if ingress {
		return &p.Ingress[i]
	}
	return &p.Egress[i]
}

// with returns s with another rule in the place of the step's.
func with(s *dataplane.State, step dataplane.Step, r dataplane.Rule) *dataplane.State {
	pol := *s.Policies[step.Policy]
	pol.Ingress, pol.Egress = slices.Clone(pol.Ingress), slices.Clone(pol.Egress)
	*rulesOf(&pol, step.Ingress, step.Rule) = r
	out := *s
	out.Policies = maps.Clone(s.Policies)
	out.Policies[step.Policy] = &pol
	return &out
}

// Table prints the counts.
func (c Coverage) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-40s %9s %9s %9s %9s\n", "what decided", "passed", "denied", "logged", "other")
	for _, name := range slices.Sorted(maps.Keys(c)) {
		d := c[name]
		fmt.Fprintf(&b, "%-40s %9d %9d %9d %9d\n", name, d.Passed, d.Denied, d.Logged, d.Other)
	}
	return b.String()
}

// Missing names what has not decided in every way in which it can.
func (c Coverage) Missing() []string {
	out := c.undecided((*Decided).both)
	for _, x := range settings {
		if name := "setting " + x.name; !x.decided(c.Row(name)) {
			out = append(out, name)
		}
	}
	for name, decided := range actions {
		if !decided(c.Row("action " + name)) {
			out = append(out, "action "+name)
		}
	}
	slices.Sort(out)
	return out
}

// Unseen names the conditions that have decided nothing.
func (c Coverage) Unseen() []string {
	return c.undecided(func(d *Decided) bool { return d.Passed+d.Denied > 0 })
}

func (c Coverage) undecided(enough func(*Decided) bool) (out []string) {
	for _, f := range fields {
		for _, way := range []string{": fits", ": fits not"} {
			if name := f.name + way; (f.way == "" || f.way == way) && !enough(c.Row(name)) {
				out = append(out, name)
			}
		}
	}
	return out
}

var actions = map[string]func(*Decided) bool{
	"allow": func(d *Decided) bool { return d.Passed > 0 },
	"deny":  func(d *Decided) bool { return d.Denied > 0 },
	"pass":  (*Decided).both,
	"log":   func(d *Decided) bool { return d.Logged > 0 && d.Passed+d.Denied+d.Other == 0 },
}

// setting is one that may differ from its default.
type setting struct {
	name    string
	change  func(*dataplane.Settings) bool // to another value; false: it has the one that is counted against
	decided func(*Decided) bool
}

// settings are those that a packet can meet. Backend is who judges; MangleAllow has no rules yet;
// LogRate has a test of its own.
var settings = []setting{
	{"EndpointToHost", reset(func(s *dataplane.Settings) *dataplane.Action { return &s.EndpointToHost }, dataplane.Deny), passed},
	{"FilterAllow", reset(func(s *dataplane.Settings) *dataplane.Verdict { return &s.FilterAllow }, dataplane.Accept), other},
	{"FilterDeny", reset(func(s *dataplane.Settings) *dataplane.Verdict { return &s.FilterDeny }, dataplane.Drop), other},
	{"AllowSpoofing", reset(func(s *dataplane.Settings) *bool { return &s.AllowSpoofing }, false), passed},
	{"AllowVXLANFromPod", reset(func(s *dataplane.Settings) *bool { return &s.AllowVXLANFromPod }, false), passed},
	{"AllowIPIPFromPod", reset(func(s *dataplane.Settings) *bool { return &s.AllowIPIPFromPod }, false), passed},
	{"VXLANPort", reset(func(s *dataplane.Settings) *uint16 { return &s.VXLANPort }, 4789), (*Decided).both},
	{"IPv6", reset(func(s *dataplane.Settings) *bool { return &s.IPv6 }, true), denied},
	{"InterfacePrefixes", func(s *dataplane.Settings) bool {
		s.InterfacePrefixes = []string{"tap"}
		return true
	}, denied},
}

func passed(d *Decided) bool { return d.Passed > 0 }
func denied(d *Decided) bool { return d.Denied > 0 }
func other(d *Decided) bool  { return d.Other > 0 }

func reset[T comparable](at func(*dataplane.Settings) *T, to T) func(*dataplane.Settings) bool {
	return func(s *dataplane.Settings) bool {
		had := *at(s)
		*at(s) = to
		return had != to
	}
}

// field is a condition of rules.
type field struct {
	name   string
	has    func(*dataplane.State, *dataplane.Rule) bool
	remove func(*dataplane.Rule)
	way    string // the only one in which it can decide; empty: both
}

// fields are all conditions that a rule may have, those of peers for each end; and special cases of
// them, which backends treat in a way of their own.
var fields = slices.Concat([]field{
	{name: "family", has: is(func(r *dataplane.Rule) bool { return r.Family != 0 }), remove: func(r *dataplane.Rule) { r.Family = 0 }},
	protocolField("tcp", dataplane.TCP), protocolField("udp", dataplane.UDP), protocolField("sctp", dataplane.SCTP),
	protocolField("udplite", dataplane.UDPLite), protocolField("icmp", dataplane.ICMP4), protocolField("icmpv6", dataplane.ICMP6),
	protocolField("4", 4), protocolField("89", 89), protocolField("253", 253),
	{name: "not protocol", has: is(func(r *dataplane.Rule) bool { return r.NotProtocol != 0 }), remove: func(r *dataplane.Rule) { r.NotProtocol = 0 }},
	icmpField("icmp type", false, func(r *dataplane.Rule) **dataplane.ICMP { return &r.ICMP }),
	icmpField("icmp type and code", true, func(r *dataplane.Rule) **dataplane.ICMP { return &r.ICMP }),
	icmpField("not icmp type", false, func(r *dataplane.Rule) **dataplane.ICMP { return &r.NotICMP }),
	icmpField("not icmp type and code", true, func(r *dataplane.Rule) **dataplane.ICMP { return &r.NotICMP }),
}, peerFields("src", func(r *dataplane.Rule) *dataplane.Peer { return &r.Src }), peerFields("dst", func(r *dataplane.Rule) *dataplane.Peer { return &r.Dst }))

func is(f func(*dataplane.Rule) bool) func(*dataplane.State, *dataplane.Rule) bool {
	return func(_ *dataplane.State, r *dataplane.Rule) bool { return f(r) }
}

func protocolField(name string, p dataplane.Protocol) field {
	return field{name: "protocol " + name, has: is(func(r *dataplane.Rule) bool { return r.Protocol == p }), remove: func(r *dataplane.Rule) { r.Protocol = 0 }}
}

func icmpField(name string, code bool, at func(*dataplane.Rule) **dataplane.ICMP) field {
	has := func(r *dataplane.Rule) bool { return *at(r) != nil && (*at(r)).HasCode == code }
	return field{name: name, has: is(has), remove: func(r *dataplane.Rule) { *at(r) = nil }}
}

func peerFields(end string, of func(*dataplane.Rule) *dataplane.Peer) (out []field) {
	for _, x := range peerConditions {
		out = append(out, field{
			name:   end + " " + x.name,
			has:    func(s *dataplane.State, r *dataplane.Rule) bool { return x.has(s, of(r)) },
			remove: func(r *dataplane.Rule) { x.remove(of(r)) },
			way:    only[x.name],
		})
	}
	return out
}

// only names the conditions that can decide in one way alone.
var only = map[string]string{"sets, empty": ": fits not", "not sets, empty": ": fits"}

type peerCondition struct {
	name   string
	has    func(*dataplane.State, *dataplane.Peer) bool
	remove func(*dataplane.Peer)
}

var peerConditions = slices.Concat(
	netConditions("nets", func(x *dataplane.Peer) *[]netip.Prefix { return &x.Nets }),
	netConditions("not nets", func(x *dataplane.Peer) *[]netip.Prefix { return &x.NotNets }),
	setConditions("sets", func(x *dataplane.Peer) *[]dataplane.SetID { return &x.Sets }),
	setConditions("not sets", func(x *dataplane.Peer) *[]dataplane.SetID { return &x.NotSets }),
	portConditions("ports", func(x *dataplane.Peer) *[]dataplane.PortRange { return &x.Ports }),
	portConditions("not ports", func(x *dataplane.Peer) *[]dataplane.PortRange { return &x.NotPorts }),
	listConditions("port sets", func(x *dataplane.Peer) *[]dataplane.SetID { return &x.PortSets }),
	listConditions("not port sets", func(x *dataplane.Peer) *[]dataplane.SetID { return &x.NotPortSets }),
	[]peerCondition{{
		"ports or port sets", func(_ *dataplane.State, x *dataplane.Peer) bool { return len(x.Ports) > 0 && len(x.PortSets) > 0 },
		func(x *dataplane.Peer) { x.Ports, x.PortSets = nil, nil },
	}},
)

// listConditions tell one of a list from several.
func listConditions[T any](name string, at func(*dataplane.Peer) *[]T) []peerCondition {
	remove := func(x *dataplane.Peer) { *at(x) = nil }
	return []peerCondition{
		{name + ", one", func(_ *dataplane.State, x *dataplane.Peer) bool { return len(*at(x)) == 1 }, remove},
		{name + ", several", func(_ *dataplane.State, x *dataplane.Peer) bool { return len(*at(x)) > 1 }, remove},
	}
}

func netConditions(name string, at func(*dataplane.Peer) *[]netip.Prefix) []peerCondition {
	all := func(p netip.Prefix) bool { return p.Bits() == 0 }
	return append(listConditions(name, at), peerCondition{
		name + ", /0", func(_ *dataplane.State, x *dataplane.Peer) bool { return slices.ContainsFunc(*at(x), all) },
		func(x *dataplane.Peer) { *at(x) = nil },
	})
}

// setConditions tell sets of single addresses from those of prefixes, which backends hold apart.
func setConditions(name string, at func(*dataplane.Peer) *[]dataplane.SetID) []peerCondition {
	kind := func(single, longer bool) func(*dataplane.State, *dataplane.Peer) bool {
		return func(s *dataplane.State, x *dataplane.Peer) bool {
			return slices.ContainsFunc(*at(x), func(id dataplane.SetID) bool {
				has := [2]bool{}
				for m := range s.Sets[id] {
					has[0], has[1] = has[0] || m.Prefix.IsSingleIP(), has[1] || !m.Prefix.IsSingleIP()
				}
				return has == [2]bool{single, longer}
			})
		}
	}
	remove := func(x *dataplane.Peer) { *at(x) = nil }
	return append(listConditions(name, at),
		peerCondition{name + ", addresses", kind(true, false), remove}, peerCondition{name + ", prefixes", kind(false, true), remove},
		peerCondition{name + ", of both", kind(true, true), remove}, peerCondition{name + ", empty", kind(false, false), remove})
}

// portConditions have one for lists that are longer than what a rule of iptables takes.
func portConditions(name string, at func(*dataplane.Peer) *[]dataplane.PortRange) []peerCondition {
	return append(listConditions(name, at), peerCondition{
		name + ", 16 or more", func(_ *dataplane.State, x *dataplane.Peer) bool { return len(*at(x)) > 15 },
		func(x *dataplane.Peer) { *at(x) = nil },
	})
}
