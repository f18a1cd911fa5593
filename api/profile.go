package api

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
})

// Default fills in what the user left out.
func (o *Profile) Default() {}

// Validate says what is wrong with o.
func (o *Profile) Validate() error { return nil }
