package api

// Tier is a group of policies that are judged together.
type Tier struct {
	Meta   `json:",inline"`
	Spec   TierSpec    `json:"spec,omitzero"`
	Status *TierStatus `json:"status,omitempty"`
}

// TierSpec orders a tier and says what becomes of packets that its policies select but
// do not match.
type TierSpec struct {
	Order         *float64 `json:"order,omitempty"`         // lower first; nil last
	DefaultAction Action   `json:"defaultAction,omitempty"` // Deny or Pass
}

// TierStatus is what Calico observes of a tier.
type TierStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}

// The tiers that every cluster has.
const (
	DefaultTier      = "default"
	KubeAdminTier    = "kube-admin"
	KubeBaselineTier = "kube-baseline"
)

// KindTier describes Tier.
var KindTier = register(&Kind{
	Name:   "Tier",
	Plural: "tiers",
	New:    func() Object { return &Tier{Meta: typed("Tier")} },
})

// Default fills in what the user left out.
func (o *Tier) Default() {}

// Validate says what is wrong with o.
func (o *Tier) Validate() error { return nil }
