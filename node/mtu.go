package node

import (
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Bytes that an encapsulation adds to each packet.
const (
	overheadIPIP    = 20
	overheadVXLAN   = 50
	overheadVXLANv6 = 70
)

// podMTU is the MTU of pods' interfaces: that of the device which carries the node's
// address, less the most that any encapsulation in use adds.
func podMTU(hostMTU int, pools []*api.IPPool) int {
	over := 0
	for _, p := range pools {
		if p.Spec.Disabled {
			continue
		}
		if p.Spec.IPIPMode != "" && p.Spec.IPIPMode != api.EncapNever {
			over = max(over, overheadIPIP)
		}
		if vxlan(p.Spec) {
			if familyOf(p) == dataplane.IPv6 {
				over = max(over, overheadVXLANv6)
			} else {
				over = max(over, overheadVXLAN)
			}
		}
	}
	return hostMTU - over
}

// deviceMTU is the MTU of the interface that has the address.
func deviceMTU(h *netlink.Handle, addr netip.Addr) (int, error) {
	links, err := h.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, l := range links {
		addrs, err := h.AddrList(l, vnl.FAMILY_ALL)
		if err != nil {
			return 0, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr {
				return l.Attrs().MTU, nil
			}
		}
	}
	return 0, fmt.Errorf("no interface has the node's address %s", addr)
}
