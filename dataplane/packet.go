package dataplane

import "net/netip"

// Packet is what a rule can see of a packet. Where it passes follows from the interfaces:
// both given: it is forwarded; only In: it is for the host; only Out: it is from the host.
type Packet struct {
	In, Out          string // devices; empty: the host itself
	Src, Dst         netip.Addr
	Protocol         Protocol
	SrcPort, DstPort uint16 // where the protocol has ports
	Type, Code       uint8  // of ICMP and ICMPv6
	Fragment         bool   // not the first fragment: it carries neither ports nor ICMP type
	Conn             Conn
	Cut              bool // its flow is marked as one that policy has come to deny
}

// Conn is what connection tracking says of a packet.
type Conn uint8

const (
	ConnNew         Conn = iota
	ConnEstablished      // of a known flow, or related to one
	ConnInvalid          // fits no flow and cannot open one
	ConnUntracked        // exempt, such as neighbour discovery
)

func (c Conn) String() string {
	return nameOf(c, "new", "established", "invalid", "untracked")
}

// Family returns the family of the packet's addresses.
func (p *Packet) Family() Family { return FamilyOf(p.Dst) }

// Ports tells whether the packet carries port numbers.
func (p *Packet) Ports() bool { return p.Protocol.HasPorts() && !p.Fragment }

// ICMP tells whether the packet carries a type and code of its family's ICMP.
func (p *Packet) ICMP() bool { return p.Protocol == p.Family().ICMP() && !p.Fragment }

// Discovery tells whether the packet is of IPv6 neighbour or multicast listener
// discovery (RFC 4861, 2710), as a pod may send it to its node: all but router
// advertisements and redirects.
func (p *Packet) Discovery() bool {
	if p.Family() != IPv6 || !p.ICMP() {
		return false
	}
	for _, t := range DiscoveryTypes {
		if p.Type == t {
			return true
		}
	}
	return false
}

// DiscoveryTypes are the ICMPv6 types of [Packet.Discovery]: listener query, report and
// done, router solicitation, neighbour solicitation and advertisement.
var DiscoveryTypes = [...]uint8{130, 131, 132, 133, 135, 136}

// ICMP is the protocol number of the family's ICMP.
func (f Family) ICMP() Protocol {
	if f == IPv4 {
		return ICMP4
	}
	return ICMP6
}
