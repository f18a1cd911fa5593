package api

// Service and EndpointSlice are Kubernetes' own (v1, and discovery.k8s.io/v1), reduced to what
// Calico reads of them. Their JSON is Kubernetes'. Where there is a Kubernetes API they come
// from there; elsewhere, as in a lab, they are stored like any other object.

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Service is a Kubernetes Service. Rules name it; what they match is its EndpointSlices.
type Service struct {
	Meta `json:",inline"`
	Spec ServiceSpec `json:"spec,omitzero"`
}

// ServiceSpec is what is read of a Service.
type ServiceSpec struct {
	ClusterIPs []string      `json:"clusterIPs,omitempty"` // "None" for a headless one
	Ports      []ServicePort `json:"ports,omitempty"`
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name     string   `json:"name,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"`
	Port     uint16   `json:"port"`
}

// EndpointSlice is a part of the endpoints of a Service, that which its label
// [LabelServiceName] names.
type EndpointSlice struct {
	Meta        `json:",inline"`
	AddressType AddressType     `json:"addressType"`
	Endpoints   []SliceEndpoint `json:"endpoints,omitempty"`
	Ports       []SlicePort     `json:"ports,omitempty"`
}

// AddressType says what the addresses of an EndpointSlice are.
type AddressType string

const (
	AddressIPv4 AddressType = "IPv4"
	AddressIPv6 AddressType = "IPv6"
	AddressFQDN AddressType = "FQDN" // names, which no rule matches
)

// SliceEndpoint is one backend: one pod, mostly.
type SliceEndpoint struct {
	Addresses  []string           `json:"addresses"`
	Conditions EndpointConditions `json:"conditions,omitzero"`
	NodeName   string             `json:"nodeName,omitempty"`
}

// EndpointConditions is the state of a backend; nil means unknown, which Kubernetes takes for
// true, false for Terminating.
type EndpointConditions struct {
	Ready       *bool `json:"ready,omitempty"`
	Serving     *bool `json:"serving,omitempty"`
	Terminating *bool `json:"terminating,omitempty"`
}

// SlicePort is a port that every endpoint of a slice has.
type SlicePort struct {
	Name     string   `json:"name,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"` // TCP, UDP or SCTP; TCP by default
	Port     *uint16  `json:"port,omitempty"`     // nil: any port, which no rule matches
}

// ServiceName is the name of the Service that the slice is a part of; empty if of none.
func (o *EndpointSlice) ServiceName() string { return o.Labels[LabelServiceName] }

// KindService describes Service.
var KindService = register(&Kind{
	Name:       "Service",
	Group:      "v1",
	Plural:     "services",
	Namespaced: true,
	Internal:   true,
	New:        func() Object { return &Service{Meta: typedOf("v1", "Service")} },
	Columns: []Column{
		nameColumn(),
		column("CLUSTERIPS", func(o *Service) string { return list(o.Spec.ClusterIPs) }),
	},
})

// KindEndpointSlice describes EndpointSlice.
var KindEndpointSlice = register(&Kind{
	Name:       "EndpointSlice",
	Group:      "discovery.k8s.io/v1",
	Plural:     "endpointslices",
	Namespaced: true,
	Internal:   true,
	New:        func() Object { return &EndpointSlice{Meta: typedOf("discovery.k8s.io/v1", "EndpointSlice")} },
	Columns: []Column{
		nameColumn(),
		column("SERVICE", (*EndpointSlice).ServiceName),
		column("ADDRESSES", func(o *EndpointSlice) string { return list(o.addresses()) }),
	},
})

func (o *EndpointSlice) addresses() []string {
	var all []string
	for _, e := range o.Endpoints {
		all = append(all, e.Addresses...)
	}
	return all
}

// Default fills in what the user left out.
func (o *Service) Default() {
	for i := range o.Spec.Ports {
		defaultTCP(&o.Spec.Ports[i].Protocol)
	}
}

// Default fills in what the user left out.
func (o *EndpointSlice) Default() {
	for i := range o.Ports {
		defaultTCP(&o.Ports[i].Protocol)
	}
}

func defaultTCP(p *Protocol) {
	if *p == "" {
		*p = "TCP"
	}
}

// Validate says what is wrong with o.
func (o *Service) Validate() error {
	p := &problems{}
	p.meta(KindService, &o.Meta, validation.IsDNS1035Label)
	for i, a := range o.Spec.ClusterIPs {
		if a != "None" {
			p.ip(specPath.Child("clusterIPs").Index(i), a, 0)
		}
	}
	for i, port := range o.Spec.Ports {
		p.kubePort(specPath.Child("ports").Index(i), port.Protocol, &port.Port)
	}
	return p.err()
}

// Validate says what is wrong with o.
func (o *EndpointSlice) Validate() error {
	p := &problems{}
	p.meta(KindEndpointSlice, &o.Meta, validation.IsDNS1123Subdomain)
	if o.AddressType == "" {
		p.required(field.NewPath("addressType"), "IPv4, IPv6 or FQDN")
	}
	oneOf(p, field.NewPath("addressType"), o.AddressType, AddressIPv4, AddressIPv6, AddressFQDN)
	for i, e := range o.Endpoints {
		at := field.NewPath("endpoints").Index(i).Child("addresses")
		if len(e.Addresses) == 0 {
			p.required(at, "every endpoint has an address")
		}
		for j, a := range e.Addresses {
			p.endpointAddress(at.Index(j), a, o.AddressType)
		}
	}
	for i, port := range o.Ports {
		p.kubePort(field.NewPath("ports").Index(i), port.Protocol, port.Port)
	}
	return p.err()
}

func (p *problems) endpointAddress(at *field.Path, s string, typ AddressType) {
	a, err := netip.ParseAddr(s)
	switch typ {
	case AddressIPv4:
		if err != nil || !a.Is4() {
			p.invalid(at, s, "must be an IPv4 address")
		}
	case AddressIPv6:
		if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
			p.invalid(at, s, "must be an IPv6 address")
		}
	case AddressFQDN:
		p.each(at, s, validation.IsDNS1123Subdomain(s))
	}
}

// kubePort checks a port of a Service or EndpointSlice. A nil number is any port.
func (p *problems) kubePort(at *field.Path, protocol Protocol, number *uint16) {
	oneOf(p, at.Child("protocol"), protocol, "TCP", "UDP", "SCTP")
	if number != nil && *number == 0 {
		p.invalid(at.Child("port"), 0, "must be from 1 to 65535")
	}
}
