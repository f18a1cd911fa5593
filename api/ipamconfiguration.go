package api

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
})

// Default fills in what the user left out.
func (o *IPAMConfiguration) Default() {}

// Validate says what is wrong with o.
func (o *IPAMConfiguration) Validate() error { return nil }
