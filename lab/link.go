package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/netlink"
)

const (
	bridgeName  = "underlay"
	underlayMTU = 1500
	nodeDevice  = "eth0"
)

// underlay is the link between the nodes: a bridge in the lab's own network namespace,
// which also has the first address, on which etcd listens.
type underlay struct {
	net4, net6 netip.Prefix // net6 is the zero value without IPv6
	host       *netlink.Handle
	bridge     *vnl.Bridge
}

// plan chooses the networks of the underlay: any that do not overlap the pools.
func plan(o Options) (net4, net6 netip.Prefix) {
	for _, c := range []string{"172.30.0.0/24", "192.168.230.0/24", "10.255.230.0/24"} {
		if net4 = netip.MustParsePrefix(c); !net4.Overlaps(o.Pool) {
			break
		}
	}
	if !o.Pool6.IsValid() {
		return net4, netip.Prefix{}
	}
	for _, c := range []string{"fd00:172:30::/64", "fd00:192:168::/64", "2001:db8:172:30::/64"} {
		if net6 = netip.MustParsePrefix(c); !net6.Overlaps(o.Pool6) {
			break
		}
	}
	return net4, net6
}

// nth is the n-th address of p, below 256.
func nth(p netip.Prefix, n int) netip.Prefix {
	b := p.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits())
}

// newUnderlay makes the bridge in the caller's network namespace.
func newUnderlay(o Options) (*underlay, error) {
	u := &underlay{}
	u.net4, u.net6 = plan(o)
	if err := quickIPv6(); err != nil {
		return nil, err
	}
	var err error
	if u.host, err = netlink.Open(netlink.Current); err != nil {
		return nil, err
	}
	off := false
	u.bridge = &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: bridgeName, MTU: underlayMTU}, MulticastSnooping: &off}
	if err := u.host.LinkAdd(u.bridge); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", bridgeName, err)
	}
	if err := u.host.LinkSetUp(u.bridge); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", bridgeName, err)
	}
	return u, u.address(u.host, u.bridge, 1)
}

// gateway is the address of the lab itself on the underlay.
func (u *underlay) gateway() netip.Addr { return nth(u.net4, 1).Addr() }

// nodeAddrs are the addresses of the i-th node, from 1.
func (u *underlay) nodeAddrs(i int) []netip.Addr {
	addrs := []netip.Addr{nth(u.net4, i+1).Addr()}
	if u.net6.IsValid() {
		addrs = append(addrs, nth(u.net6, i+1).Addr())
	}
	return addrs
}

// address gives a device the n-th address of each network.
func (u *underlay) address(h *netlink.Handle, l vnl.Link, n int) error {
	for _, p := range []netip.Prefix{u.net4, u.net6} {
		if !p.IsValid() {
			continue
		}
		a := &vnl.Addr{IPNet: ipNet(nth(p, n))}
		if p.Addr().Is6() {
			a.Flags = 0x02 // IFA_F_NODAD
		}
		if err := h.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %v to %s: %w", a.IPNet, l.Attrs().Name, err)
		}
	}
	return nil
}

// connect joins the i-th node to the underlay, by a veth pair that is named after the
// node at the bridge and eth0 in the node.
func (u *underlay) connect(n *node, i int) error {
	pair := &vnl.Veth{
		LinkAttrs:     vnl.LinkAttrs{Name: n.name, MTU: underlayMTU, MasterIndex: u.bridge.Index},
		PeerName:      nodeDevice,
		PeerNamespace: vnl.NsFd(n.ns.net.Fd()),
		PeerMTU:       underlayMTU,
	}
	if err := u.host.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the link of %s: %w", n.name, err)
	}
	if err := u.host.LinkSetUp(pair); err != nil {
		return fmt.Errorf("set the link of %s up: %w", n.name, err)
	}
	dev, err := n.links.LinkByName(nodeDevice)
	if err != nil {
		return fmt.Errorf("find %s of %s: %w", nodeDevice, n.name, err)
	}
	if err := n.links.LinkSetUp(dev); err != nil {
		return fmt.Errorf("set %s of %s up: %w", nodeDevice, n.name, err)
	}
	if err := u.address(n.links, dev, i+1); err != nil {
		return err
	}
	return u.defaultRoutes(n.links, dev)
}

func (u *underlay) defaultRoutes(h *netlink.Handle, dev vnl.Link) error {
	for _, p := range []netip.Prefix{u.net4, u.net6} {
		if !p.IsValid() {
			continue
		}
		via := nth(p, 1).Addr()
		r := &vnl.Route{LinkIndex: dev.Attrs().Index, Gw: via.AsSlice(), Dst: &net.IPNet{IP: make(net.IP, via.BitLen()/8), Mask: net.CIDRMask(0, via.BitLen())}}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("add default route via %v: %w", via, err)
		}
	}
	return nil
}

// quickIPv6 turns duplicate address detection off for devices that are yet to come in the
// caller's network namespace: it costs two seconds, and the lab alone gives addresses out.
func quickIPv6() error {
	for _, f := range []string{"accept_dad", "dad_transmits"} {
		for _, dev := range []string{"all", "default"} {
			err := os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/"+f, []byte("0"), 0)
			if err != nil && !os.IsNotExist(err) { // a kernel without IPv6
				return err
			}
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
