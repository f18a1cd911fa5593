package api

// BGPConfiguration holds the cluster's BGP settings (name default) or those of one node
// (name node.NAME).
type BGPConfiguration struct {
	Meta `json:",inline"`
	Spec BGPConfigurationSpec `json:"spec,omitzero"`
}

// BGPConfigurationSpec holds the settings.
type BGPConfigurationSpec struct {
	LogSeverityScreen              string                `json:"logSeverityScreen,omitempty"`
	NodeToNodeMeshEnabled          *bool                 `json:"nodeToNodeMeshEnabled,omitempty"`
	ASNumber                       *ASNumber             `json:"asNumber,omitempty"`
	ListenPort                     uint16                `json:"listenPort,omitempty"`
	BindMode                       string                `json:"bindMode,omitempty"`
	ProgramClusterRoutes           string                `json:"programClusterRoutes,omitempty"`
	ServiceLoadBalancerIPs         []CIDRBlock           `json:"serviceLoadBalancerIPs,omitempty"`
	ServiceExternalIPs             []CIDRBlock           `json:"serviceExternalIPs,omitempty"`
	ServiceClusterIPs              []CIDRBlock           `json:"serviceClusterIPs,omitempty"`
	ServiceLoadBalancerAggregation string                `json:"serviceLoadBalancerAggregation,omitempty"`
	Communities                    []Community           `json:"communities,omitempty"`
	PrefixAdvertisements           []PrefixAdvertisement `json:"prefixAdvertisements,omitempty"`
	IgnoredInterfaces              []string              `json:"ignoredInterfaces,omitempty"`
	NodeMeshPassword               *Password             `json:"nodeMeshPassword,omitempty"`
	NodeMeshMaxRestartTime         *Duration             `json:"nodeMeshMaxRestartTime,omitempty"`
	LocalWorkloadPeeringIPV4       string                `json:"localWorkloadPeeringIPV4,omitempty"`
	LocalWorkloadPeeringIPV6       string                `json:"localWorkloadPeeringIPV6,omitempty"`
	IPv4NormalRoutePriority        *int                  `json:"ipv4NormalRoutePriority,omitempty"`
	IPv6NormalRoutePriority        *int                  `json:"ipv6NormalRoutePriority,omitempty"`
}

// CIDRBlock wraps a prefix.
type CIDRBlock struct {
	CIDR string `json:"cidr"`
}

// Community names a BGP community, aa:nn or aa:nn:mm.
type Community struct {
	Name  string `json:"name,omitempty"`
	Value string `json:"value,omitempty"`
}

// PrefixAdvertisement says which communities a prefix is advertised with.
type PrefixAdvertisement struct {
	CIDR        string   `json:"cidr,omitempty"`
	Communities []string `json:"communities,omitempty"`
}

// Password refers to a key of a Secret.
type Password struct {
	SecretKeyRef *SecretKeySelector `json:"secretKeyRef,omitempty"`
}

// SecretKeySelector names a key of a Secret.
type SecretKeySelector struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// KindBGPConfiguration describes BGPConfiguration.
var KindBGPConfiguration = register(&Kind{
	Name:   "BGPConfiguration",
	Plural: "bgpconfigurations",
	Short:  []string{"bgpconfig", "bgpconfigs"},
	New:    func() Object { return &BGPConfiguration{Meta: typed("BGPConfiguration")} },
})

// Default fills in what the user left out.
func (o *BGPConfiguration) Default() {}

// Validate says what is wrong with o.
func (o *BGPConfiguration) Validate() error { return nil }
