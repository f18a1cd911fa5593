package dataplane

import (
	"cmp"
	"net/netip"
)

// State is everything that one node's kernel must hold. A [Delta] changes it.
//
// Values are immutable once handed over: to change one, hand over another.
type State struct {
	Endpoints map[Interface]*Endpoint
	Policies  map[PolicyID]*Policy
	Sets      map[SetID]Members
	Routes    map[netip.Prefix]Route
	Tunnels   map[string]Tunnel // by device
	VTEPs     map[VTEPKey]VTEP
	Settings  Settings
}

// NewState returns the empty state.
func NewState() *State {
	return &State{
		Endpoints: map[Interface]*Endpoint{}, Policies: map[PolicyID]*Policy{}, Sets: map[SetID]Members{},
		Routes: map[netip.Prefix]Route{}, Tunnels: map[string]Tunnel{}, VTEPs: map[VTEPKey]VTEP{},
		Settings: DefaultSettings(),
	}
}

// Interface is the host-side name of a pod's interface: cali…
type Interface string

// Endpoint is a pod's interface on this node.
type Endpoint struct {
	Interface Interface
	Name      string // namespace/pod, for people
	Addrs     []netip.Addr
	MAC       string         // of the pod's side
	Sources   []netip.Prefix // further source addresses it may use (allowSpoofedSourcePrefixes)
	Ingress   []TierPolicies // packets to the pod: tiers in order
	Egress    []TierPolicies // packets from the pod
	Profiles  []PolicyID     // in order; they decide where no policy does
}

// TierPolicies is a tier with at least one policy that governs the endpoint in this
// direction.
type TierPolicies struct {
	Tier     string
	Policies []PolicyID // in order, never empty
	Default  Action     // Deny or Pass: for packets that no policy of the tier decides
}

// PolicyID names a policy or profile.
type PolicyID struct{ Kind, Namespace, Name string }

// Compare orders ids by kind, namespace and name.
func (a PolicyID) Compare(b PolicyID) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (a PolicyID) String() string {
	if a.Namespace == "" {
		return a.Kind + "(" + a.Name + ")"
	}
	return a.Kind + "(" + a.Namespace + "/" + a.Name + ")"
}

// Policy is the rules of a policy or profile, for both directions.
type Policy struct {
	ID      PolicyID
	Ingress []Rule
	Egress  []Rule
}

// Action is what a rule does with a packet that it matches.
type Action uint8

const (
	Allow Action = iota + 1
	Deny
	Pass // leave the tier
	Log  // note the packet; the next rule decides
)

func (a Action) String() string {
	return nameOf(a, "none", "allow", "deny", "pass", "log")
}

// Rule matches a packet if every condition that is given holds.
type Rule struct {
	Action      Action
	Family      Family   // 0: both
	Protocol    Protocol // 0: any
	NotProtocol Protocol // 0: none
	Index       uint16   // where it stands in the stored policy, for people
	ICMP        *ICMP    // implies that Protocol is ICMP, or ICMPv6 in IPv6
	NotICMP     *ICMP
	Src, Dst    Peer
}

// Protocol is an IP protocol number (IANA).
type Protocol uint8

const (
	ICMP4   Protocol = 1
	TCP     Protocol = 6
	UDP     Protocol = 17
	ICMP6   Protocol = 58
	SCTP    Protocol = 132
	UDPLite Protocol = 136
)

// HasPorts tells whether packets of the protocol carry port numbers that rules match.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP || p == UDPLite }

// ICMP is a type and perhaps a code.
type ICMP struct {
	Type    uint8
	Code    uint8
	HasCode bool
}

// Peer is one end of a packet's path.
type Peer struct {
	Nets    []netip.Prefix // in one of them, if there are any
	NotNets []netip.Prefix // in none of them
	Sets    []SetID        // in every one of these sets of prefixes
	NotSets []SetID        // in none of these
	// Ports and PortSets are or-ed: the port is in one of the ranges, or the triple
	// of address, protocol and port is in one of the sets. The rule's protocol is then
	// one that has ports, or, with the sets of services, 0: they say it themselves.
	Ports       []PortRange
	PortSets    []SetID
	NotPorts    []PortRange
	NotPortSets []SetID
}

// PortRange is an inclusive range.
type PortRange struct{ Min, Max uint16 }

// Family is an address family: 4 or 6.
type Family uint8

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families are both.
var Families = [...]Family{IPv4, IPv6}

// FamilyOf returns the family of a.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func (f Family) String() string { return nameOf(f, "", "", "", "", "IPv4", "", "IPv6") }

// Bits is the length of an address: 32 or 128.
func (f Family) Bits() int { return [...]int{4: 32, 6: 128}[f] }

// SetID names a set of prefixes, or of (address, protocol, port) triples. A set holds
// members of both families; every set is of one sort for its whole life.
type SetID string

// Sets that every node has besides those that rules name.
const (
	SetAllPools  SetID = "pools"      // every IP pool
	SetMasqPools SetID = "masq-pools" // the pools with natOutgoing
	SetNodes     SetID = "nodes"      // the addresses of the other nodes
)

// Member is a prefix, or, where Protocol is not 0, an address, protocol and port.
type Member struct {
	Prefix   netip.Prefix
	Protocol Protocol
	Port     uint16
}

// Members is the contents of a set.
type Members map[Member]struct{}

// RouteKind says how packets leave the node.
type RouteKind uint8

const (
	// RouteWorkload goes out of a pod's interface, scope link, protocol 3 (boot).
	RouteWorkload RouteKind = iota + 1
	// RouteTunnel goes to another node's tunnel address (Gateway) on a tunnel device,
	// onlink, protocol 80.
	RouteTunnel
	// RouteDirect goes to another node's own address (Gateway), protocol 80; the
	// kernel finds the device.
	RouteDirect
	// RouteBlackhole drops what no longer specific route takes, protocol 80: the
	// node's own blocks.
	RouteBlackhole
)

// Route is the route of a prefix; the state has at most one a prefix.
type Route struct {
	Kind    RouteKind
	Device  string     // Workload, Tunnel
	Gateway netip.Addr // Tunnel, Direct
}

// Encap is a way to carry packets between nodes.
type Encap uint8

const (
	NoEncap Encap = iota
	VXLAN
	IPIP
)

// Tunnel is a device of ours. There is at most one of an encapsulation and family.
type Tunnel struct {
	Encap    Encap
	Family   Family
	Addr     netip.Addr // the device's own address, /32 or /128; invalid while it has none
	MAC      string     // VXLAN
	Underlay netip.Addr // the node's address, which packets leave from
	VNI      int        // VXLAN
	Port     uint16     // VXLAN
	MTU      int        // 0: from the device that carries Underlay, less the encapsulation
}

// VTEPKey names another node's end of a tunnel.
type VTEPKey struct {
	Device string
	Node   string
}

// VTEP is another node's end of a tunnel.
type VTEP struct {
	Underlay netip.Addr // where encapsulated packets go
	Addr     netip.Addr // its tunnel address: the gateway of Tunnel routes
	MAC      string     // VXLAN
}

// Names of tunnel devices, which users know.
const (
	DeviceVXLAN   = "vxlan.calico"
	DeviceVXLANv6 = "vxlan-v6.calico"
	DeviceIPIP    = "tunl0"
)
