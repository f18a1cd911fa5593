package api

import (
	"slices"
)

// GlobalNetworkPolicy governs the endpoints of the whole cluster that it selects.
type GlobalNetworkPolicy struct {
	Meta `json:",inline"`
	Spec GlobalNetworkPolicySpec `json:"spec"`
}

// GlobalNetworkPolicySpec says which endpoints and what traffic.
type GlobalNetworkPolicySpec struct {
	Tier                   string       `json:"tier,omitempty"`
	Order                  *float64     `json:"order,omitempty"` // lower first; nil last
	Selector               string       `json:"selector,omitempty"`
	NamespaceSelector      string       `json:"namespaceSelector,omitempty"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	Types                  []PolicyType `json:"types,omitempty"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	DoNotTrack             bool         `json:"doNotTrack,omitempty"`
	PreDNAT                bool         `json:"preDNAT,omitempty"`
	ApplyOnForward         bool         `json:"applyOnForward,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"`
}

// KindGlobalNetworkPolicy describes GlobalNetworkPolicy.
var KindGlobalNetworkPolicy = register(&Kind{
	Name:   "GlobalNetworkPolicy",
	Plural: "globalnetworkpolicies",
	Short:  []string{"gnp", "gnps", "cgnp"},
	New:    func() Object { return &GlobalNetworkPolicy{Meta: typed("GlobalNetworkPolicy")} },
	Columns: []Column{
		nameColumn(),
		column("TIER", func(o *GlobalNetworkPolicy) string { return o.Spec.Tier }),
		wide(column("ORDER", func(o *GlobalNetworkPolicy) string { return number(o.Spec.Order) })),
		wide(column("SELECTOR", func(o *GlobalNetworkPolicy) string { return o.Spec.Selector })),
	},
})

// Default fills in what the user left out.
func (o *GlobalNetworkPolicy) Default() {
	defaultTier(&o.Meta, &o.Spec.Tier)
	o.Spec.Types = defaultTypes(o.Spec.Types, o.Spec.Ingress, o.Spec.Egress)
	defaultRules(o.Spec.Ingress)
	defaultRules(o.Spec.Egress)
}

// Validate says what is wrong with o.
func (o *GlobalNetworkPolicy) Validate() error {
	p := &problems{}
	p.meta(KindGlobalNetworkPolicy, &o.Meta, policyNameRule(clusterPolName))
	p.tierAndHints(o.Spec.Tier, o.Spec.PerformanceHints)
	p.selector(specPath.Child("selector"), o.Spec.Selector, false)
	p.selector(specPath.Child("namespaceSelector"), o.Spec.NamespaceSelector, false)
	p.selector(specPath.Child("serviceAccountSelector"), o.Spec.ServiceAccountSelector, false)
	p.policyTypes(o.Spec.Types)
	p.policyRules(o.Spec.Ingress, o.Spec.Egress, true)
	o.Spec.hostModes(p)
	return p.err()
}

// hostModes checks the fields that are about host endpoints.
func (s *GlobalNetworkPolicySpec) hostModes(p *problems) {
	if s.PreDNAT && s.DoNotTrack {
		p.forbidden(specPath.Child("preDNAT"), "cannot be true together with doNotTrack")
	}
	if (s.PreDNAT || s.DoNotTrack) && !s.ApplyOnForward {
		p.invalid(specPath.Child("applyOnForward"), false, "must be true if preDNAT or doNotTrack is")
	}
	if s.PreDNAT && len(s.Egress) > 0 {
		p.forbidden(specPath.Child("egress"), "a preDNAT policy cannot have egress rules")
	}
	if s.PreDNAT && slices.Contains(s.Types, Egress) {
		p.forbidden(specPath.Child("types"), "a preDNAT policy cannot have the type Egress")
	}
}
