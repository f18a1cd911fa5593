package filter

import (
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// Field is a part of a packet, or of what the kernel knows of it.
type Field uint8

const (
	SrcAddr    Field = iota + 1
	DstAddr          // Prefix, SetRef of Nets or Addrs
	Protocol         // Number
	SrcPort          // Ports, SetRef of PortRanges; the rule has matched the protocol before
	DstPort          //
	ICMP             // Type; the rule has matched the protocol before
	SrcTriple        // SetRef of Triples: source address, protocol, source port
	DstTriple        // SetRef of Triples: destination address, protocol, destination port
	InIface          // Iface, SetRef of Ifaces
	OutIface         //
	InIfaceSrc       // SetRef of IfaceAddrs or IfaceNets: input interface, source address
	Mark             // Bits
	CtMark           // Bits: of the flow's mark; a packet of no flow lacks it
	ConnState        // Conns
	SrcLocal         // nil: the source address is one of the host's own
)

// Match is one condition; those of a rule are and-ed. A packet that lacks the field (a
// fragment has no ports) fits neither a condition nor its negation.
type Match struct {
	Field Field
	Not   bool
	Value Value
}

// Value is what a field is compared with: a literal, or a reference to a set.
type Value interface{ isValue() }

type (
	Prefix struct{ netip.Prefix }
	Number dataplane.Protocol
	Ports  dataplane.PortRange // inclusive
	Type   dataplane.ICMP
	// Iface is a device's name, or what its name begins with.
	Iface struct {
		Name   string
		Prefix bool
	}
	// Bits are those of Value within Mask.
	Bits struct{ Mask, Value uint32 }
	// Conns is a set of states, one bit each: 1 << dataplane.Conn.
	Conns uint8
	// SetRef names a set of the program, and says what kind it is of.
	SetRef struct {
		Name string
		Kind SetKind
	}
)

func (Prefix) isValue() {}
func (Number) isValue() {}
func (Ports) isValue()  {}
func (Type) isValue()   {}
func (Iface) isValue()  {}
func (Bits) isValue()   {}
func (Conns) isValue()  {}
func (SetRef) isValue() {}

func not(m Match) Match {
	m.Not = !m.Not
	return m
}
