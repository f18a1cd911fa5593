package api

import (
	"cmp"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// WorkloadEndpoint is one network interface of a pod.
type WorkloadEndpoint struct {
	Meta `json:",inline"`
	Spec WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec says whose interface it is and what it has.
type WorkloadEndpointSpec struct {
	Orchestrator               string         `json:"orchestrator,omitempty"`
	Workload                   string         `json:"workload,omitempty"`
	Node                       string         `json:"node,omitempty"`
	ContainerID                string         `json:"containerID,omitempty"`
	Pod                        string         `json:"pod,omitempty"`
	Endpoint                   string         `json:"endpoint,omitempty"` // interface name in the pod
	ServiceAccountName         string         `json:"serviceAccountName,omitempty"`
	IPNetworks                 []string       `json:"ipNetworks,omitempty"` // /32 and /128
	IPNATs                     []IPNAT        `json:"ipNATs,omitempty"`
	IPv4Gateway                string         `json:"ipv4Gateway,omitempty"`
	IPv6Gateway                string         `json:"ipv6Gateway,omitempty"`
	Profiles                   []string       `json:"profiles,omitempty"`
	InterfaceName              string         `json:"interfaceName,omitempty"` // host side, cali…
	MAC                        string         `json:"mac,omitempty"`
	Ports                      []EndpointPort `json:"ports,omitempty"`
	AllowSpoofedSourcePrefixes []string       `json:"allowSpoofedSourcePrefixes,omitempty"`
	QoSControls                *QoSControls   `json:"qosControls,omitempty"`
}

// QoSControls limits an endpoint's traffic: bandwidths in bit/s, bursts in bits, rates in
// packets a second.
type QoSControls struct {
	IngressBandwidth      int64  `json:"ingressBandwidth,omitempty"`
	EgressBandwidth       int64  `json:"egressBandwidth,omitempty"`
	IngressBurst          int64  `json:"ingressBurst,omitempty"`
	EgressBurst           int64  `json:"egressBurst,omitempty"`
	IngressPeakrate       int64  `json:"ingressPeakrate,omitempty"`
	EgressPeakrate        int64  `json:"egressPeakrate,omitempty"`
	IngressMinburst       int64  `json:"ingressMinburst,omitempty"`
	EgressMinburst        int64  `json:"egressMinburst,omitempty"`
	IngressPacketRate     int64  `json:"ingressPacketRate,omitempty"`
	EgressPacketRate      int64  `json:"egressPacketRate,omitempty"`
	IngressPacketBurst    int64  `json:"ingressPacketBurst,omitempty"`
	EgressPacketBurst     int64  `json:"egressPacketBurst,omitempty"`
	IngressMaxConnections int64  `json:"ingressMaxConnections,omitempty"`
	EgressMaxConnections  int64  `json:"egressMaxConnections,omitempty"`
	DSCP                  *uint8 `json:"dscp,omitempty"` // 0 to 63
}

// IPNAT is a floating address.
type IPNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// EndpointPort is a named port.
type EndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
	HostPort uint16   `json:"hostPort,omitempty"`
	HostIP   string   `json:"hostIP,omitempty"`
}

// WorkloadEndpointName is the name of the endpoint of a workload:
// node-orchestrator-workload-endpoint, each dash inside a part doubled.
func WorkloadEndpointName(node, orchestrator, workload, endpoint string) string {
	parts := []string{node, orchestrator, workload, endpoint}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "-", "--")
	}
	return strings.Join(parts, "-")
}

// KindWorkloadEndpoint describes WorkloadEndpoint.
var KindWorkloadEndpoint = register(&Kind{
	Name:       "WorkloadEndpoint",
	Plural:     "workloadendpoints",
	Short:      []string{"wep", "weps"},
	Namespaced: true,
	New:        func() Object { return &WorkloadEndpoint{Meta: typed("WorkloadEndpoint")} },
	Columns: []Column{
		wide(nameColumn()),
		column("WORKLOAD", func(o *WorkloadEndpoint) string { return o.workload() }),
		column("NODE", func(o *WorkloadEndpoint) string { return o.Spec.Node }),
		column("NETWORKS", func(o *WorkloadEndpoint) string { return list(o.Spec.IPNetworks) }),
		column("INTERFACE", func(o *WorkloadEndpoint) string { return o.Spec.InterfaceName }),
		wide(column("PROFILES", func(o *WorkloadEndpoint) string { return list(o.Spec.Profiles) })),
		wide(column("NATS", func(o *WorkloadEndpoint) string { return o.nats() })),
	},
})

