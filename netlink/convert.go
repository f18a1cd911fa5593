package netlink

import (
	"net"
	"net/netip"
)

// IP returns a in the form that vishvananda/netlink takes: 4 or 16 bytes by family, nil
// for no address.
func IP(a netip.Addr) net.IP { return a.AsSlice() }

// IPNet is [IP] for prefixes; nil for no prefix.
func IPNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: IP(p.Addr()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Addr is the reverse of [IP].
func Addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Prefix is the reverse of [IPNet].
func Prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(Addr(n.IP), bits)
}
