package main

import (
	"fmt"
	"net"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// bareWire does in the kernel what wires a pod, without thought: the requests that an ADD
// makes, in its order, by sockets that are open, but for the pod's.
func bareWire(m *machine, pod *netns, name string, addr netip.Addr) error {
	h, err := m.handle()
	if err != nil {
		return err
	}
	p, err := netlink.Open(int(pod.Fd()))
	if err != nil {
		return err
	}
	defer p.Close()
	err = netlink.SetSysctls(int(pod.Fd()),
		netlink.Sysctl{Name: "net/ipv6/conf/default/accept_dad", Value: "0", IfPresent: true},
		netlink.Sysctl{Name: "net/ipv6/conf/default/dad_transmits", Value: "0", IfPresent: true},
		netlink.Sysctl{Name: "net/ipv4/ip_forward", Value: "0"},
		netlink.Sysctl{Name: "net/ipv6/conf/all/forwarding", Value: "0", IfPresent: true})
	if err != nil {
		return err
	}
	hostMAC, podMAC := net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}, net.HardwareAddr{2, 0, 0, 0, 0, 1}
	err = h.LinkAdd(&vnl.Veth{
		LinkAttrs: vnl.LinkAttrs{Name: name, HardwareAddr: hostMAC, MTU: 1500},
		PeerName:  "eth0", PeerHardwareAddr: podMAC, PeerMTU: 1500, PeerNamespace: vnl.NsFd(pod.Fd()),
	})
	if err != nil {
		return err
	}
	if err := hostSysctls(m, name); err != nil {
		return err
	}
	host, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if err := podSide(p, addr, hostMAC); err != nil {
		return err
	}
	if err := h.LinkSetUp(host); err != nil {
		return err
	}
	if err := h.NeighSet(permanent(host, addr, podMAC)); err != nil {
		return err
	}
	return h.RouteReplace(&vnl.Route{LinkIndex: host.Attrs().Index, Dst: single(addr), Scope: vnl.SCOPE_LINK})
}

func hostSysctls(m *machine, name string) error {
	return netlink.SetSysctls(int(m.Fd()),
		netlink.Sysctl{Name: "net/ipv4/conf/" + name + "/forwarding", Value: "1"},
		netlink.Sysctl{Name: "net/ipv4/conf/" + name + "/proxy_arp", Value: "1"},
		netlink.Sysctl{Name: "net/ipv4/neigh/" + name + "/proxy_delay", Value: "0"},
		netlink.Sysctl{Name: "net/ipv6/conf/" + name + "/accept_dad", Value: "0", IfPresent: true},
		netlink.Sysctl{Name: "net/ipv6/conf/" + name + "/dad_transmits", Value: "0", IfPresent: true},
		netlink.Sysctl{Name: "net/ipv6/conf/" + name + "/accept_ra", Value: "0", IfPresent: true})
}

func podSide(p *netlink.Handle, addr netip.Addr, hostMAC net.HardwareAddr) error {
	gw := netip.MustParseAddr("169.254.1.1")
	if err := up(p, "lo"); err != nil {
		return err
	}
	l, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := p.AddrReplace(l, &vnl.Addr{IPNet: single(addr), Flags: unix.IFA_F_NODAD}); err != nil {
		return err
	}
	if err := p.LinkSetUp(l); err != nil {
		return err
	}
	if err := p.NeighSet(permanent(l, gw, hostMAC)); err != nil {
		return err
	}
	if err := p.RouteReplace(&vnl.Route{LinkIndex: l.Attrs().Index, Dst: single(gw), Scope: vnl.SCOPE_LINK}); err != nil {
		return err
	}
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	return p.RouteReplace(&vnl.Route{LinkIndex: l.Attrs().Index, Dst: all, Gw: netlink.IP(gw)})
}

func single(a netip.Addr) *net.IPNet { return netlink.IPNet(netip.PrefixFrom(a, a.BitLen())) }

func permanent(l vnl.Link, a netip.Addr, mac net.HardwareAddr) *vnl.Neigh {
	return &vnl.Neigh{LinkIndex: l.Attrs().Index, Family: vnl.FAMILY_V4, State: vnl.NUD_PERMANENT, IP: netlink.IP(a), HardwareAddr: mac}
}

// bareUnwire deletes the device, and all with it.
func bareUnwire(m *machine, name string) error {
	h, err := m.handle()
	if err != nil {
		return err
	}
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	return h.LinkDel(l)
}
