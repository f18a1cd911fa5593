package api

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Profile gives the endpoints that name it labels, and the rules that hold for them
// where no policy applies.
type Profile struct {
	Meta `json:",inline"`
	Spec ProfileSpec `json:"spec,omitzero"`
}

// ProfileSpec is what a profile gives.
type ProfileSpec struct {
	Ingress       []Rule            `json:"ingress,omitempty"`
	Egress        []Rule            `json:"egress,omitempty"`
	LabelsToApply map[string]string `json:"labelsToApply,omitempty"` // an endpoint's own label wins
}

// KindProfile describes Profile.
var KindProfile = register(&Kind{
	Name:   "Profile",
	Plural: "profiles",
	Short:  []string{"pro"},
	New:    func() Object { return &Profile{Meta: typed("Profile")} },
	Columns: []Column{
		nameColumn(),
		wide(column("LABELS", func(o *Profile) string { return labelList(o.Spec.LabelsToApply) })),
	},
})

// Default fills in what the user left out.
func (o *Profile) Default() {
	defaultRules(o.Spec.Ingress)
	defaultRules(o.Spec.Egress)
}

// Validate says what is wrong with o.
func (o *Profile) Validate() error {
	p := &problems{}
	p.meta(KindProfile, &o.Meta, validation.IsDNS1123Subdomain)
	p.inherited(specPath.Child("labelsToApply"), o.Spec.LabelsToApply)
	p.policyRules(o.Spec.Ingress, o.Spec.Egress, true)
	return p.err()
}

// inherited checks labels that a profile applies. Those of namespaces and service
// accounts carry a prefix that is not part of the label's own name and length.
func (p *problems) inherited(at *field.Path, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		name := strings.TrimPrefix(strings.TrimPrefix(k, NamespaceLabelPrefix), ServiceAccountPrefix)
		p.each(at, k, validation.IsQualifiedName(name))
		p.each(at.Key(k), labels[k], validation.IsValidLabelValue(labels[k]))
	}
}

func labelList(labels map[string]string) string {
	var s []string
	for _, k := range sortedKeys(labels) {
		s = append(s, k+"="+labels[k])
	}
	return list(s)
}
