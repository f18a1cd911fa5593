package kubeconv

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/calicogo/calico/api"
)

// policyOrder is the order of every Kubernetes policy.
const policyOrder = 1000.0

// NetworkPolicy returns the policy that means what np means: knp.default.NAME of the same
// namespace. It is defaulted. Where np says what an API server would have refused, the
// error names the field.
func NetworkPolicy(np *networkingv1.NetworkPolicy) (*api.NetworkPolicy, error) {
	p, err := networkPolicy(np)
	if err != nil {
		return nil, fmt.Errorf("NetworkPolicy %s/%s: spec.%w", np.Namespace, np.Name, err)
	}
	p.Default()
	return p, nil
}

func networkPolicy(np *networkingv1.NetworkPolicy) (*api.NetworkPolicy, error) {
	p := &api.NetworkPolicy{Meta: api.Named(api.KindNetworkPolicy, np.Namespace, api.KubePolicyPrefix+np.Name)}
	p.Spec.Tier = api.DefaultTier
	p.Spec.Order = new(policyOrder)
	var err error
	if p.Spec.Selector, err = podSelector(&np.Spec.PodSelector); err != nil {
		return nil, err
	}
	if p.Spec.Types, err = policyTypes(&np.Spec); err != nil {
		return nil, err
	}
	for i, r := range np.Spec.Ingress {
		rules, err := ingressRules(r)
		if err != nil {
			return nil, fmt.Errorf("ingress[%d].%w", i, err)
		}
		p.Spec.Ingress = append(p.Spec.Ingress, rules...)
	}
	for i, r := range np.Spec.Egress {
		rules, err := egressRules(r)
		if err != nil {
			return nil, fmt.Errorf("egress[%d].%w", i, err)
		}
		p.Spec.Egress = append(p.Spec.Egress, rules...)
	}
	return p, nil
}

// policyTypes does what an API server does when the user gives none: Ingress always,
// Egress if there are egress rules.
func policyTypes(s *networkingv1.NetworkPolicySpec) ([]api.PolicyType, error) {
	types := s.PolicyTypes
	if len(types) == 0 {
		types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(s.Egress) > 0 {
			types = append(types, networkingv1.PolicyTypeEgress)
		}
	}
	var out []api.PolicyType
	for i, t := range types {
		switch {
		case t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress:
			return nil, fmt.Errorf("policyTypes[%d]: %q: must be Ingress or Egress", i, t)
		case !slices.Contains(out, api.PolicyType(t)):
			out = append(out, api.PolicyType(t))
		}
	}
	return out, nil
}

func ingressRules(r networkingv1.NetworkPolicyIngressRule) ([]api.Rule, error) {
	ports, err := portGroups(r.Ports)
	if err != nil {
		return nil, err
	}
	peers, err := peers("from", r.From)
	if err != nil {
		return nil, err
	}
	var rules []api.Rule
	for _, g := range ports {
		for _, peer := range peers {
			rules = append(rules, api.Rule{
				Action: api.Allow, Protocol: g.rule(), Source: peer,
				Destination: api.EntityRule{Ports: g.ports},
			})
		}
	}
	return rules, nil
}

func egressRules(r networkingv1.NetworkPolicyEgressRule) ([]api.Rule, error) {
	ports, err := portGroups(r.Ports)
	if err != nil {
		return nil, err
	}
	peers, err := peers("to", r.To)
	if err != nil {
		return nil, err
	}
	var rules []api.Rule
	for _, g := range ports {
		for _, peer := range peers {
			peer.Ports = g.ports
			rules = append(rules, api.Rule{Action: api.Allow, Protocol: g.rule(), Destination: peer})
		}
	}
	return rules, nil
}

// peers converts the peers of a rule. An empty list means every peer there is.
func peers(list string, in []networkingv1.NetworkPolicyPeer) ([]api.EntityRule, error) {
	if len(in) == 0 {
		return []api.EntityRule{{}}, nil
	}
	var out []api.EntityRule
	for i, p := range in {
		e, err := peer(p)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]%w", list, i, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// peer converts one peer. Without a namespaceSelector its pods are those of the policy's
// own namespace; that is also what a rule of a Calico NetworkPolicy means.
func peer(p networkingv1.NetworkPolicyPeer) (e api.EntityRule, err error) {
	switch {
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		return e, fmt.Errorf(": ipBlock cannot be combined with podSelector or namespaceSelector")
	case p.IPBlock != nil:
		return ipBlock(p.IPBlock)
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		return e, fmt.Errorf(": must have a podSelector, a namespaceSelector or an ipBlock")
	}
	if e.Selector, err = podSelector(p.PodSelector); err != nil {
		return e, fmt.Errorf(".%w", err)
	}
	if e.NamespaceSelector, err = namespaceSelector(p.NamespaceSelector); err != nil {
		return e, fmt.Errorf(".%w", err)
	}
	return e, nil
}

func ipBlock(b *networkingv1.IPBlock) (e api.EntityRule, err error) {
	in, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return e, fmt.Errorf(".ipBlock.cidr: %q: must be a CIDR such as 10.0.0.0/8", b.CIDR)
	}
	e.Nets = []string{in.Masked().String()}
	for i, s := range b.Except {
		not, err := netip.ParsePrefix(s)
		if err != nil || !in.Contains(not.Masked().Addr()) || not.Bits() <= in.Bits() {
			return e, fmt.Errorf(".ipBlock.except[%d]: %q: must be a CIDR strictly within %s", i, s, b.CIDR)
		}
		e.NotNets = append(e.NotNets, not.Masked().String())
	}
	return e, nil
}

