package api

import (
	"strconv"
)

// IPAMConfiguration governs how nodes claim blocks. There is one, named default.
type IPAMConfiguration struct {
	Meta `json:",inline"`
	Spec IPAMConfigurationSpec `json:"spec"`
}

// IPAMConfigurationSpec holds the settings.
type IPAMConfigurationSpec struct {
	StrictAffinity               bool   `json:"strictAffinity"`
	AutoAllocateBlocks           *bool  `json:"autoAllocateBlocks,omitempty"` // default true
	MaxBlocksPerHost             int    `json:"maxBlocksPerHost,omitempty"`   // 0: 20
	KubeVirtVMAddressPersistence string `json:"kubeVirtVMAddressPersistence,omitempty"`
	IPCooldownSeconds            *int   `json:"ipCooldownSeconds,omitempty"` // 0 to 1,200
}

// KindIPAMConfiguration describes IPAMConfiguration.
var KindIPAMConfiguration = register(&Kind{
	Name:   "IPAMConfiguration",
	Plural: "ipamconfigurations",
	Short:  []string{"ipamconfig", "ipamconfigs"},
	New:    func() Object { return &IPAMConfiguration{Meta: typed("IPAMConfiguration")} },
	Columns: []Column{
		nameColumn(),
		column("STRICTAFFINITY", func(o *IPAMConfiguration) string { return yesNo(o.Spec.StrictAffinity) }),
		column("AUTOALLOCATEBLOCKS", func(o *IPAMConfiguration) string { return yesNo(o.Spec.AutoAllocates()) }),
		wide(column("MAXBLOCKSPERHOST", func(o *IPAMConfiguration) string { return strconv.Itoa(o.Spec.MaxBlocksPerHost) })),
	},
})

// Default fills in what the user left out.
func (o *IPAMConfiguration) Default() {
	if o.Spec.AutoAllocateBlocks == nil {
		o.Spec.AutoAllocateBlocks = new(true)
	}
}

// Validate says what is wrong with o.
func (o *IPAMConfiguration) Validate() error {
	p := &problems{}
	p.meta(KindIPAMConfiguration, &o.Meta, onlyName("default"))
	p.between(specPath.Child("maxBlocksPerHost"), o.Spec.MaxBlocksPerHost, 0, 1000000)
	if s := o.Spec.IPCooldownSeconds; s != nil {
		p.between(specPath.Child("ipCooldownSeconds"), *s, 0, 1200)
	}
	oneOf(p, specPath.Child("kubeVirtVMAddressPersistence"), o.Spec.KubeVirtVMAddressPersistence, "Enabled", "Disabled")
	if !o.Spec.StrictAffinity && !o.Spec.AutoAllocates() {
		p.forbidden(specPath.Child("autoAllocateBlocks"), "strictAffinity and autoAllocateBlocks cannot both be false: no pod could get an address")
	}
	if !o.Spec.StrictAffinity && o.Spec.MaxBlocksPerHost > 0 {
		p.forbidden(specPath.Child("maxBlocksPerHost"), "needs strictAffinity: true")
	}
	return p.err()
}

// AutoAllocates tells whether nodes claim blocks by themselves: true unless it is set to
// false.
func (s *IPAMConfigurationSpec) AutoAllocates() bool {
	return s.AutoAllocateBlocks == nil || *s.AutoAllocateBlocks
}
