package calc

import (
	"cmp"
	"math"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/selector"
	"github.com/calicogo/calico/store"
)

// policy is a NetworkPolicy or GlobalNetworkPolicy as far as pods are concerned.
type policy struct {
	id       dataplane.PolicyID
	tier     string
	order    float64 // +Inf: last
	ingress  bool    // governs packets to the pod
	egress   bool
	selector *selector.Selector // of the endpoints that it governs
	broken   bool               // a selector does not parse: it denies
	problems []Problem
	in, out  []api.Rule // until they are made into ruling
	ruling   *ruling    // nil: not made yet
}

// ruling is what a policy or profile in use puts into the state, and what is wrong with
// its rules.
type ruling struct {
	*dataplane.Policy
	sets     []set // that the rules name, each once
	problems []Problem
}

const (
	kindProfile = "Profile"
	kindPolicy  = "NetworkPolicy"
	kindGlobal  = "GlobalNetworkPolicy"
)

// ingest reads a stored policy. It is nil if the policy does not concern pods: doNotTrack
// and preDNAT policies are for the interfaces of hosts, as hostOnly says. (applyOnForward
// alone adds the forwarded traffic of hosts; such a policy governs pods like any other.)
func ingest(o api.Object) *policy {
	switch o := o.(type) {
	case *api.NetworkPolicy:
		return ingestNamespaced(o)
	case *api.GlobalNetworkPolicy:
		return ingestGlobal(o)
	}
	return nil
}

func ingestNamespaced(o *api.NetworkPolicy) *policy {
	p := newPolicy(store.KeyOf(o), o.Spec.Tier, o.Spec.Order)
	p.types(o.Spec.Types, o.Spec.Ingress, o.Spec.Egress)
	p.selector = selector.And(p.terms(
		term{"selector", o.Spec.Selector, selector.Parse},
		term{"serviceAccountSelector", o.Spec.ServiceAccountSelector, serviceAccountSelector},
		term{"", o.Namespace, ownNamespace},
	)...)
	return p
}

func ingestGlobal(o *api.GlobalNetworkPolicy) *policy {
	if o.Spec.DoNotTrack || o.Spec.PreDNAT {
		return nil
	}
	p := newPolicy(store.KeyOf(o), o.Spec.Tier, o.Spec.Order)
	p.types(o.Spec.Types, o.Spec.Ingress, o.Spec.Egress)
	p.selector = selector.And(p.terms(
		term{"selector", o.Spec.Selector, selector.Parse},
		term{"namespaceSelector", o.Spec.NamespaceSelector, namespaceSelector},
		term{"serviceAccountSelector", o.Spec.ServiceAccountSelector, serviceAccountSelector},
	)...)
	return p
}

// hostOnly tells of a policy that is for the interfaces of hosts, which nothing governs yet.
func hostOnly(o api.Object) []Problem {
	g, ok := o.(*api.GlobalNetworkPolicy)
	if !ok || !g.Spec.DoNotTrack && !g.Spec.PreDNAT {
		return nil
	}
	return []Problem{{store.KeyOf(o), Unsupported, "a doNotTrack or preDNAT policy is for the interfaces of hosts, which no policy governs here: it has no effect"}}
}

func newPolicy(k store.Key, tier string, order *float64) *policy {
	return &policy{id: dataplane.PolicyID(k), tier: cmp.Or(tier, api.DefaultTier), order: orderOf(order)}
}

// compareTies orders policies with equal orders as upstream does, by the string tie.
func compareTies(a, b dataplane.PolicyID) int {
	n := min(len(a.Name), len(b.Name))
	if c := cmp.Compare(a.Name[:n], b.Name[:n]); c != 0 {
		return c
	}
	return cmp.Compare(tie(a), tie(b))
}

func tie(id dataplane.PolicyID) string { return id.Name + "/" + id.Namespace + "/" + id.Kind }

func orderOf(o *float64) float64 {
	if o == nil || math.IsNaN(*o) {
		return math.Inf(1)
	}
	return *o
}

// types sets the directions that the policy governs and their rules. A policy that was
// stored without defaults is read as upstream defaults it.
func (p *policy) types(types []api.PolicyType, in, out []api.Rule) {
	if len(types) == 0 {
		p.ingress, p.egress = len(in) > 0 || len(out) == 0, len(out) > 0
	} else {
		p.ingress, p.egress = slices.Contains(types, api.Ingress), slices.Contains(types, api.Egress)
	}
	if p.ingress {
		p.in = in
	}
	if p.egress {
		p.out = out
	}
}

// term is one of the selectors that together say whom a policy governs.
type term struct {
	field, text string
	parse       func(string) (*selector.Selector, error)
}

// terms parses the selectors that are given. One that does not parse is left out, so that
// the policy governs more, and breaks the policy, so that it denies.
func (p *policy) terms(ts ...term) []*selector.Selector {
	var sels []*selector.Selector
	for _, t := range ts {
		if t.text == "" {
			continue
		}
		s, err := t.parse(t.text)
		if err != nil {
			p.broken = true
			p.problem(BadSelector, t.field+": "+err.Error()+"; the policy denies all that the rest of it selects")
			continue
		}
		sels = append(sels, s)
	}
	return sels
}

