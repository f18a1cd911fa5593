package dataplane

import (
	"net/netip"
	"slices"
	"strings"
)

// Trace is what becomes of a packet, and why.
type Trace struct {
	// Verdict is Accept, Drop, Reject, or Return: what we leave to others' rules.
	Verdict Verdict
	// Reason is why, in a few words, for people.
	Reason string
	// Masquerade: on its way out the packet gets the node's source address.
	Masquerade bool
	// Steps are the rules that were looked at, in order, and the ends of tiers.
	Steps []Step
}

// Step is one rule that was looked at, or the end of a tier.
type Step struct {
	Endpoint Interface
	Ingress  bool     // else egress
	Tier     string   // empty for profiles
	Policy   PolicyID // of the rule; zero at the end of a tier
	Rule     int      // its index in the Policy; -1 at the end of a tier
	Action   Action   // the rule's, or the tier's default
	Matched  bool     // always at the end of a tier
	Unmet    Condition
	// Sets are those that decided: where the rule matched, all that it found the packet in;
	// where it did not, that of the unmet condition, if that is one of a set.
	Sets []SetID
}

// Condition is a part of a rule, by the name that it has in the API; see [Peer] for those
// that begin with source and destination. Selectors of all sorts, and services, are sets.
type Condition string

// The conditions of a rule, in the order in which [Eval] looks at them. Those of a peer follow
// a prefix: source.nets.
const (
	OfFamily      Condition = "ipVersion"
	OfProtocol    Condition = "protocol"
	OfNotProtocol Condition = "notProtocol"
	OfICMP        Condition = "icmp"
	OfNotICMP     Condition = "notICMP"
	OfNets        Condition = "nets"
	OfNotNets     Condition = "notNets"
	OfSets        Condition = "sets"
	OfNotSets     Condition = "notSets"
	OfPorts       Condition = "ports"
	OfNotPorts    Condition = "notPorts"
)

// Prefixes of the conditions of a peer.
const (
	OfSource      Condition = "source."
	OfDestination Condition = "destination."
)

// Eval says what must become of p. It is the definition to which every backend is held;
// it is written to be read, not to be fast.
func Eval(s *State, p Packet) Trace {
	e := &evaluation{s: s, p: p}
	t := &e.trace
	t.Verdict, t.Reason = e.verdict()
	if e.nat() && p.Conn == ConnNew && (t.Verdict == Accept || t.Verdict == Return) {
		t.Masquerade = e.natOutgoing() || e.foreignSource()
	}
	return e.trace
}

// nat tells whether the packet passes where sources are translated.
func (e *evaluation) nat() bool {
	return e.p.Out != "" && (e.p.Family() == IPv4 || e.s.Settings.IPv6)
}

// evaluation is one packet on its way.
type evaluation struct {
	s     *State
	p     Packet
	trace Trace
}

func (e *evaluation) verdict() (Verdict, string) {
	from, to := e.s.IsWorkload(e.p.In), e.s.IsWorkload(e.p.Out)
	if e.p.Family() == IPv6 && !e.s.Settings.IPv6 {
		return e.off(from || to)
	}
	if from && e.source() == nil {
		return Drop, "unknown interface"
	}
	if from && !e.ownSource() {
		return Drop, "source is not the pod's"
	}
	if to && e.destination() == nil {
		return e.s.Settings.FilterDeny, "unknown interface"
	}
	switch {
	case e.p.In == "" && to:
		return e.s.Settings.FilterAllow, "host to its own pod"
	case e.p.In != "" && e.p.Out == "":
		return e.input(from)
	case e.p.In != "" && (from || to):
		return e.forward(from, to)
	}
	return Return, "not a pod's"
}

// off judges a packet of a family that is not in use: no pod may speak it.
func (e *evaluation) off(workload bool) (Verdict, string) {
	if workload {
		return Drop, "IPv6 is off"
	}
	return Return, "not a pod's"
}