// Default fills in what the user left out.
func (o *WorkloadEndpoint) Default() {
	for i := range o.Spec.Ports {
		o.Spec.Ports[i].Protocol = o.Spec.Ports[i].Protocol.canonical()
	}
}

// Validate says what is wrong with o.
func (o *WorkloadEndpoint) Validate() error {
	p := &problems{}
	s := &o.Spec
	p.meta(KindWorkloadEndpoint, &o.Meta, validation.IsDNS1123Subdomain)
	if want := s.name(); want != "" && o.Name != "" && want != o.Name {
		p.invalid(metaPath.Child("name"), o.Name, "must be %s, from node, orchestrator, workload and endpoint", want)
	}
	if s.InterfaceName == "" {
		p.required(specPath.Child("interfaceName"), "the host side of the endpoint")
	}
	p.iface(specPath.Child("interfaceName"), s.InterfaceName)
	p.mac(specPath.Child("mac"), s.MAC)
	p.ip(specPath.Child("ipv4Gateway"), s.IPv4Gateway, 4)
	p.ip(specPath.Child("ipv6Gateway"), s.IPv6Gateway, 6)
	s.checkNetworks(p)
	s.checkPorts(p)
	for i, c := range s.AllowSpoofedSourcePrefixes {
		p.net(specPath.Child("allowSpoofedSourcePrefixes").Index(i), c, 0)
	}
	for i, n := range s.Profiles {
		p.each(specPath.Child("profiles").Index(i), n, validation.IsDNS1123Subdomain(n))
	}
	return p.err()
}

// name is the endpoint's name as its spec has it; empty if the spec does not tell.
func (s *WorkloadEndpointSpec) name() string {
	workload := s.Workload
	switch s.Orchestrator {
	case "k8s":
		workload = cmp.Or(s.Pod, s.Workload)
	case "cni":
		workload = cmp.Or(s.ContainerID, s.Workload)
	}
	if s.Node == "" || s.Orchestrator == "" || workload == "" || s.Endpoint == "" {
		return ""
	}
	return WorkloadEndpointName(s.Node, s.Orchestrator, workload, s.Endpoint)
}

func (s *WorkloadEndpointSpec) checkNetworks(p *problems) {
	own := map[netip.Addr]bool{}
	for i, n := range s.IPNetworks {
		at := specPath.Child("ipNetworks").Index(i)
		if c, ok := p.net(at, n, 0); ok && !c.IsSingleIP() {
			p.invalid(at, n, "must be one address: /32 or /128")
		} else {
			own[c.Addr()] = true
		}
	}
	for i, n := range s.IPNATs {
		at := specPath.Child("ipNATs").Index(i)
		in, err := netip.ParseAddr(n.InternalIP)
		ex, err2 := netip.ParseAddr(n.ExternalIP)
		switch {
		case err != nil:
			p.invalid(at.Child("internalIP"), n.InternalIP, "must be an IP address")
		case err2 != nil || ex.Is4() != in.Is4():
			p.invalid(at.Child("externalIP"), n.ExternalIP, "must be an IP address of the version of internalIP")
		case !own[in]:
			p.invalid(at.Child("internalIP"), n.InternalIP, "must be one of ipNetworks")
		}
	}
}

func (s *WorkloadEndpointSpec) checkPorts(p *problems) {
	for i, port := range s.Ports {
		at := specPath.Child("ports").Index(i)
		if port.Name != "" && !portName.MatchString(port.Name) {
			p.invalid(at.Child("name"), port.Name, "must be 1 to 128 letters, digits, '_', '.' or '-'")
		}
		if !port.Protocol.hasPorts() {
			p.invalid(at.Child("protocol"), string(port.Protocol), "must be TCP, UDP, SCTP or UDPLite")
		}
		if port.Port == 0 {
			p.invalid(at.Child("port"), 0, "must be from 1 to 65535")
		}
		p.ip(at.Child("hostIP"), port.HostIP, 0)
	}
}

// workload is what people call the endpoint's workload: of a pod, its name.
func (o *WorkloadEndpoint) workload() string { return cmp.Or(o.Spec.Pod, o.Spec.Workload) }

func (o *WorkloadEndpoint) nats() string {
	var s []string
	for _, n := range o.Spec.IPNATs {
		s = append(s, n.ExternalIP)
	}
	return list(s)
}
