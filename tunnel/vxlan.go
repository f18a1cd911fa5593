package tunnel

import (
	"errors"
	"fmt"
	"net"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// set makes a VXLAN device, or changes the one there is.
func (k *devices) set(name string, d device) error {
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
	if err := k.up(v); err != nil {
		return err
	}
	return k.setMTU(v, d, u)
}

func (k *devices) setMTU(v *vnl.Vxlan, d device, u underlay) error {
	return k.linkMTU(v, d.MTU, fmt.Sprintf("%s has %d, VXLAN takes %d", u.name, u.mtu, vxlanOverhead[d.Family]))
}