// input judges a packet for the host itself.
func (e *evaluation) input(from bool) (Verdict, string) {
	if e.foreignTunnel() {
		return e.s.Settings.FilterDeny, "tunnel packet from no known node"
	}
	if !from {
		return Return, "not a pod's"
	}
	if e.p.Discovery() {
		return Accept, "neighbour discovery"
	}
	if v, why := e.flow(); v != 0 {
		return v, why
	}
	if e.podTunnel() {
		return e.s.Settings.FilterDeny, "encapsulated by a pod"
	}
	if !e.egress() {
		return e.s.Settings.FilterDeny, "egress policy"
	}
	switch e.s.Settings.EndpointToHost {
	case Allow:
		return e.s.Settings.FilterAllow, "DefaultEndpointToHostAction"
	case Pass:
		return Return, "DefaultEndpointToHostAction"
	}
	return e.s.Settings.FilterDeny, "DefaultEndpointToHostAction"
}

// forward judges a packet that comes from a pod, goes to one, or both.
func (e *evaluation) forward(from, to bool) (Verdict, string) {
	if v, why := e.flow(); v != 0 {
		return v, why
	}
	if from && e.podTunnel() {
		return e.s.Settings.FilterDeny, "encapsulated by a pod"
	}
	if from && !e.egress() {
		return e.s.Settings.FilterDeny, "egress policy"
	}
	if to && !e.ingress() {
		return e.s.Settings.FilterDeny, "ingress policy"
	}
	return e.s.Settings.FilterAllow, "policy"
}

// flow judges by connection tracking; 0: it has nothing to say.
func (e *evaluation) flow() (Verdict, string) {
	if e.p.Cut && (e.p.Conn == ConnNew || e.p.Conn == ConnEstablished) { // others are of no flow
		if e.p.Protocol == TCP {
			return Reset, "policy has come to deny its flow"
		}
		return Drop, "policy has come to deny its flow"
	}
	switch e.p.Conn {
	case ConnEstablished:
		return e.s.Settings.FilterAllow, "established"
	case ConnInvalid:
		return Drop, "invalid"
	}
	return 0, ""
}

func (e *evaluation) source() *Endpoint      { return e.s.Endpoints[Interface(e.p.In)] }
func (e *evaluation) destination() *Endpoint { return e.s.Endpoints[Interface(e.p.Out)] }

// ownSource tells whether the packet's source may come from the pod's interface.
// Neighbour discovery also uses link-local addresses and the unspecified one.
func (e *evaluation) ownSource() bool {
	src := e.p.Src
	if e.p.Discovery() && (src.IsUnspecified() || src.IsLinkLocalUnicast()) {
		return true
	}
	return slices.ContainsFunc(e.source().Allowed(&e.s.Settings), func(x netip.Prefix) bool { return x.Contains(src) })
}

// podTunnel tells whether the packet is of a protocol that tunnels use, which pods may
// not forge.
func (e *evaluation) podTunnel() bool {
	set := &e.s.Settings
	switch e.p.Protocol {
	case protocolIPIP:
		return !set.AllowIPIPFromPod
	case UDP:
		return !set.AllowVXLANFromPod && !e.p.Fragment && e.p.DstPort == set.VXLANPort
	}
	return false
}

const protocolIPIP Protocol = 4

// foreignTunnel tells whether the packet would enter a tunnel device of ours, but comes
// from no node that we know.
func (e *evaluation) foreignTunnel() bool {
	for _, t := range e.s.Tunnels {
		if t.OuterFamily() != e.p.Family() {
			continue
		}
		ours := t.Encap == IPIP && e.p.Protocol == protocolIPIP ||
			t.Encap == VXLAN && e.p.Protocol == UDP && !e.p.Fragment && e.p.DstPort == t.OuterPort(&e.s.Settings)
		if ours && !e.inSet(SetNodes, e.p.Src) {
			return true
		}
	}
	return false
}

