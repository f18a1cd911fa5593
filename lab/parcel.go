package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Parcel is a kind of packet that [Client.Send] sends: the first one of a flow.
type Parcel struct {
	Protocol   byte
	Port       uint16 // TCP, UDP, SCTP and UDP-Lite: where it goes
	Type, Code byte   // ICMP and ICMPv6
	Ping       bool   // an echo request of either family
}

// withPorts are the names of the protocols that have ports, and their numbers.
var withPorts = map[string]byte{
	"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE,
}

// ParseParcels reads tcp/PORT,PORT… (or udp, sctp, udplite), icmp/TYPE/CODE (or icmp6), ping,
// or the number of a protocol.
func ParseParcels(text string) ([]Parcel, error) {
	name, rest, detailed := strings.Cut(text, "/")
	switch number, err := strconv.ParseUint(name, 10, 8); {
	case name == "ping" && !detailed:
		return []Parcel{{Ping: true}}, nil
	case name == "icmp" && detailed:
		return parseICMP(text, rest, unix.IPPROTO_ICMP)
	case name == "icmp6" && detailed:
		return parseICMP(text, rest, unix.IPPROTO_ICMPV6)
	case withPorts[name] != 0 && detailed:
		return parsePortList(text, rest, withPorts[name])
	case err == nil && !detailed && hasNoHeader(byte(number)):
		return []Parcel{{Protocol: byte(number)}}, nil
	}
	return nil, fmt.Errorf("%q: want tcp/80, udp/53,5353, sctp/9, udplite/9, ping, icmp/8/0, icmp6/128/0 or the number of another protocol", text)
}

// hasNoHeader tells whether all that is known of the protocol is its number.
func hasNoHeader(protocol byte) bool {
	switch protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE:
		return false
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_NONE, unix.IPPROTO_DSTOPTS:
		return false // in IPv6 these are headers before another protocol's, or before none
	}
	return true
}

func parseICMP(text, rest string, protocol byte) ([]Parcel, error) {
	kind, code, _ := strings.Cut(rest, "/")
	if code == "" {
		code = "0"
	}
	t, err1 := strconv.ParseUint(kind, 10, 8)
	c, err2 := strconv.ParseUint(code, 10, 8)
	if errors.Join(err1, err2) != nil {
		return nil, fmt.Errorf("%q: want a type and code of ICMP, each 0 to 255, such as icmp/8/0", text)
	}
	return []Parcel{{Protocol: protocol, Type: byte(t), Code: byte(c)}}, nil
}

func parsePortList(text, rest string, protocol byte) (all []Parcel, err error) {
	for word := range strings.SplitSeq(rest, ",") {
		port, err := strconv.ParseUint(word, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("%q: ports are 1 to 65535", text)
		}
		all = append(all, Parcel{Protocol: protocol, Port: uint16(port)})
	}
	return all, nil
}

// String is as ParseParcels reads it.
func (p Parcel) String() string {
	for name, number := range withPorts {
		if p.Protocol == number {
			return fmt.Sprintf("%s/%d", name, p.Port)
		}
	}
	switch {
	case p.Ping:
		return "ping"
	case p.Protocol == unix.IPPROTO_ICMP:
		return fmt.Sprintf("icmp/%d/%d", p.Type, p.Code)
	case p.Protocol == unix.IPPROTO_ICMPV6:
		return fmt.Sprintf("icmp6/%d/%d", p.Type, p.Code)
	}
	return strconv.Itoa(int(p.Protocol))
}

// of is p for one family; false if it has no such packet.
func (p Parcel) of(v6 bool) (Parcel, bool) {
	switch {
	case p.Ping && v6:
		return Parcel{Protocol: unix.IPPROTO_ICMPV6, Type: echoRequest6}, true
	case p.Ping:
		return Parcel{Protocol: unix.IPPROTO_ICMP, Type: echoRequest4}, true
	case p.Protocol == unix.IPPROTO_ICMP:
		return p, !v6
	case p.Protocol == unix.IPPROTO_ICMPV6:
		return p, v6
	}
	return p, true
}

// tag tells the packets of one call apart: the last bytes of each.
type tag [4]byte

// datagram returns the parcel as an IP packet that ends with the tag. Its checksums are
// right: connection tracking drops others.
func (p Parcel) datagram(from, to netip.Addr, source uint16, t tag) []byte {
	body := p.segment(from, to, source, t)
	if from.Is4() {
		h := make([]byte, 20, 20+len(body)) // RFC 791; the kernel puts in its checksum
		h[0], h[8], h[9] = 0x45, 64, p.Protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[4:], t[:2])
		copy(h[12:], from.AsSlice())
		copy(h[16:], to.AsSlice())
		return append(h, body...)
	}
	h := make([]byte, 40, 40+len(body)) // RFC 8200
	h[0], h[6], h[7] = 0x60, p.Protocol, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	return append(h, body...)
}

// segment is what follows the IP header.
func (p Parcel) segment(from, to netip.Addr, source uint16, t tag) []byte {
	ports := func(length int) []byte {
		b := make([]byte, length)
		binary.BigEndian.PutUint16(b, source)
		binary.BigEndian.PutUint16(b[2:], p.Port)
		return b
	}
	switch p.Protocol {
	case unix.IPPROTO_TCP: // a SYN (RFC 9293)
		b := append(ports(20), t[:]...)
		b[12], b[13], b[14] = 5<<4, 2, 64
		return summed(b, 16, from, to, p.Protocol)
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE: // RFC 768, RFC 3828
		b := append(ports(8), t[:]...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		return summed(b, 6, from, to, p.Protocol)
	case unix.IPPROTO_SCTP: // an INIT (RFC 9260, 3.3.2), whose initial TSN is the tag
		b := append(ports(12), 1, 0, 0, 20, t[0], t[1], t[2], 1, 0, 0, 255, 255, 0, 1, 0, 1)
		b = append(b, t[:]...)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		return b
	case unix.IPPROTO_ICMP:
		b := append([]byte{p.Type, p.Code, 0, 0, t[0], t[1], 0, 1}, t[:]...)
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		return b
	case unix.IPPROTO_ICMPV6:
		b := append([]byte{p.Type, p.Code, 0, 0, t[0], t[1], 0, 1}, t[:]...)
		return summed(b, 2, from, to, p.Protocol)
	}
	return append(make([]byte, 24), t[:]...)
}

// summed puts the checksum over b, which has an even length, and the pseudo header at b[at:].
func summed(b []byte, at int, from, to netip.Addr, protocol byte) []byte {
	all := append(from.AsSlice(), to.AsSlice()...)
	all = append(all, 0, protocol)
	all = binary.BigEndian.AppendUint16(all, uint16(len(b)))
	sum := checksum(append(all, b...))
	if sum == 0 {
		sum = 0xffff // 0 is for none
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	return b
}
