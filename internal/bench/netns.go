package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// netns is a network namespace, held by descriptor.
type netns struct {
	*os.File
	h *netlink.Handle
}

// newNS makes one with lo up.
func newNS() (*netns, error) {
	n := &netns{}
	err := netlink.Thread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if n.File, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return netlink.LoopbackUp()
	})
	return n, err
}

// path is a name of the namespace that other processes can open.
func (n *netns) path() string { return fmt.Sprintf("/proc/1/fd/%d", n.Fd()) }

// handle is a set of sockets in the namespace, opened once.
func (n *netns) handle() (*netlink.Handle, error) {
	var err error
	if n.h == nil {
		n.h, err = netlink.Open(int(n.Fd()))
	}
	return n.h, err
}

func (n *netns) close() {
	if n.h != nil {
		n.h.Close()
	}
	n.Close()
}

// machine is a network namespace that stands for a machine: it forwards, and eth0 joins it
// to this process's own namespace, which stands for the rest of the world.
type machine struct {
	*netns
	addr netip.Addr
}

// newMachine makes the i-th one.
func newMachine(i int) (*machine, error) {
	n, err := newNS()
	if err != nil {
		return nil, err
	}
	m := &machine{netns: n, addr: netip.AddrFrom4([4]byte{172, byte(30 + i), 0, 2})}
	h, err := n.handle()
	if err != nil {
		return nil, err
	}
	world, err := netlink.Open(netlink.Current)
	if err != nil {
		return nil, err
	}
	defer world.Close()
	name := fmt.Sprint("machine", i)
	if err := pair(world, name, n, "eth0"); err != nil {
		return nil, err
	}
	gw := netip.AddrFrom4([4]byte{172, byte(30 + i), 0, 1})
	if err := address(world, name, netip.PrefixFrom(gw, 24)); err != nil {
		return nil, err
	}
	if err := address(h, "eth0", netip.PrefixFrom(m.addr, 24)); err != nil {
		return nil, err
	}
	if err := h.RouteAdd(&vnl.Route{Gw: netlink.IP(gw), Dst: netlink.IPNet(netip.MustParsePrefix("0.0.0.0/0"))}); err != nil {
		return nil, err
	}
	return m, netlink.SetSysctls(int(n.Fd()),
		netlink.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"},
		netlink.Sysctl{Name: "net/ipv4/conf/all/rp_filter", Value: "0"},
		netlink.Sysctl{Name: "net/ipv4/conf/eth0/rp_filter", Value: "0"})
}

// pair makes a veth pair: name here, peer there, both up.
func pair(h *netlink.Handle, name string, there *netns, peer string) error {
	err := h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: name, MTU: 1500}, PeerName: peer, PeerNamespace: vnl.NsFd(there.Fd()), PeerMTU: 1500})
	if err != nil {
		return err
	}
	ph, err := there.handle()
	if err != nil {
		return err
	}
	if err := up(ph, peer); err != nil {
		return err
	}
	return up(h, name)
}

func up(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(l)
}

func address(h *netlink.Handle, name string, p netip.Prefix) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.AddrAdd(l, &vnl.Addr{IPNet: &net.IPNet{IP: netlink.IP(p.Addr()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}})
}
