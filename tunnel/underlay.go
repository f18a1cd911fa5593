package tunnel

import (
	"fmt"
	"net"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// underlay is the link that encapsulated packets leave by.
type underlay struct {
	index int // 0: whatever link the routes say
	name  string
	mtu   int
}

// loopbackMTU stands for the MTU of the network where the node's address is on the loopback
// interface, and nothing says which link will be taken: that of Ethernet.
const loopbackMTU = 1500

// findUnderlay finds the link that carries an address of this node.
func findUnderlay(h *netlink.Handle, addr netip.Addr) (underlay, error) {
	all, err := netlink.Dump(func() ([]vnl.Addr, error) { return h.AddrList(nil, afOf(dataplane.FamilyOf(addr))) })
	if err != nil {
		return underlay{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if netlink.Addr(a.IP) != addr {
			continue
		}
		l, err := h.LinkByIndex(a.LinkIndex)
		if err != nil {
			return underlay{}, fmt.Errorf("look up link %d, which has %v: %w", a.LinkIndex, addr, err)
		}
		at := l.Attrs()
		if at.Flags&net.FlagLoopback != 0 {
			return underlay{name: at.Name, mtu: loopbackMTU}, nil
		}
		return underlay{at.Index, at.Name, at.MTU}, nil
	}
	return underlay{}, fmt.Errorf("%w %v", ErrNoUnderlay, addr)
}

func afOf(f dataplane.Family) int {
	if f == dataplane.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
