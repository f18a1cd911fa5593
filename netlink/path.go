package netlink

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoSuchAddr is the error of what needs an address of this node that no link has.
var ErrNoSuchAddr = errors.New("no interface of this node has the address")

// loopbackMTU stands for the MTU of the network where the node's address is on the
// loopback interface and there is no peer whose route says more: that of Ethernet.
const loopbackMTU = 1500

// PathMTU is the greatest length, in bytes, of a packet with the source local, an address
// of this namespace, that the routes to all peers take: the least of the MTU of the link
// that has local, of the links that the routes leave by, and of the `mtu` that the routes
// themselves bear (RTAX_MTU, ip-route(8)). What path MTU discovery has learned does not
// count: it is forgotten again. A peer without a route does not count either. The error
// is an [ErrNoSuchAddr] if no link has local. The cost is one request a peer.
func (h *Handle) PathMTU(local netip.Addr, peers []netip.Addr) (int, error) {
	p, err := h.Paths(local, peers)
	return p.MTU, err
}

// Paths is what the routes to other nodes take.
type Paths struct {
	MTU   int   // as [Handle.PathMTU] has it
	Links []int // indexes of the links that the routes leave by, and of that which has local; never lo
}

// Paths looks up the ways from local to the peers; see [Handle.PathMTU].
func (h *Handle) Paths(local netip.Addr, peers []netip.Addr) (Paths, error) {
	links := map[int]int{}
	mtu, err := h.addrMTU(local, links)
	if err != nil {
		return Paths{}, err
	}
	for _, p := range peers {
		if p.BitLen() != local.BitLen() {
			continue
		}
		m, err := h.routeMTU(p, links)
		if err != nil {
			return Paths{}, err
		}
		mtu = lesser(mtu, m)
	}
	if mtu == 0 {
		mtu = loopbackMTU
	}
	maps.DeleteFunc(links, func(_, mtu int) bool { return mtu == 0 })
	return Paths{mtu, slices.Sorted(maps.Keys(links))}, nil
}

// addrMTU is the MTU of the link that has the address; 0 if that is the loopback interface.
func (h *Handle) addrMTU(addr netip.Addr, links map[int]int) (int, error) {
	// A node has few links with addresses: those of pods have none in IPv4.
	all, err := Dump(func() ([]vnl.Addr, error) { return h.AddrList(nil, familyOf(addr)) })
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if Addr(a.IP) != addr {
			continue
		}
		l, err := h.LinkByIndex(a.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("look up the link that has %v: %w", addr, err)
		}
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			return 0, nil
		}
		links[a.LinkIndex] = l.Attrs().MTU
		return l.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("%w %v", ErrNoSuchAddr, addr)
}

// routeMTU is the least MTU of the route to a peer; 0 if there is none. links remembers
// the MTU of links.
func (h *Handle) routeMTU(peer netip.Addr, links map[int]int) (int, error) {
	routes, err := h.RouteGetWithOptions(IP(peer), &vnl.RouteGetOptions{FIBMatch: true})
	if unrouted(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up the route to %v: %w", peer, err)
	}
	least := 0
	for _, r := range routes {
		hops := []int{r.LinkIndex}
		for _, n := range r.MultiPath {
			hops = append(hops, n.LinkIndex)
		}
		for _, index := range hops {
			m, err := h.linkMTU(index, links)
			if err != nil {
				return 0, err
			}
			least = lesser(least, m)
		}
		least = lesser(least, r.MTU)
	}
	return least, nil
}

// lesser is the lesser of two MTUs of which 0 is none.
func lesser(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// linkMTU is the MTU of a link; 0 if it went away or is none of the network's (the
// loopback interface, by which a node reaches its own addresses).
func (h *Handle) linkMTU(index int, known map[int]int) (int, error) {
	if index == 0 {
		return 0, nil
	}
	if mtu, ok := known[index]; ok {
		return mtu, nil
	}
	l, err := h.LinkByIndex(index)
	switch {
	case IsNoLink(err) || errors.Is(err, unix.ENODEV):
		known[index] = 0
	case err != nil:
		return 0, fmt.Errorf("look up link %d: %w", index, err)
	case l.Attrs().Flags&net.FlagLoopback != 0:
		known[index] = 0
	default:
		known[index] = l.Attrs().MTU
	}
	return known[index], nil
}

// unrouted tells that err says that there is no way to an address.
func unrouted(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) ||
		errors.Is(err, unix.EINVAL) // a blackhole
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return vnl.FAMILY_V6
	}
	return vnl.FAMILY_V4
}
