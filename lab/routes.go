package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes prints a node's main tables as ip-route(8) does, IPv4 and then IPv6.
func (s *Supervisor) routes(c *call, name string) (any, error) {
	n, err := s.nodeNamed(name)
	if err != nil {
		return nil, err
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		lines, err := n.routeLines(family)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			fmt.Fprintln(c, l)
		}
	}
	return nil, nil
}

func (n *node) routeLines(family int) ([]string, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links of %s: %w", n.name, err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	routes, err := n.links.RouteListFiltered(family, &vnl.Route{Table: unix.RT_TABLE_MAIN}, vnl.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", n.name, err)
	}
	slices.SortStableFunc(routes, func(a, b vnl.Route) int { return prefixOf(a.Dst).Compare(prefixOf(b.Dst)) })
	var lines []string
	for _, r := range routes {
		lines = append(lines, routeLine(r, names))
	}
	return lines, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

var routeTypes = map[int]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
}

func routeLine(r vnl.Route, names map[int]string) string {
	var b strings.Builder
	word := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	if t, ok := routeTypes[r.Type]; ok {
		word("%s", t)
	}
	word("%s", destination(r.Dst))
	if r.Gw != nil {
		word("via %v", r.Gw)
	}
	if r.LinkIndex != 0 && r.Type == unix.RTN_UNICAST {
		word("dev %s", names[r.LinkIndex])
	}
	if r.Protocol != unix.RTPROT_BOOT {
		word("proto %s", protocolName(int(r.Protocol)))
	}
	if r.Scope == vnl.SCOPE_LINK && r.Family == unix.AF_INET {
		word("scope link")
	}
	if r.Src != nil {
		word("src %v", r.Src)
	}
	if r.Priority != 0 {
		word("metric %d", r.Priority)
	}
	if r.MTU != 0 {
		word("mtu %d", r.MTU)
	}
	if r.Flags&unix.RTNH_F_ONLINK != 0 {
		word("onlink")
	}
	return b.String()[1:]
}

func destination(n *net.IPNet) string {
	p := prefixOf(n)
	switch {
	case !p.IsValid(), p.Bits() == 0:
		return "default"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func protocolName(p int) string {
	switch p {
	case unix.RTPROT_KERNEL:
		return "kernel"
	case unix.RTPROT_STATIC:
		return "static"
	case unix.RTPROT_BIRD:
		return "bird"
	case unix.RTPROT_RA:
		return "ra"
	}
	return fmt.Sprint(p)
}