// portGroup is the ports of one protocol that a rule allows: none means all of them.
type portGroup struct {
	protocol api.Protocol // empty: any
	ports    []api.Port
}

func (g portGroup) rule() *api.Protocol {
	if g.protocol == "" {
		return nil
	}
	return new(g.protocol)
}

// portGroups gathers ports by protocol, in order of protocol. No ports at all means any
// protocol.
func portGroups(in []networkingv1.NetworkPolicyPort) ([]portGroup, error) {
	if len(in) == 0 {
		return []portGroup{{}}, nil
	}
	ports := map[api.Protocol][]api.Port{}
	whole := map[api.Protocol]bool{}
	for i, p := range in {
		protocol, err := protocolOf(p)
		if err != nil {
			return nil, fmt.Errorf("ports[%d].%w", i, err)
		}
		port, any, err := portOf(p)
		if err != nil {
			return nil, fmt.Errorf("ports[%d].%w", i, err)
		}
		ports[protocol] = append(ports[protocol], port)
		whole[protocol] = whole[protocol] || any
	}
	var groups []portGroup
	for protocol, list := range ports {
		if whole[protocol] {
			list = nil
		}
		groups = append(groups, split(protocol, list)...)
	}
	slices.SortStableFunc(groups, func(a, b portGroup) int { return cmp.Compare(a.protocol, b.protocol) })
	return groups, nil
}

// maxPorts is how many ports a Calico rule may have. Kubernetes knows no limit.
const maxPorts = 50

// split merges ranges that touch, and parts the list where it is too long for one rule.
func split(protocol api.Protocol, list []api.Port) []portGroup {
	list = merge(list)
	if len(list) == 0 {
		return []portGroup{{protocol: protocol}}
	}
	var groups []portGroup
	for part := range slices.Chunk(list, maxPorts) {
		groups = append(groups, portGroup{protocol, part})
	}
	return groups
}

// merge orders ports, names last, and joins the ranges that overlap or touch.
func merge(list []api.Port) []api.Port {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b api.Port) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	var out []api.Port
	for _, p := range list {
		last := len(out) - 1
		switch {
		case last >= 0 && p == out[last]:
		case last >= 0 && p.Name == "" && out[last].Name == "" && int(p.Min) <= int(out[last].Max)+1:
			out[last].Max = max(out[last].Max, p.Max)
		default:
			out = append(out, p)
		}
	}
	return out
}

func protocolOf(p networkingv1.NetworkPolicyPort) (api.Protocol, error) {
	if p.Protocol == nil {
		return "TCP", nil
	}
	switch *p.Protocol {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return api.Protocol(*p.Protocol), nil
	}
	return "", fmt.Errorf("protocol: %q: must be TCP, UDP or SCTP", *p.Protocol)
}

// portOf converts a port; any says that every port of the protocol is meant.
func portOf(p networkingv1.NetworkPolicyPort) (port api.Port, any bool, err error) {
	switch {
	case p.Port == nil && p.EndPort != nil:
		return port, false, fmt.Errorf("endPort: may only be given together with port")
	case p.Port == nil:
		return port, true, nil
	case p.Port.Type == intstr.String:
		return namedPort(p)
	}
	lo, hi := p.Port.IntVal, p.Port.IntVal
	if p.EndPort != nil {
		hi = *p.EndPort
	}
	switch {
	case lo < 1 || lo > 65535:
		return port, false, fmt.Errorf("port: %d: must be from 1 to 65535", lo)
	case hi < lo || hi > 65535:
		return port, false, fmt.Errorf("endPort: %d: must be from %d to 65535", hi, lo)
	}
	return api.Port{Min: uint16(lo), Max: uint16(hi)}, false, nil
}

func namedPort(p networkingv1.NetworkPolicyPort) (api.Port, bool, error) {
	name := p.Port.StrVal
	if p.EndPort != nil {
		return api.Port{}, false, fmt.Errorf("endPort: may not be given with the named port %q", name)
	}
	if msgs := validation.IsValidPortName(name); len(msgs) > 0 {
		return api.Port{}, false, fmt.Errorf("port: %q: %s", name, msgs[0])
	}
	return api.Port{Name: name}, false, nil
}
