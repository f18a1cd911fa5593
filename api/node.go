package api

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
})

// Default fills in what the user left out.
func (o *Node) Default() {}

// Validate says what is wrong with o.
func (o *Node) Validate() error { return nil }
