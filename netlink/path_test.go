package netlink_test

import (
	"errors"
	"net/netip"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// ether makes a link that is up, with an address.
func ether(t *testing.T, h *netlink.Handle, name string, mtu int, addr string) vnl.Link {
	t.Helper()
	l := &vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: name, MTU: mtu}, PeerName: name + "p"}
	must(t, h.LinkAdd(l))
	must(t, h.LinkSetUp(l))
	a := &vnl.Addr{IPNet: netlink.IPNet(netip.MustParsePrefix(addr))}
	if netip.MustParsePrefix(addr).Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	must(t, h.AddrAdd(l, a))
	return l
}

func TestPathMTU(t *testing.T) {
	h := open(t, nstest.New(t))
	lo, err := h.LinkByName("lo")
	must(t, err)
	must(t, h.LinkSetUp(lo))
	must(t, h.AddrAdd(lo, &vnl.Addr{IPNet: netlink.IPNet(netip.MustParsePrefix("192.0.2.1/32"))}))
	eth0 := ether(t, h, "eth0", 1500, "10.0.0.1/24")
	eth1 := ether(t, h, "eth1", 1400, "10.0.1.1/24")
	must(t, h.AddrAdd(eth0, &vnl.Addr{IPNet: netlink.IPNet(netip.MustParsePrefix("fd00::1/64")), Flags: unix.IFA_F_NODAD}))
	route := func(r vnl.Route, dst, via string) {
		t.Helper()
		r.Dst = netlink.IPNet(netip.MustParsePrefix(dst))
		if via != "" {
			r.Gw = netlink.IP(netip.MustParseAddr(via))
		}
		must(t, h.RouteAdd(&r))
	}
	route(vnl.Route{MTU: 1300}, "10.2.0.0/16", "10.0.0.2")
	route(vnl.Route{MTU: 9000}, "10.3.0.0/16", "10.0.0.2")
	route(vnl.Route{Type: unix.RTN_BLACKHOLE}, "10.4.0.0/16", "")
	route(vnl.Route{Type: unix.RTN_UNREACHABLE}, "10.5.0.0/16", "")
	route(vnl.Route{Type: unix.RTN_PROHIBIT}, "10.6.0.0/16", "")
	route(vnl.Route{MultiPath: []*vnl.NexthopInfo{
		{LinkIndex: eth0.Attrs().Index, Gw: netlink.IP(netip.MustParseAddr("10.0.0.2"))},
		{LinkIndex: eth1.Attrs().Index, Gw: netlink.IP(netip.MustParseAddr("10.0.1.2"))},
	}}, "10.7.0.0/16", "")
	route(vnl.Route{MTU: 1290}, "fd02::/64", "fd00::2")
	for _, c := range []struct {
		what, local string
		peers       []string
		want        int
	}{
		{"nobody there yet", "10.0.0.1", nil, 1500},
		{"a neighbour", "10.0.0.1", []string{"10.0.0.2"}, 1500},
		{"a neighbour by another link", "10.0.0.1", []string{"10.0.0.2", "10.0.1.2"}, 1400},
		{"a route that says so", "10.0.0.1", []string{"10.0.0.2", "10.2.0.1"}, 1300},
		{"a route that says more than its link takes", "10.0.0.1", []string{"10.3.0.1"}, 1500},
		{"no route", "10.0.0.1", []string{"10.99.0.1"}, 1500},
		{"routes to nowhere", "10.0.0.1", []string{"10.4.0.1", "10.5.0.1", "10.6.0.1"}, 1500},
		{"either of two ways", "10.0.0.1", []string{"10.7.0.1"}, 1400},
		{"this node itself", "10.0.1.1", []string{"10.0.0.1", "192.0.2.1"}, 1400},
		{"an address of the loopback interface", "192.0.2.1", nil, 1500},
		{"which a link makes less of", "192.0.2.1", []string{"10.0.1.2"}, 1400},
		{"IPv6", "fd00::1", []string{"fd00::3", "10.2.0.1"}, 1500},
		{"an IPv6 route that says so", "fd00::1", []string{"fd02::3"}, 1290},
	} {
		var peers []netip.Addr
		for _, p := range c.peers {
			peers = append(peers, netip.MustParseAddr(p))
		}
		if got, err := h.PathMTU(netip.MustParseAddr(c.local), peers); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.what, got, err, c.want)
		}
	}
	if _, err := h.PathMTU(netip.MustParseAddr("10.9.9.9"), nil); !errors.Is(err, netlink.ErrNoSuchAddr) {
		t.Errorf("of an address that nobody has: %v", err)
	}
}
