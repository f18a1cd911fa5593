package api

import "strings"

// NetworkPolicy governs the endpoints of its namespace that it selects.
type NetworkPolicy struct {
	Meta `json:",inline"`
	Spec NetworkPolicySpec `json:"spec"`
}

// NetworkPolicySpec says which endpoints and what traffic.
type NetworkPolicySpec struct {
	Tier                   string       `json:"tier,omitempty"`
	Order                  *float64     `json:"order,omitempty"` // lower first; nil last
	Selector               string       `json:"selector,omitempty"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	Types                  []PolicyType `json:"types,omitempty"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"`
}

// KindNetworkPolicy describes NetworkPolicy.
var KindNetworkPolicy = register(&Kind{
	Name:       "NetworkPolicy",
	Plural:     "networkpolicies",
	Short:      []string{"policy", "policies", "np", "pol", "cnp", "caliconetworkpolicy"},
	Namespaced: true,
	New:        func() Object { return &NetworkPolicy{Meta: typed("NetworkPolicy")} },
	Columns: []Column{
		nameColumn(),
		column("TIER", func(o *NetworkPolicy) string { return o.Spec.Tier }),
		wide(column("ORDER", func(o *NetworkPolicy) string { return number(o.Spec.Order) })),
		wide(column("SELECTOR", func(o *NetworkPolicy) string { return o.Spec.Selector })),
	},
})

// Default fills in what the user left out.
func (o *NetworkPolicy) Default() {
	defaultTier(&o.Meta, &o.Spec.Tier)
	o.Spec.Types = defaultTypes(o.Spec.Types, o.Spec.Ingress, o.Spec.Egress)
	defaultRules(o.Spec.Ingress)
	defaultRules(o.Spec.Egress)
}

// Validate says what is wrong with o.
func (o *NetworkPolicy) Validate() error {
	// The limits are those of Calico's schema; Kubernetes has none.
	p := &problems{unlimited: strings.HasPrefix(o.Name, KubePolicyPrefix)}
	p.meta(KindNetworkPolicy, &o.Meta, policyNameRule(policyName))
	p.tierAndHints(o.Spec.Tier, o.Spec.PerformanceHints)
	p.selector(specPath.Child("selector"), o.Spec.Selector, false)
	p.selector(specPath.Child("serviceAccountSelector"), o.Spec.ServiceAccountSelector, false)
	p.policyTypes(o.Spec.Types)
	p.policyRules(o.Spec.Ingress, o.Spec.Egress, false)
	return p.err()
}
