package api

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

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
	Columns: []Column{
		nameColumn(),
		column("LOGSEVERITY", func(o *BGPConfiguration) string { return o.Spec.LogSeverityScreen }),
		column("MESHENABLED", func(o *BGPConfiguration) string { return o.mesh() }),
		column("ASNUMBER", func(o *BGPConfiguration) string { return o.asn() }),
	},
})

// Default fills in what the user left out.
func (o *BGPConfiguration) Default() {
	o.Spec.LogSeverityScreen = cmp.Or(o.Spec.LogSeverityScreen, "Info")
	o.Spec.ServiceLoadBalancerAggregation = cmp.Or(o.Spec.ServiceLoadBalancerAggregation, "Enabled")
}

// Validate says what is wrong with o.
func (o *BGPConfiguration) Validate() error {
	p := &problems{}
	p.meta(KindBGPConfiguration, &o.Meta, validation.IsDNS1123Subdomain)
	s := &o.Spec
	if !severity.MatchString(s.LogSeverityScreen) {
		p.invalid(specPath.Child("logSeverityScreen"), s.LogSeverityScreen, "must be Trace, Debug, Info, Warning, Error or Fatal")
	}
	oneOf(p, specPath.Child("bindMode"), s.BindMode, "None", "NodeIP")
	oneOf(p, specPath.Child("programClusterRoutes"), s.ProgramClusterRoutes, "Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")
	oneOf(p, specPath.Child("serviceLoadBalancerAggregation"), s.ServiceLoadBalancerAggregation, "Enabled", "Disabled")
	p.blocks(specPath.Child("serviceLoadBalancerIPs"), s.ServiceLoadBalancerIPs)
	p.blocks(specPath.Child("serviceExternalIPs"), s.ServiceExternalIPs)
	p.blocks(specPath.Child("serviceClusterIPs"), s.ServiceClusterIPs)
	p.ip(specPath.Child("localWorkloadPeeringIPV4"), s.LocalWorkloadPeeringIPV4, 4)
	p.ip(specPath.Child("localWorkloadPeeringIPV6"), s.LocalWorkloadPeeringIPV6, 6)
	p.routePriority(specPath.Child("ipv4NormalRoutePriority"), s.IPv4NormalRoutePriority)
	p.routePriority(specPath.Child("ipv6NormalRoutePriority"), s.IPv6NormalRoutePriority)
	o.checkMesh(p)
	s.checkCommunities(p)
	return p.err()
}

var severity = regexp.MustCompile(`^(?i)(Trace|Debug|Info|Warning|Error|Fatal)?$`)

func (p *problems) blocks(at *field.Path, blocks []CIDRBlock) {
	for i, b := range blocks {
		p.net(at.Index(i).Child("cidr"), b.CIDR, 0)
	}
}

func (p *problems) routePriority(at *field.Path, v *int) {
	if v != nil {
		p.between(at, *v, 1, 2147483646)
	}
}

func (o *BGPConfiguration) checkMesh(p *problems) {
	s := &o.Spec
	mesh, as := specPath.Child("nodeToNodeMeshEnabled"), specPath.Child("asNumber")
	if o.Name != "default" && s.NodeToNodeMeshEnabled != nil {
		p.forbidden(mesh, "can only be set in the BGPConfiguration named default")
	}
	if o.Name != "default" && s.ASNumber != nil {
		p.forbidden(as, "can only be set in the BGPConfiguration named default")
	}
	off := s.NodeToNodeMeshEnabled != nil && !*s.NodeToNodeMeshEnabled
	if off && s.NodeMeshPassword != nil {
		p.forbidden(specPath.Child("nodeMeshPassword"), "cannot be set when nodeToNodeMeshEnabled is false")
	}
	if off && s.NodeMeshMaxRestartTime != nil {
		p.forbidden(specPath.Child("nodeMeshMaxRestartTime"), "cannot be set when nodeToNodeMeshEnabled is false")
	}
	p.password(specPath.Child("nodeMeshPassword"), s.NodeMeshPassword)
}

const (
	maxCommunities       = 500
	maxPrefixCommunities = 50
)

func (s *BGPConfigurationSpec) checkCommunities(p *problems) {
	at := specPath.Child("communities")
	tooMany(p, at, s.Communities, maxCommunities)
	named := map[string]bool{}
	for i, c := range s.Communities {
		named[c.Name] = true
		if c.Name == "" {
			p.required(at.Index(i).Child("name"), "prefixAdvertisements refer to it")
		}
		p.community(at.Index(i).Child("value"), c.Value)
	}
	ads := specPath.Child("prefixAdvertisements")
	if len(s.Communities) > 0 && len(s.PrefixAdvertisements) == 0 {
		p.required(ads, "communities are defined but not used")
	}
	tooMany(p, ads, s.PrefixAdvertisements, maxCommunities)
	for i, a := range s.PrefixAdvertisements {
		p.net(ads.Index(i).Child("cidr"), a.CIDR, 0)
		tooMany(p, ads.Index(i).Child("communities"), a.Communities, maxPrefixCommunities)
		for j, c := range a.Communities {
			if !named[c] && !isCommunity(c) {
				p.invalid(ads.Index(i).Child("communities").Index(j), c, "must be the name of one of spec.communities, or a value aa:nn or aa:nn:mm")
			}
		}
	}
}

// isCommunity tells whether s is a community (RFC 1997: two halves of 16 bits) or a large
// one (RFC 8092: three parts of 32 bits).
func isCommunity(s string) bool {
	parts := strings.Split(s, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	for _, part := range parts {
		if _, err := strconv.ParseUint(part, 10, max(bits, 1)); err != nil || bits == 0 {
			return false
		}
	}
	return true
}

func (o *BGPConfiguration) mesh() string {
	if o.Spec.NodeToNodeMeshEnabled == nil {
		return none
	}
	return yesNo(*o.Spec.NodeToNodeMeshEnabled)
}

func (o *BGPConfiguration) asn() string {
	if o.Spec.ASNumber == nil {
		return none
	}
	return o.Spec.ASNumber.String()
}
