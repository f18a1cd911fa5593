package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// set makes a VXLAN device, or changes the one there is.
func (k *devices) set(name string, d device) error {
	if d.err != nil {
		return d.err
	}
	k.changed()
	u, err := findUnderlay(k.h, d.Underlay)
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", name, err)
	}
	if d.MTU == 0 {
		d.MTU = u.mtu - vxlanOverhead[d.Family]
	}
	l, err := k.ensure(name, d, u)
	if err != nil {
		return err
	}
	return k.adjust(l, d, u)
}

// ensure returns the device of a name, made anew if there is none or if it differs in what
// cannot be changed.
func (k *devices) ensure(name string, d device, u underlay) (*vnl.Vxlan, error) {
	l, err := k.h.LinkByName(name)
	if err != nil && !netlink.IsNoLink(err) {
		return nil, fmt.Errorf("look up link %s: %w", name, err)
	}
	if err == nil {
		if why := immutable(l, d, u); why != "" {
			k.log.Warn("replacing the tunnel device", "device", name, "because", why)
			if err := k.remove(name); err != nil {
				return nil, err
			}
			l = nil
		}
	}
	if err != nil || l == nil {
		return k.create(name, d, u)
	}
	return l.(*vnl.Vxlan), nil
}

// immutable says in what a link differs that the kernel does not change in place.
func immutable(l vnl.Link, d device, u underlay) string {
	v, ok := l.(*vnl.Vxlan)
	switch {
	case !ok:
		return "it is of type " + l.Type()
	case v.VxlanId != d.VNI:
		return fmt.Sprintf("its VNI is %d", v.VxlanId)
	case v.Port != int(d.Port):
		return fmt.Sprintf("its port is %d", v.Port)
	case netlink.Addr(v.SrcAddr) != d.Underlay:
		return fmt.Sprintf("its local address is %v", netlink.Addr(v.SrcAddr))
	case v.VtepDevIndex != u.index:
		return fmt.Sprintf("its underlay is link %d", v.VtepDevIndex)
	case v.Learning:
		return "it learns"
	}
	return ""
}

func (k *devices) create(name string, d device, u underlay) (*vnl.Vxlan, error) {
	mac, err := net.ParseMAC(d.MAC)
	if err != nil {
		return nil, err
	}
	err = k.h.LinkAdd(&vnl.Vxlan{
		LinkAttrs: vnl.LinkAttrs{Name: name, HardwareAddr: mac, MTU: d.MTU},
		VxlanId:   d.VNI, Port: int(d.Port), SrcAddr: netlink.IP(d.Underlay), VtepDevIndex: u.index,
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	if err != nil {
		return nil, fmt.Errorf("create tunnel device %s over %s: %w", name, u.name, err)
	}
	k.writes++
	l, err := k.h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("look up link %s: %w", name, err)
	}
	if err := k.noLinkLocal(l); err != nil {
		return nil, err
	}
	if k.created != nil {
		if err := k.created(name); err != nil {
			return nil, fmt.Errorf("tunnel %s: %w", name, err)
		}
	}
	return l.(*vnl.Vxlan), nil
}

// addrGenNone is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h).
const addrGenNone = 1

// noLinkLocal keeps the kernel from giving the device an address of its own.
func (k *devices) noLinkLocal(l vnl.Link) error {
	err := k.h.LinkSetIP6AddrGenMode(l, addrGenNone)
	if err == nil || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // without IPv6 there is none
	}
	return fmt.Errorf("turn off link-local addresses of %s: %w", l.Attrs().Name, err)
}

// adjust changes what can be changed in place.
func (k *devices) adjust(v *vnl.Vxlan, d device, u underlay) error {
	mac, err := net.ParseMAC(d.MAC)
	if err != nil {
		return err
	}
	if v.HardwareAddr.String() != d.MAC {
		if err := k.did(k.h.LinkSetHardwareAddr(v, mac)); err != nil {
			return fmt.Errorf("set MAC address of %s to %s: %w", v.Name, d.MAC, err)
		}
	}
	if err := k.setAddr(v, d.Addr); err != nil {
		return err
	}
	if v.Flags&net.FlagUp == 0 {
		if err := k.did(k.h.LinkSetUp(v)); err != nil {
			return fmt.Errorf("set %s up: %w", v.Name, err)
		}
	}
	return k.setMTU(v, d, u)
}

func (k *devices) setMTU(v *vnl.Vxlan, d device, u underlay) error {
	now, err := k.h.LinkByIndex(v.Index) // the kernel may have made less of it
	if err != nil {
		return fmt.Errorf("look up link %s: %w", v.Name, err)
	}
	if now.Attrs().MTU == d.MTU {
		return nil
	}
	if err := k.did(k.h.LinkSetMTU(v, d.MTU)); err != nil {
		return fmt.Errorf("set MTU of %s to %d (%s has %d, VXLAN takes %d): %w", v.Name, d.MTU, u.name, u.mtu, vxlanOverhead[d.Family], err)
	}
	return nil
}

// setAddr has the device have this address and no other.
func (k *devices) setAddr(v *vnl.Vxlan, addr netip.Addr) error {
	have, err := k.addrs(v)
	if err != nil {
		return err
	}
	var want netip.Prefix
	if addr.IsValid() {
		want = netip.PrefixFrom(addr, addr.BitLen())
	}
	found := false
	for _, p := range have {
		if p == want {
			found = true
			continue
		}
		if p.Addr().IsLinkLocalUnicast() {
			if err := k.noLinkLocal(v); err != nil {
				return err
			}
		}
		err := k.did(k.h.AddrDel(v, &vnl.Addr{IPNet: netlink.IPNet(p)}))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %v of %s: %w", p, v.Name, err)
		}
	}
	if found || !want.IsValid() {
		return nil
	}
	a := &vnl.Addr{IPNet: netlink.IPNet(want)}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else can answer
	}
	if err := k.did(k.h.AddrReplace(v, a)); err != nil {
		return fmt.Errorf("set address %v of %s: %w", want, v.Name, err)
	}
	return nil
}
