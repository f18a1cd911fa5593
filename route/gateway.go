package route

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// find returns the link on which a gateway is reached directly.
func find(h *netlink.Handle, gw netip.Addr, ownsDevice func(string) bool) (int, error) {
	routes, err := h.RouteGet(netlink.IP(gw))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrGateway, err)
	}
	if len(routes) == 0 {
		return 0, fmt.Errorf("%w: no route", ErrGateway)
	}
	r := routes[0]
	if r.Type == unix.RTN_LOCAL {
		return 0, fmt.Errorf("%w: it is an address of this node", ErrGateway)
	}
	if r.Type != unix.RTN_UNICAST {
		return 0, fmt.Errorf("%w: the way to it is %s", ErrGateway, typeName(r.Type))
	}
	if r.Gw != nil && !r.Gw.Equal(netlink.IP(gw)) {
		return 0, fmt.Errorf("%w: it is not on a network of this node, but behind %v", ErrGateway, netlink.Addr(r.Gw))
	}
	l, err := h.LinkByIndex(r.LinkIndex)
	if err != nil {
		return 0, fmt.Errorf("%w: look up link %d: %w", ErrGateway, r.LinkIndex, err)
	}
	if name := l.Attrs().Name; ownsDevice(name) {
		return 0, fmt.Errorf("%w: the way to it is %s, an interface of a pod or tunnel", ErrGateway, name)
	}
	return r.LinkIndex, nil
}

// hop is a gateway on a link.
type hop struct {
	gateway netip.Addr
	link    int
}

// finder remembers for one List which gateways are where the kernel finds them.
type finder struct {
	h    *netlink.Handle
	seen map[hop]bool
}

// normal leaves out the device of a direct route where it is the one that the kernel finds,
// as in a wanted route. Where the network has moved it stays, and so differs from it.
func (f finder) normal(e entry, link int, ownsDevice func(string) bool) entry {
	if !e.gateway.IsValid() || e.onlink || e.device == "" || ownsDevice(e.device) {
		return e
	}
	at := hop{e.gateway, link}
	good, seen := f.seen[at]
	if !seen {
		index, err := find(f.h, e.gateway, ownsDevice)
		good = err == nil && index == link
		f.seen[at] = good
	}
	if good {
		e.device = ""
	}
	return e
}