// natOutgoing tells whether the packet leaves the pools from one with natOutgoing.
func (e *evaluation) natOutgoing() bool {
	return e.inSet(SetMasqPools, e.p.Src) && !e.inSet(SetAllPools, e.p.Dst)
}

// foreignSource tells whether the packet is the host's own, out of a tunnel device with
// an address that is not the tunnel's.
func (e *evaluation) foreignSource() bool {
	t, ok := e.s.Tunnels[e.p.Out]
	return ok && e.p.In == "" && t.Family == e.p.Family() && t.Addr.IsValid() && e.p.Src != t.Addr
}

func (e *evaluation) egress() bool {
	ep := e.source()
	return e.tiers(ep, ep.Egress, false)
}

func (e *evaluation) ingress() bool {
	ep := e.destination()
	return e.tiers(ep, ep.Ingress, true)
}

// tiers tells whether the endpoint's policies of one direction allow the packet. Nothing
// may come from, or go to, a pod that has no address of the packet's family.
func (e *evaluation) tiers(ep *Endpoint, tiers []TierPolicies, ingress bool) bool {
	if !ep.Speaks(e.p.Family(), &e.s.Settings) {
		return false
	}
	for _, t := range tiers {
		step := Step{Endpoint: ep.Interface, Ingress: ingress, Tier: t.Tier}
		switch e.tier(t, step) {
		case Allow:
			return true
		case Deny:
			return false
		}
	}
	for _, id := range ep.Profiles {
		step := Step{Endpoint: ep.Interface, Ingress: ingress, Policy: id}
		switch e.policy(step) {
		case Allow:
			return true
		case Deny:
			return false
		}
		// Pass leaves the profile, and the next one is asked.
	}
	return false
}

// tier returns Allow, Deny, or Pass to go on to the next tier.
func (e *evaluation) tier(t TierPolicies, step Step) Action {
	for _, id := range t.Policies {
		step.Policy = id
		if a := e.policy(step); a != 0 {
			return a
		}
	}
	end := Deny
	if t.Default == Pass {
		end = Pass
	}
	step.Policy, step.Rule, step.Action, step.Matched = PolicyID{}, -1, end, true
	e.trace.Steps = append(e.trace.Steps, step)
	return end
}

// policy returns Allow, Deny or Pass, or 0 if no rule decides.
func (e *evaluation) policy(step Step) Action {
	pol := e.s.Policies[step.Policy]
	if pol == nil {
		return 0
	}
	rules := pol.Egress
	if step.Ingress {
		rules = pol.Ingress
	}
	for i := range rules {
		step.Rule, step.Action = i, rules[i].Action
		step.Unmet, step.Sets = e.unmet(&rules[i])
		step.Matched = step.Unmet == ""
		e.trace.Steps = append(e.trace.Steps, step)
		if step.Matched && step.Action != Log {
			return step.Action.decision()
		}
	}
	return 0
}

// decision is a rule's action where the rule matches; what is unknown denies.
func (a Action) decision() Action {
	if a == Allow || a == Pass {
		return a
	}
	return Deny
}

// unmet returns the first condition of the rule that the packet does not meet, and the set
// that it is about, if it is about one; or "" and the sets that the rule found it in.
func (e *evaluation) unmet(r *Rule) (Condition, []SetID) {
	p := &e.p
	switch {
	case r.Family != 0 && r.Family != p.Family():
		return OfFamily, nil
	case r.Protocol != 0 && r.Protocol != p.Protocol:
		return OfProtocol, nil
	case r.NotProtocol != 0 && r.NotProtocol == p.Protocol:
		return OfNotProtocol, nil
	case r.ICMP != nil && !(p.ICMP() && r.ICMP.Matches(p)):
		return OfICMP, nil
	case r.NotICMP != nil && !(p.ICMP() && !r.NotICMP.Matches(p)):
		return OfNotICMP, nil
	}
	not, from := e.unmetBy(&r.Src, p.Src, p.SrcPort)
	if not != "" {
		return OfSource + not, from
	}
	not, to := e.unmetBy(&r.Dst, p.Dst, p.DstPort)
	if not != "" {
		return OfDestination + not, to
	}
	return "", append(from, to...)
}

