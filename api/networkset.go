package api

import "k8s.io/apimachinery/pkg/util/validation"

// NetworkSet is a named set of networks. Rules select it by its labels, as they select the
// endpoints of its namespace.
type NetworkSet struct {
	Meta `json:",inline"`
	Spec NetworkSetSpec `json:"spec,omitzero"`
}

// GlobalNetworkSet is a NetworkSet of no namespace: only rules that look beyond one select it.
type GlobalNetworkSet struct {
	Meta `json:",inline"`
	Spec NetworkSetSpec `json:"spec,omitzero"`
}

// NetworkSetSpec is what both kinds of network set hold. There is no limit to its size.
type NetworkSetSpec struct {
	Nets []string `json:"nets,omitempty"` // CIDRs and addresses, of both IP versions
}

// KindNetworkSet describes NetworkSet.
var KindNetworkSet = register(&Kind{
	Name:       "NetworkSet",
	Plural:     "networksets",
	Short:      []string{"netset", "netsets"},
	Namespaced: true,
	New:        func() Object { return &NetworkSet{Meta: typed("NetworkSet")} },
	Columns: []Column{
		nameColumn(),
		wide(column("NETS", func(o *NetworkSet) string { return list(o.Spec.Nets) })),
	},
})

// KindGlobalNetworkSet describes GlobalNetworkSet.
var KindGlobalNetworkSet = register(&Kind{
	Name:   "GlobalNetworkSet",
	Plural: "globalnetworksets",
	Short:  []string{"gns"},
	New:    func() Object { return &GlobalNetworkSet{Meta: typed("GlobalNetworkSet")} },
	Columns: []Column{
		nameColumn(),
		wide(column("NETS", func(o *GlobalNetworkSet) string { return list(o.Spec.Nets) })),
	},
})

// Default does nothing: a network set has no defaults.
func (o *NetworkSet) Default() {}

// Default does nothing: a network set has no defaults.
func (o *GlobalNetworkSet) Default() {}

// Validate says what is wrong with o.
func (o *NetworkSet) Validate() error {
	p := &problems{}
	p.meta(KindNetworkSet, &o.Meta, validation.IsDNS1123Subdomain)
	p.networkSet(&o.Spec)
	return p.err()
}

// Validate says what is wrong with o.
func (o *GlobalNetworkSet) Validate() error {
	p := &problems{}
	p.meta(KindGlobalNetworkSet, &o.Meta, validation.IsDNS1123Subdomain)
	p.networkSet(&o.Spec)
	return p.err()
}

func (p *problems) networkSet(s *NetworkSetSpec) {
	for i, n := range s.Nets {
		p.net(specPath.Child("nets").Index(i), n, 0)
	}
}
