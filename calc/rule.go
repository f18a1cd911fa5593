package calc

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/selector"
)

// set is the definition of a set that rules name: the addresses of all endpoints that a
// selector matches, or, with a port's name, those of them that have a port of that name
// and protocol, with its number; or what a service consists of.
type set struct {
	id           dataplane.SetID
	selector     *selector.Selector // nil: of a service, or of neither
	port         string             // empty: whole addresses
	protocol     dataplane.Protocol // with port
	servicePorts bool
	service      *service
}

func selectorSet(s *selector.Selector) set {
	return set{id: dataplane.SetID(s.ID()), selector: s}
}

func portSet(s *selector.Selector, port string, p dataplane.Protocol) set {
	sum := sha256.Sum224(fmt.Appendf(nil, "n:%s %d %s", s.ID(), p, port))
	id := "n:" + base64.RawURLEncoding.EncodeToString(sum[:])
	return set{id: dataplane.SetID(id), selector: s, port: port, protocol: p}
}

// compiled is one list of rules in the dataplane's terms, and the sets that it names.
type compiled struct {
	rules []dataplane.Rule
	sets  []set
	errs  []ruleError
}

type ruleError struct {
	reason Reason
	text   string
}

// compileRules turns the rules of a policy of the given namespace (empty: none) into the
// dataplane's. See the package's description for what becomes of a rule that cannot be
// enforced as it is written.
func compileRules(rules []api.Rule, namespace, direction string) compiled {
	var c compiled
	for i := range rules {
		b := ruleBuilder{namespace: namespace, sets: c.sets}
		b.rule.Index = uint16(min(i, math.MaxUint16))
		b.build(&rules[i])
		for _, e := range b.errs {
			e.text = fmt.Sprintf("%s[%d]: %s", direction, i, e.text)
			c.errs = append(c.errs, e)
		}
		if b.finish() {
			c.rules = append(c.rules, b.rule)
			c.sets = b.sets
		}
	}
	return c
}

// denyAll are the rules of a policy that cannot be understood.
func denyAll() compiled { return compiled{rules: []dataplane.Rule{{Action: dataplane.Deny}}} }

// ruleBuilder builds one rule. A condition that cannot be read is left out of rule and
// noted in errs.
type ruleBuilder struct {
	namespace string
	rule      dataplane.Rule
	sets      []set // of the rules before, too
	errs      []ruleError
	never     bool // no packet can match: the conditions name different families
}

func (b *ruleBuilder) fail(r Reason, format string, args ...any) {
	b.errs = append(b.errs, ruleError{r, fmt.Sprintf(format, args...)})
}

// finish settles what becomes of the rule; it is false if the rule is to be left out.
func (b *ruleBuilder) finish() bool {
	if b.never {
		return false
	}
	if len(b.errs) == 0 {
		return true
	}
	if b.rule.Action == dataplane.Allow || b.rule.Action == dataplane.Log {
		return false
	}
	b.rule.Action = dataplane.Deny
	return true
}

var actions = map[api.Action]dataplane.Action{
	api.Allow: dataplane.Allow, api.Deny: dataplane.Deny, api.Pass: dataplane.Pass, api.Log: dataplane.Log,
}

func (b *ruleBuilder) build(r *api.Rule) {
	a, ok := actions[r.Action]
	if !ok {
		a = dataplane.Deny
		b.fail(BadRule, "action %q: want Allow, Deny, Log or Pass; the rule denies", r.Action)
	}
	b.rule.Action = a
	b.ipVersion(r.IPVersion)
	b.protocols(r)
	b.rule.ICMP = b.icmp(r.ICMP, r)
	b.rule.NotICMP = b.icmp(r.NotICMP, r)
	b.peer(&b.rule.Src, &r.Source, "source")
	b.peer(&b.rule.Dst, &r.Destination, "destination")
	if r.HTTP != nil {
		b.fail(Unsupported, "http is not enforced here")
	}
}

func (b *ruleBuilder) ipVersion(v *int) {
	switch {
	case v == nil:
	case *v == 4 || *v == 6:
		b.family(dataplane.Family(*v))
	default:
		b.fail(BadRule, "ipVersion %d: want 4 or 6", *v)
	}
}

