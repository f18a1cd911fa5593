package calc

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// parseNet parses a prefix, or an address as the prefix of its full length. Host bits are
// cleared, and an IPv4 address mapped into IPv6 is IPv4.
func parseNet(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return unmapNet(p)
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a prefix such as 10.0.0.0/8", s)
	}
	return hostNet(a.Unmap()), nil
}

func unmapNet(p netip.Prefix) (netip.Prefix, error) {
	if !p.Addr().Is4In6() {
		return p.Masked(), nil
	}
	if p.Bits() < 96 {
		return netip.Prefix{}, fmt.Errorf("prefix %v holds more than the IPv4-mapped addresses", p)
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked(), nil
}

// hostNet is the prefix that holds only a.
func hostNet(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func familyOf(p netip.Prefix) dataplane.Family { return dataplane.FamilyOf(p.Addr()) }

// parseNets parses a list of prefixes and brings it into its one normal form: sorted, none
// inside another. It is false if one of them does not parse.
func parseNets(list []string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, s := range list {
		p, err := parseNet(s)
		if err != nil {
			return nil, err
		}
		nets = append(nets, p)
	}
	return normalNets(nets), nil
}

func normalNets(nets []netip.Prefix) []netip.Prefix {
	slices.SortFunc(nets, comparePrefixes)
	kept := nets[:0]
	for _, p := range nets {
		// Whatever contains p starts at or before it and sorts before it, and so
		// does everything between the two: only the last one kept can contain p.
		if n := len(kept); n == 0 || !contains(kept[n-1], p) {
			kept = append(kept, p)
		}
	}
	return kept
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

func contains(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }

// nthAddr is the address n after the first of p. It is false outside of p.
func nthAddr(p netip.Prefix, n int) (netip.Addr, bool) {
	b := p.Addr().As16()
	for i, carry := 15, uint64(n); i >= 0 && carry > 0; i-- {
		carry += uint64(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		a = a.Unmap()
	}
	return a, n >= 0 && p.Contains(a)
}
