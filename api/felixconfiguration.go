package api

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/util/validation"
)

// FelixConfiguration holds the settings of the node agent: those of the whole cluster
// (name default) or of one node (name node.NAME).
type FelixConfiguration struct {
	Meta `json:",inline"`
	// Spec maps the YAML name of a parameter to its value as written. Package config
	// knows the parameters, their types and defaults; it is what a value is checked
	// against, so that a parameter is described in one place only.
	Spec FelixConfigurationSpec `json:"spec,omitzero"`
}

// FelixConfigurationSpec maps a parameter's YAML name to its value.
type FelixConfigurationSpec map[string]json.RawMessage

// KindFelixConfiguration describes FelixConfiguration.
var KindFelixConfiguration = register(&Kind{
	Name:   "FelixConfiguration",
	Plural: "felixconfigurations",
	Short:  []string{"felixconfig", "felixconfigs"},
	New:    func() Object { return &FelixConfiguration{Meta: typed("FelixConfiguration")} },
	Columns: []Column{
		nameColumn(),
	},
})

// Default fills in what the user left out.
func (o *FelixConfiguration) Default() {}

// Validate says what is wrong with o, but for its parameters: see config.Validate.
func (o *FelixConfiguration) Validate() error {
	p := &problems{}
	p.meta(KindFelixConfiguration, &o.Meta, validation.IsDNS1123Subdomain)
	return p.err()
}
