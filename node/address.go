package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Method is a way to choose the node's address, as upstream's
// IP_AUTODETECTION_METHOD names it. The zero Method is: the source address of the route
// to the datastore, and where that says nothing, first-found.
type Method struct {
	name  string
	reach string           // can-reach
	only  []*regexp.Regexp // interface
	skip  []*regexp.Regexp // skip-interface
	cidrs []netip.Prefix   // cidr
}

// ParseMethod parses first-found, can-reach=HOST, interface=REGEX[,…],
// skip-interface=REGEX[,…] or cidr=CIDR[,…]; empty is the zero Method.
func ParseMethod(s string) (Method, error) {
	name, arg, _ := strings.Cut(s, "=")
	m := Method{name: name}
	var err error
	switch name {
	case "", "first-found":
	case "can-reach":
		m.reach = arg
	case "interface":
		m.only, err = regexps(arg)
	case "skip-interface":
		m.skip, err = regexps(arg)
	case "cidr":
		m.cidrs, err = prefixes(arg)
	default:
		return m, errors.New("want first-found, can-reach=HOST, interface=REGEX, skip-interface=REGEX or cidr=CIDR")
	}
	if err == nil && name != "" && name != "first-found" && arg == "" {
		err = fmt.Errorf("%s= needs a value", name)
	}
	return m, err
}

func regexps(list string) (rs []*regexp.Regexp, err error) {
	for s := range strings.SplitSeq(list, ",") {
		r, err := regexp.Compile(s)
		if err != nil {
			return nil, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func prefixes(list string) (ps []netip.Prefix, err error) {
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// neverOurs matches interfaces that first-found passes over: those of container runtimes
// and of Calico itself.
var neverOurs = regexp.MustCompile(`^(docker.*|cbr.*|dummy.*|podman.*|virbr.*|lxcbr.*|veth.*|lo|br-.*|cali.*|tunl.*|flannel.*|kube-ipvs.*|cni.*|vxlan\.calico.*|vxlan-v6\.calico.*|wireguard\.cali.*|wg-v6\.cali.*|nodelocaldns.*)$`)

// candidate is an address of an interface that is up.
type candidate struct {
	device string
	addr   netip.Prefix
}

// detect chooses the node's address of family f. It is false where the node has none.
func detect(h *netlink.Handle, f dataplane.Family, set AddressSetting, datastore []string) (netip.Prefix, bool, error) {
	if set.Off {
		return netip.Prefix{}, false, nil
	}
	all, err := candidates(h, f)
	if err != nil {
		return netip.Prefix{}, false, err
	}
	if set.Given.IsValid() {
		return withLength(set.Given, all), true, nil
	}
	reach := datastore
	if set.Method.name != "" {
		reach = nil
	}
	if set.Method.reach != "" {
		reach = []string{set.Method.reach}
	}
	for _, host := range reach {
		if p, ok := byRoute(host, f, all); ok {
			return p, true, nil
		}
	}
	for _, c := range all {
		if set.Method.wants(c) {
			return c.addr, true, nil
		}
	}
	return netip.Prefix{}, false, nil
}

func (m Method) wants(c candidate) bool {
	match := func(r *regexp.Regexp) bool { return r.MatchString(c.device) }
	switch m.name {
	case "interface":
		return slices.ContainsFunc(m.only, match)
	case "skip-interface":
		return !slices.ContainsFunc(m.skip, match) && !neverOurs.MatchString(c.device)
	case "cidr":
		return slices.ContainsFunc(m.cidrs, func(p netip.Prefix) bool { return p.Contains(c.addr.Addr()) })
	case "can-reach":
		return false
	}
	return !neverOurs.MatchString(c.device)
}

// candidates lists the global addresses of the interfaces that are up, in interface
// order.
func candidates(h *netlink.Handle, f dataplane.Family) ([]candidate, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	family := vnl.FAMILY_V4
	if f == dataplane.IPv6 {
		family = vnl.FAMILY_V6
	}
	var all []candidate
	for _, l := range links {
		if l.Attrs().Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := h.AddrList(l, family)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			if ip = ip.Unmap(); ip.IsGlobalUnicast() {
				all = append(all, candidate{l.Attrs().Name, netip.PrefixFrom(ip, ones)})
			}
		}
	}
	return all, nil
}

// withLength gives a lone address the length of its interface's subnet.
func withLength(p netip.Prefix, all []candidate) netip.Prefix {
	for _, c := range all {
		if c.addr.Addr() == p.Addr() && p.IsSingleIP() {
			return c.addr
		}
	}
	return p
}

// byRoute asks the kernel which source address packets to host carry. Connecting a UDP
// socket sends nothing.
func byRoute(host string, f dataplane.Family, all []candidate) (netip.Prefix, bool) {
	network := "udp4"
	if f == dataplane.IPv6 {
		network = "udp6"
	}
	if u, err := url.Parse(host); err == nil && u.Host != "" {
		host = u.Hostname()
	}
	conn, err := net.Dial(network, net.JoinHostPort(host, "9"))
	if err != nil {
		return netip.Prefix{}, false
	}
	defer conn.Close()
	src := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	for _, c := range all {
		if c.addr.Addr() == src {
			return c.addr, true
		}
	}
	return netip.Prefix{}, false
}