// family restricts the rule to a family. A rule that is restricted to both matches nothing.
func (b *ruleBuilder) family(f dataplane.Family) {
	if b.rule.Family != 0 && b.rule.Family != f {
		b.never = true
	}
	b.rule.Family = f
}

func (b *ruleBuilder) protocols(r *api.Rule) {
	b.rule.Protocol = b.protocol(r.Protocol, "protocol")
	b.rule.NotProtocol = b.protocol(r.NotProtocol, "notProtocol")
}

func (b *ruleBuilder) protocol(p *api.Protocol, field string) dataplane.Protocol {
	if p == nil {
		return 0
	}
	n, ok := p.Number()
	if !ok {
		b.fail(BadRule, "%s %q: want a name such as TCP or a number from 1 to 255", field, *p)
	}
	return dataplane.Protocol(n)
}

func (b *ruleBuilder) icmp(i *api.ICMP, r *api.Rule) *dataplane.ICMP {
	if i == nil || i.Type == nil && i.Code == nil {
		return nil
	}
	switch b.rule.Protocol {
	case dataplane.ICMP4:
		b.family(dataplane.IPv4)
	case dataplane.ICMP6:
		b.family(dataplane.IPv6)
	default:
		b.fail(BadRule, "icmp needs protocol ICMP or ICMPv6")
		return nil
	}
	if i.Type == nil || *i.Type < 0 || *i.Type > 254 || i.Code != nil && (*i.Code < 0 || *i.Code > 255) {
		b.fail(BadRule, "icmp: want a type from 0 to 254, and perhaps a code from 0 to 255")
		return nil
	}
	m := &dataplane.ICMP{Type: uint8(*i.Type)}
	if i.Code != nil {
		m.Code, m.HasCode = uint8(*i.Code), true
	}
	return m
}

func (b *ruleBuilder) peer(p *dataplane.Peer, e *api.EntityRule, side string) {
	p.Nets = b.nets(e.Nets, side, "nets")
	p.NotNets = b.nets(e.NotNets, side, "notNets")
	from := b.selectors(p, e, side)
	p.Ports, p.PortSets = b.ports(e.Ports, from, side, "ports")
	p.NotPorts, p.NotPortSets = b.ports(e.NotPorts, from, side, "notPorts")
	if e.Services != nil {
		b.services(p, e, side)
	}
}

// nets restricts the rule to a family if all nets are of it, negated or not: that is how
// upstream reads a rule without ipVersion, and it keeps "not 10.0.0.0/8" from being all
// of IPv6.
func (b *ruleBuilder) nets(list []string, side, field string) []netip.Prefix {
	nets, err := parseNets(list)
	if err != nil {
		b.fail(BadRule, "%s.%s: %v", side, field, err)
		return nil
	}
	if len(nets) == 0 {
		return nil
	}
	first := familyOf(nets[0])
	if !slices.ContainsFunc(nets, func(p netip.Prefix) bool { return familyOf(p) != first }) {
		b.family(first)
	}
	return nets
}

// selectors adds the sets of endpoints that e names to p. It returns the selector of the
// endpoints whose named ports e may mean; nil if it does not parse.
//
// What is selected and what is not are one set, as upstream has it: of an address that two
// members of the index have, one is enough that is selected and not excluded. notSelector
// alone excludes the addresses of whatever it matches.
func (b *ruleBuilder) selectors(p *dataplane.Peer, e *api.EntityRule, side string) *selector.Selector {
	from, err := positiveSelector(e, b.namespace)
	if err != nil {
		b.fail(BadSelector, "%s.%v", side, err)
	}
	var not *selector.Selector
	if e.NotSelector != "" {
		var notErr error
		if not, notErr = selector.Parse(e.NotSelector); notErr != nil {
			b.fail(BadSelector, "%s.notSelector: %v", side, notErr)
		}
	}
	switch {
	case err != nil:
		return nil
	case from == nil && not == nil:
		return selector.All()
	case from == nil:
		p.NotSets = append(p.NotSets, b.set(selectorSet(not)))
		return selector.All()
	case not != nil:
		from = selector.And(from, selector.Not(not))
	}
	p.Sets = append(p.Sets, b.set(selectorSet(from)))
	if not == nil && e.NotSelector != "" {
		return nil
	}
	return from
}

