package api

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
})

// Default fills in what the user left out.
func (o *NetworkPolicy) Default() {}

// Validate says what is wrong with o.
func (o *NetworkPolicy) Validate() error { return nil }
