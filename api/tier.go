package api

import (
	"cmp"

	"k8s.io/apimachinery/pkg/util/validation"
)

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

type builtInTier struct {
	order  float64
	action Action
}

var builtInTiers = map[string]builtInTier{
	KubeAdminTier:    {1e3, Pass},
	DefaultTier:      {1e6, Deny},
	KubeBaselineTier: {1e7, Pass},
}

// BuiltInTiers returns the tiers that every cluster has and that cannot be deleted,
// defaulted, in order.
func BuiltInTiers() []*Tier {
	var all []*Tier
	for _, name := range []string{KubeAdminTier, DefaultTier, KubeBaselineTier} {
		t := &Tier{Meta: Named(KindTier, "", name)}
		t.Default()
		all = append(all, t)
	}
	return all
}

// IsBuiltInTier tells whether name is that of a tier that cannot be deleted.
func IsBuiltInTier(name string) bool { _, ok := builtInTiers[name]; return ok }

// KindTier describes Tier.
var KindTier = register(&Kind{
	Name:   "Tier",
	Plural: "tiers",
	New:    func() Object { return &Tier{Meta: typed("Tier")} },
	Columns: []Column{
		nameColumn(),
		column("ORDER", func(o *Tier) string { return number(o.Spec.Order) }),
	},
})

// Default fills in what the user left out.
func (o *Tier) Default() {
	b, builtIn := builtInTiers[o.Name]
	if builtIn && o.Spec.Order == nil {
		o.Spec.Order = new(b.order)
	}
	if o.Spec.DefaultAction == "" {
		o.Spec.DefaultAction = cmp.Or(b.action, Deny)
	}
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	o.Labels[LabelTier] = o.Name
}

// Validate says what is wrong with o.
func (o *Tier) Validate() error {
	p := &problems{}
	p.meta(KindTier, &o.Meta, validation.IsDNS1123Label)
	oneOf(p, specPath.Child("defaultAction"), o.Spec.DefaultAction, Deny, Pass)
	if b, ok := builtInTiers[o.Name]; ok {
		if o.Spec.Order == nil || *o.Spec.Order != b.order {
			p.invalid(specPath.Child("order"), number(o.Spec.Order), "the order of tier %s is fixed: %s", o.Name, number(&b.order))
		}
		if o.Spec.DefaultAction != b.action {
			p.invalid(specPath.Child("defaultAction"), string(o.Spec.DefaultAction), "the default action of tier %s is fixed: %s", o.Name, b.action)
		}
	}
	return p.err()
}