func (b *ruleBuilder) set(s set) dataplane.SetID {
	b.sets = append(b.sets, s)
	return s.id
}

// positiveSelector is the one selector that stands for namespaceSelector, serviceAccounts
// and selector together; nil if there is none of them. In a policy of a namespace it is
// confined to that namespace unless namespaceSelector says otherwise.
func positiveSelector(e *api.EntityRule, namespace string) (*selector.Selector, error) {
	var terms []*selector.Selector
	if e.NamespaceSelector != "" {
		s, err := namespaceSelector(e.NamespaceSelector)
		if err != nil {
			return nil, fmt.Errorf("namespaceSelector: %w", err)
		}
		terms = append(terms, s)
	} else if namespace != "" && (e.Selector != "" || e.NotSelector != "" || names(e.ServiceAccounts)) {
		terms = append(terms, selector.Equal(api.LabelNamespace, namespace))
	}
	if sa := e.ServiceAccounts; sa != nil {
		if sa.Selector != "" {
			s, err := serviceAccountSelector(sa.Selector)
			if err != nil {
				return nil, fmt.Errorf("serviceAccounts.selector: %w", err)
			}
			terms = append(terms, s)
		}
		if len(sa.Names) > 0 {
			terms = append(terms, selector.In(api.LabelServiceAccount, sa.Names...))
		}
	}
	if e.Selector != "" {
		s, err := selector.Parse(e.Selector)
		if err != nil {
			return nil, fmt.Errorf("selector: %w", err)
		}
		terms = append(terms, s)
	}
	if len(terms) == 0 {
		return nil, nil
	}
	return selector.And(terms...), nil
}

// names tells whether m says anything; what is there but empty matches all.
func names(m *api.ServiceAccountMatch) bool {
	return m != nil && (m.Selector != "" || len(m.Names) > 0)
}

var errNoPorts = errors.New("ports need a protocol that has ports: TCP, UDP, SCTP or UDPLite")

// ports reads a list of ports. All of it is left out if one of them cannot be read, for
// the ports are alternatives of each other.
func (b *ruleBuilder) ports(list []api.Port, from *selector.Selector, side, field string) ([]dataplane.PortRange, []dataplane.SetID) {
	if len(list) == 0 {
		return nil, nil
	}
	if !b.rule.Protocol.HasPorts() {
		b.fail(BadRule, "%s.%s: %v", side, field, errNoPorts)
		return nil, nil
	}
	var ranges []dataplane.PortRange
	var named []set
	for _, p := range list {
		switch {
		case p.Name != "" && from == nil:
			return nil, nil // the selector was found wanting already
		case p.Name != "":
			named = append(named, portSet(from, p.Name, b.rule.Protocol))
		case p.Min <= p.Max:
			ranges = append(ranges, dataplane.PortRange{Min: p.Min, Max: p.Max})
		default:
			b.fail(BadRule, "%s.%s: range %v ends before it begins", side, field, p)
			return nil, nil
		}
	}
	var ids []dataplane.SetID
	for _, s := range named {
		ids = append(ids, b.set(s))
	}
	return normalRanges(ranges), normalIDs(ids)
}

// normalRanges sorts ranges and joins those that touch.
func normalRanges(rs []dataplane.PortRange) []dataplane.PortRange {
	slices.SortFunc(rs, func(a, b dataplane.PortRange) int { return int(a.Min) - int(b.Min) })
	joined := rs[:0]
	for _, r := range rs {
		if n := len(joined); n > 0 && int(r.Min) <= int(joined[n-1].Max)+1 {
			joined[n-1].Max = max(joined[n-1].Max, r.Max)
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

func normalIDs(ids []dataplane.SetID) []dataplane.SetID {
	slices.Sort(ids)
	return slices.Compact(ids)
}