// Matches tells whether the packet, which is of ICMP, has this type and code.
func (i *ICMP) Matches(p *Packet) bool {
	return i.Type == p.Type && (!i.HasCode || i.Code == p.Code)
}

// unmetBy is the like of unmet for one end of the packet's path. What x says of ports, even if
// it is negative, only packets meet that have ports.
func (e *evaluation) unmetBy(x *Peer, addr netip.Addr, port uint16) (Condition, []SetID) {
	contains := func(n netip.Prefix) bool { return n.Contains(addr) }
	has := func(id SetID) bool { return e.inSet(id, addr) }
	hasNot := func(id SetID) bool { return !has(id) }
	hasPort := func(id SetID) bool {
		_, ok := e.s.Sets[id][Member{netip.PrefixFrom(addr, addr.BitLen()), e.p.Protocol, port}]
		return ok
	}
	in := func(r PortRange) bool { return r.Min <= port && port <= r.Max }
	named := which(x.PortSets, hasPort)
	switch {
	case len(x.Nets) > 0 && !slices.ContainsFunc(x.Nets, contains):
		return OfNets, nil
	case slices.ContainsFunc(x.NotNets, contains):
		return OfNotNets, nil
	case slices.ContainsFunc(x.Sets, hasNot):
		return OfSets, which(x.Sets, hasNot)[:1]
	case slices.ContainsFunc(x.NotSets, has):
		return OfNotSets, which(x.NotSets, has)[:1]
	case len(x.NotPorts)+len(x.NotPortSets) > 0 && !e.p.Ports() || slices.ContainsFunc(x.NotPorts, in):
		return OfNotPorts, nil
	case slices.ContainsFunc(x.NotPortSets, hasPort):
		return OfNotPorts, which(x.NotPortSets, hasPort)[:1]
	case len(x.Ports)+len(x.PortSets) > 0 && !(e.p.Ports() && (slices.ContainsFunc(x.Ports, in) || len(named) > 0)):
		return OfPorts, nil
	}
	return "", append(slices.Clone(x.Sets), named...)
}

// which lists the sets of which f is true.
func which(ids []SetID, f func(SetID) bool) []SetID {
	return slices.DeleteFunc(slices.Clone(ids), func(id SetID) bool { return !f(id) })
}

// inSet tells whether a set of prefixes contains addr. A set that is not there is empty.
func (e *evaluation) inSet(id SetID, addr netip.Addr) bool {
	for m := range e.s.Sets[id] {
		if m.Protocol == 0 && m.Prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// IsWorkload tells whether a device of that name is a pod's host side.
func (s *State) IsWorkload(device string) bool {
	has := func(prefix string) bool { return strings.HasPrefix(device, prefix) }
	return device != "" && slices.ContainsFunc(s.Settings.InterfacePrefixes, has)
}

// Allowed returns the sources of packets that may come from the endpoint's interface.
func (ep *Endpoint) Allowed(set *Settings) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range ep.Addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	if set.AllowSpoofing {
		out = append(out, ep.Sources...)
	}
	return out
}

// Speaks tells whether the endpoint may send from an address of the family.
func (ep *Endpoint) Speaks(f Family, set *Settings) bool {
	of := func(p netip.Prefix) bool { return FamilyOf(p.Addr()) == f }
	return slices.ContainsFunc(ep.Allowed(set), of)
}

// OuterFamily is the family of the packets that carry others.
func (t *Tunnel) OuterFamily() Family {
	if t.Underlay.IsValid() {
		return FamilyOf(t.Underlay)
	}
	return t.Family
}

// OuterPort is the UDP port of VXLAN packets.
func (t *Tunnel) OuterPort(set *Settings) uint16 {
	if t.Port != 0 {
		return t.Port
	}
	return set.VXLANPort
}
