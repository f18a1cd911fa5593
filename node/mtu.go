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

// deviceMTU is the MTU of the interface that has the address. An ADD asks for it while
// devices come and go by the dozen: it reads the addresses of one family, of which pods'
// devices have none, and no device but the one.
func deviceMTU(h *netlink.Handle, addr netip.Addr) (int, error) {
	family := vnl.FAMILY_V4
	if addr.Is6() {
		family = vnl.FAMILY_V6
	}
	addrs, err := netlink.Dump(func() ([]vnl.Addr, error) { return h.AddrList(nil, family) })
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if netlink.Addr(a.IP) != addr {
			continue
		}
		l, err := h.LinkByIndex(a.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("the interface that has the node's address %s: %w", addr, err)
		}
		return l.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("no interface has the node's address %s", addr)
}
