package api

import (
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Node is a machine of the cluster as Calico sees it.
type Node struct {
	Meta   `json:",inline"`
	Spec   NodeSpec    `json:"spec,omitempty"`
	Status *NodeStatus `json:"status,omitempty"`
}

// NodeSpec holds a node's addresses.
type NodeSpec struct {
	BGP                  *NodeBGP        `json:"bgp,omitempty"`
	IPv4VXLANTunnelAddr  string          `json:"ipv4VXLANTunnelAddr,omitempty"`
	IPv6VXLANTunnelAddr  string          `json:"ipv6VXLANTunnelAddr,omitempty"`
	VXLANTunnelMACAddr   string          `json:"vxlanTunnelMACAddr,omitempty"`
	VXLANTunnelMACAddrV6 string          `json:"vxlanTunnelMACAddrV6,omitempty"`
	OrchRefs             []OrchRef       `json:"orchRefs,omitempty"`
	Wireguard            *NodeWireguard  `json:"wireguard,omitempty"`
	Addresses            []NodeAddress   `json:"addresses,omitempty"`
	Interfaces           []NodeInterface `json:"interfaces,omitempty"`
}

// NodeBGP holds the addresses by which other nodes reach this one. CrossSubnet
// compares the subnets given here.
type NodeBGP struct {
	ASNumber                *ASNumber `json:"asNumber,omitempty"`
	IPv4Address             string    `json:"ipv4Address,omitempty"` // with the subnet's length: 10.0.0.1/24
	IPv6Address             string    `json:"ipv6Address,omitempty"`
	IPv4IPIPTunnelAddr      string    `json:"ipv4IPIPTunnelAddr,omitempty"`
	RouteReflectorClusterID string    `json:"routeReflectorClusterID,omitempty"`
}

// OrchRef names a node as its orchestrator does.
type OrchRef struct {
	NodeName     string `json:"nodeName,omitempty"`
	Orchestrator string `json:"orchestrator"`
}

// NodeWireguard holds the addresses of the WireGuard devices.
type NodeWireguard struct {
	InterfaceIPv4Address string `json:"interfaceIPv4Address,omitempty"`
	InterfaceIPv6Address string `json:"interfaceIPv6Address,omitempty"`
}

// NodeAddress is one address of a node; Address may be an IP or a CIDR.
type NodeAddress struct {
	Address string `json:"address"`
	Type    string `json:"type,omitempty"` // CalicoNodeIP, InternalIP, ExternalIP
}

// NodeInterface is one network interface of a node.
type NodeInterface struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// NodeStatus is what a node publishes of itself.
type NodeStatus struct {
	WireguardPublicKey   string   `json:"wireguardPublicKey,omitempty"`
	WireguardPublicKeyV6 string   `json:"wireguardPublicKeyV6,omitempty"`
	PodCIDRs             []string `json:"podCIDRs,omitempty"`
}

// KindNode describes Node.
var KindNode = register(&Kind{
	Name:   "Node",
	Plural: "nodes",
	Short:  []string{"no"},
	New:    func() Object { return &Node{Meta: typed("Node")} },
	Columns: []Column{
		nameColumn(),
		wide(column("ASN", func(o *Node) string { return o.asn() })),
		wide(column("IPV4", func(o *Node) string { return o.bgp().IPv4Address })),
		wide(column("IPV6", func(o *Node) string { return o.bgp().IPv6Address })),
	},
})

// Default fills in what the user left out.
func (o *Node) Default() {}

// Validate says what is wrong with o.
func (o *Node) Validate() error {
	p := &problems{}
	p.meta(KindNode, &o.Meta, validation.IsDNS1123Subdomain)
	if o.Spec.BGP != nil {
		o.Spec.BGP.check(p, specPath.Child("bgp"))
	}
	s := &o.Spec
	p.ip(specPath.Child("ipv4VXLANTunnelAddr"), s.IPv4VXLANTunnelAddr, 4)
	p.ip(specPath.Child("ipv6VXLANTunnelAddr"), s.IPv6VXLANTunnelAddr, 6)
	p.mac(specPath.Child("vxlanTunnelMACAddr"), s.VXLANTunnelMACAddr)
	p.mac(specPath.Child("vxlanTunnelMACAddrV6"), s.VXLANTunnelMACAddrV6)
	if w := s.Wireguard; w != nil {
		p.ip(specPath.Child("wireguard", "interfaceIPv4Address"), w.InterfaceIPv4Address, 4)
		p.ip(specPath.Child("wireguard", "interfaceIPv6Address"), w.InterfaceIPv6Address, 6)
	}
	for i, r := range s.OrchRefs {
		if r.Orchestrator == "" {
			p.required(specPath.Child("orchRefs").Index(i).Child("orchestrator"), "k8s, for example")
		}
	}
	o.checkAddresses(p)
	return p.err()
}

func (b *NodeBGP) check(p *problems, at *field.Path) {
	if *b == (NodeBGP{}) {
		p.required(at, "must not be empty: leave it out, or give an address")
	}
	if b.IPv4Address != "" {
		p.net(at.Child("ipv4Address"), b.IPv4Address, 4)
	}
	if b.IPv6Address != "" {
		p.net(at.Child("ipv6Address"), b.IPv6Address, 6)
	}
	p.ip(at.Child("ipv4IPIPTunnelAddr"), b.IPv4IPIPTunnelAddr, 4)
	p.ip(at.Child("routeReflectorClusterID"), b.RouteReflectorClusterID, 4)
}

func (o *Node) checkAddresses(p *problems) {
	for i, a := range o.Spec.Addresses {
		at := specPath.Child("addresses").Index(i)
		p.net(at.Child("address"), a.Address, 0)
		oneOf(p, at.Child("type"), a.Type, "CalicoNodeIP", "InternalIP", "ExternalIP")
	}
	for i, f := range o.Spec.Interfaces {
		at := specPath.Child("interfaces").Index(i)
		p.iface(at.Child("name"), f.Name)
		for j, a := range f.Addresses {
			p.net(at.Child("addresses").Index(j), a, 0)
		}
	}
	if o.Status == nil {
		return
	}
	for i, c := range o.Status.PodCIDRs {
		p.prefix(field.NewPath("status", "podCIDRs").Index(i), c)
	}
}

func (o *Node) bgp() NodeBGP {
	if o.Spec.BGP == nil {
		return NodeBGP{}
	}
	return *o.Spec.BGP
}

// asn is the node's own AS number; "(default)" if it has none and takes the cluster's.
func (o *Node) asn() string {
	if as := o.bgp().ASNumber; as != nil {
		return as.String()
	}
	return "(default)"
}
