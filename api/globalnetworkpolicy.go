package api

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
})

// Default fills in what the user left out.
func (o *GlobalNetworkPolicy) Default() {}

// Validate says what is wrong with o.
func (o *GlobalNetworkPolicy) Validate() error { return nil }