func (p *policy) problem(r Reason, msg string) {
	p.problems = append(p.problems, Problem{Object: store.Key(p.id), Reason: r, Message: msg})
}

func ownNamespace(ns string) (*selector.Selector, error) {
	return selector.Equal(api.LabelNamespace, ns), nil
}

// rule is the policy in the dataplane's terms. It is made when it is first asked for: most
// policies of a cluster govern nobody here. Then the stored rules are let go of.
func (p *policy) rule() *ruling {
	if p.ruling == nil {
		p.ruling = p.makeRuling()
		p.in, p.out = nil, nil
	}
	return p.ruling
}

func (p *policy) makeRuling() *ruling {
	if !p.broken {
		return newRuling(p.id, p.in, p.out)
	}
	d := &dataplane.Policy{ID: p.id}
	if p.ingress {
		d.Ingress = denyAll().rules
	}
	if p.egress {
		d.Egress = denyAll().rules
	}
	return &ruling{Policy: d}
}

// profileRuling is a profile in the dataplane's terms. Without o, it has no rules.
func profileRuling(id dataplane.PolicyID, o *api.Profile) *ruling {
	if o == nil {
		return &ruling{Policy: &dataplane.Policy{ID: id}, problems: []Problem{{
			Object: store.Key(id), Reason: NoProfile,
			Message: "an endpoint of this node names the profile, but there is none: it allows nothing",
		}}}
	}
	return newRuling(id, o.Spec.Ingress, o.Spec.Egress)
}

func newRuling(id dataplane.PolicyID, in, out []api.Rule) *ruling {
	i := compileRules(in, id.Namespace, "ingress")
	e := compileRules(out, id.Namespace, "egress")
	r := &ruling{Policy: &dataplane.Policy{ID: id, Ingress: i.rules, Egress: e.rules}, sets: distinct(i.sets, e.sets)}
	for _, err := range slices.Concat(i.errs, e.errs) {
		r.problems = append(r.problems, Problem{Object: store.Key(id), Reason: err.reason, Message: err.text})
	}
	return r
}

// distinct lists the sets that are in a or b, each once.
func distinct(a, b []set) []set {
	all := a
	if len(b) > 0 {
		all = slices.Concat(a, b)
	}
	slices.SortFunc(all, func(a, b set) int { return cmp.Compare(a.id, b.id) })
	return slices.CompactFunc(all, func(a, b set) bool { return a.id == b.id })
}

func profileID(name string) dataplane.PolicyID {
	return dataplane.PolicyID{Kind: kindProfile, Name: name}
}

// tier says where a tier stands and what becomes of packets that its policies select but
// do not match.
type tier struct {
	name   string
	order  float64
	last   bool // there is no such tier: it comes after all others
	action dataplane.Action
}

var builtinTiers = func() map[string]tier {
	m := map[string]tier{}
	for _, t := range api.BuiltInTiers() {
		m[t.Name] = readTier(t.Name, t)
	}
	return m
}()

// tierOf reads a stored tier, or, where o is nil, gives what stands in for it. What a built-in
// tier was stored without is as in every cluster: older releases wrote no order.
func tierOf(name string, o *api.Tier) tier {
	b, builtin := builtinTiers[name]
	if builtin && o == nil {
		return b
	}
	t := readTier(name, o)
	if builtin && o.Spec.Order == nil {
		t.order = b.order
	}
	if builtin && o.Spec.DefaultAction == "" {
		t.action = b.action
	}
	return t
}

func readTier(name string, o *api.Tier) tier {
	if o == nil {
		return tier{name, math.Inf(1), true, dataplane.Deny}
	}
	t := tier{name, orderOf(o.Spec.Order), false, dataplane.Deny}
	if o.Spec.DefaultAction == api.Pass {
		t.action = dataplane.Pass
	}
	return t
}

func compareTiers(a, b tier) int {
	switch {
	case a.last != b.last && a.last:
		return 1
	case a.last != b.last:
		return -1
	}
	return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.name, b.name))
}

// governing pairs a policy with its tier.
type governing struct {
	tier tier
	*policy
}

// arrange orders the policies that govern an endpoint into tiers, for one direction.
func arrange(gs []governing, governs func(*policy) bool) []dataplane.TierPolicies {
	slices.SortFunc(gs, func(a, b governing) int {
		return cmp.Or(compareTiers(a.tier, b.tier), cmp.Compare(a.order, b.order), compareTies(a.id, b.id))
	})
	var tiers []dataplane.TierPolicies
	for _, g := range gs {
		if !governs(g.policy) {
			continue
		}
		if n := len(tiers); n == 0 || tiers[n-1].Tier != g.tier.name {
			tiers = append(tiers, dataplane.TierPolicies{Tier: g.tier.name, Default: g.tier.action})
		}
		t := &tiers[len(tiers)-1]
		t.Policies = append(t.Policies, g.id)
	}
	return tiers
}

func governsIngress(p *policy) bool { return p.ingress }
func governsEgress(p *policy) bool  { return p.egress }
