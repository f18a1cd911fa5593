package calc

import (
	"crypto/sha1"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

// node is what other nodes must know of a node to send it packets.
type node struct {
	name string
	ends [2]end // by family, see idx
}

// end is a node's ends of tunnels in one family. What it lacks is invalid or empty.
type end struct {
	underlay netip.Addr   // of the node itself
	subnet   netip.Prefix // that underlay is in
	vxlan    netip.Addr   // of its VXLAN device
	mac      string       // of its VXLAN device
	ipip     netip.Addr   // of its IPIP device
}

func idx(f dataplane.Family) int {
	if f == dataplane.IPv4 {
		return 0
	}
	return 1
}

func (n *node) end(f dataplane.Family) *end { return &n.ends[idx(f)] }

// readNode reads a stored node. An address that does not parse is as good as absent.
func readNode(o *api.Node) *node {
	n := &node{name: o.Name}
	v4, v6 := n.end(dataplane.IPv4), n.end(dataplane.IPv6)
	v4.vxlan = tunnelAddr(o.Spec.IPv4VXLANTunnelAddr, dataplane.IPv4)
	v6.vxlan = tunnelAddr(o.Spec.IPv6VXLANTunnelAddr, dataplane.IPv6)
	v4.mac = tunnelMAC(o.Spec.VXLANTunnelMACAddr, o.Name)
	v6.mac = tunnelMAC(o.Spec.VXLANTunnelMACAddrV6, o.Name+"-v6")
	if b := o.Spec.BGP; b != nil {
		v4.underlay, v4.subnet = underlay(b.IPv4Address, dataplane.IPv4)
		v6.underlay, v6.subnet = underlay(b.IPv6Address, dataplane.IPv6)
		v4.ipip = tunnelAddr(b.IPv4IPIPTunnelAddr, dataplane.IPv4)
	}
	return n
}

// underlay parses a node's address with or without its subnet's length.
func underlay(s string, f dataplane.Family) (netip.Addr, netip.Prefix) {
	if p, err := netip.ParsePrefix(s); err == nil && dataplane.FamilyOf(p.Addr()) == f && !p.Addr().Is4In6() {
		return p.Addr(), p.Masked()
	}
	a := tunnelAddr(s, f)
	if !a.IsValid() {
		return a, netip.Prefix{}
	}
	return a, hostNet(a)
}

func tunnelAddr(s string, f dataplane.Family) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || dataplane.FamilyOf(a.Unmap()) != f {
		return netip.Addr{}
	}
	return a.Unmap()
}

// tunnelMAC is the MAC of a node's VXLAN device: the one that is set, or one made of the
// node's name as upstream makes it, which every node can do by itself.
func tunnelMAC(set, name string) string {
	if mac, err := parseMAC(set); err == nil {
		return mac
	}
	sum := sha1.Sum([]byte(name))
	return formatMAC([6]byte{'f', sum[0], sum[1], sum[2], sum[3], sum[4]})
}

func formatMAC(b [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// parseMAC brings a MAC address to lower case with colons.
func parseMAC(s string) (string, error) {
	var b [6]byte
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
	if len(parts) != len(b) {
		return "", fmt.Errorf("%q is no MAC address", s)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q is no MAC address", s)
		}
		b[i] = byte(n)
	}
	return formatMAC(b), nil
}
