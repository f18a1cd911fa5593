package tunnel

import (
	"errors"
	"fmt"
	"net"
	"strings"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// ours tells whether a device of the kernel's is one that we made or adopted.
func ours(l vnl.Link) bool { return strings.HasPrefix(l.Attrs().Alias, "calico: ") }

// readKernel describes a device of the kernel's ipip.
func (k *ipip) readKernel(d *device, l vnl.Link, left []int) error {
	if _, err := k.readCommon(d, l); err != nil {
		return err
	}
	switch {
	case len(left) > 0:
		d.drift = "eBPF programs of the stand-in are left"
	case !anyToAny(l.(*vnl.Iptun)):
		d.drift = "it leads to one address only"
	}
	return nil
}

// anyToAny tells that each route's gateway says where a packet goes, and any address of this
// node receives.
func anyToAny(l *vnl.Iptun) bool {
	some := func(ip net.IP) bool { return ip != nil && !ip.IsUnspecified() }
	return !some(l.Remote) && !some(l.Local) && !l.FlowBased
}

// setKernel has the kernel's device be as wanted. l is the one there is, or nil. Where the
// kernel makes a tunl0 of its own in each namespace (the fallback device) it is that one.
func (k *ipip) setKernel(d device, l vnl.Link) error {
	if err := k.detachAll(); err != nil {
		return err
	}
	if l == nil {
		var err error
		if l, err = k.makeKernel(); err != nil {
			return err
		}
	}
	if !anyToAny(l.(*vnl.Iptun)) {
		return fmt.Errorf("tunnel %s: %w (it leads from %v to %v)", dataplane.DeviceIPIP, ErrForeign, l.(*vnl.Iptun).Local, l.(*vnl.Iptun).Remote)
	}
	if !ours(l) {
		if err := k.alias(l, aliasAdopted); err != nil {
			return err
		}
	}
	if err := k.setAddr(l, d.Addr); err != nil {
		return err
	}
	p, err := k.paths(l)
	if err != nil {
		return err
	}
	if err := k.setMTU4(l, d, p.MTU); err != nil {
		return err
	}
	return k.up(l)
}

// setMTU4 has the device have the MTU that is wanted, or that of the paths less the header.
func (k *ipip) setMTU4(l vnl.Link, d device, path int) error {
	if d.MTU == 0 {
		d.MTU = path - ipipOverhead
	}
	return k.linkMTU(l, d.MTU, fmt.Sprintf("the paths to other nodes have %d, IPIP takes %d", path, ipipOverhead))
}

// makeKernel makes a device like the one that the kernel makes by itself: from any to any
// address, TTL and DF inherited.
func (k *ipip) makeKernel() (vnl.Link, error) {
	err := k.did(k.h.LinkAdd(&vnl.Iptun{LinkAttrs: vnl.LinkAttrs{Name: dataplane.DeviceIPIP}, Proto: unix.IPPROTO_IPIP}))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w", ErrNoIPIP, err)
	}
	made := err == nil
	l, found := k.find(dataplane.DeviceIPIP)
	if !errors.Is(err, unix.EEXIST) && err != nil || found != nil || kindOf(l) != KernelIPIP {
		return nil, fmt.Errorf("create tunnel device %s: %w", dataplane.DeviceIPIP, firstError(err, found, ErrNoDevice))
	}
	if made {
		return l, k.alias(l, aliasMade)
	}
	return l, nil // loading the module made one
}

func (k *ipip) alias(l vnl.Link, alias string) error {
	if err := k.did(k.h.LinkSetAlias(l, alias)); err != nil {
		return fmt.Errorf("set alias of %s to %q: %w", l.Attrs().Name, alias, err)
	}
	l.Attrs().Alias = alias
	return nil
}

// removeKernel removes a device that we made; of another one it takes away what is ours.
func (k *ipip) removeKernel(l vnl.Link) error {
	switch {
	case l.Attrs().Alias == aliasMade:
		return k.devices.remove(l.Attrs().Name)
	case !ours(l):
		return nil
	}
	addrs, err := k.addrs(l)
	if err != nil {
		return err
	}
	for _, p := range addrs {
		err := k.did(k.h.AddrDel(l, &vnl.Addr{IPNet: netlink.IPNet(p)}))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %v of %s: %w", p, l.Attrs().Name, err)
		}
	}
	if err := k.did(k.h.LinkSetDown(l)); err != nil {
		return fmt.Errorf("set %s down: %w", l.Attrs().Name, err)
	}
	return k.alias(l, "")
}
