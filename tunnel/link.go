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

// did counts a write that succeeded.
func (k *devices) did(err error) error {
	if err == nil {
		k.writes++
	}
	return err
}

// up has a link be up.
func (k *devices) up(l vnl.Link) error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := k.did(k.h.LinkSetUp(l)); err != nil {
		return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

// linkMTU has a link have this MTU; why says what it follows from.
func (k *devices) linkMTU(l vnl.Link, mtu int, why string) error {
	now, err := k.h.LinkByIndex(l.Attrs().Index) // the kernel may have made less of it
	if err != nil {
		return fmt.Errorf("look up link %s: %w", l.Attrs().Name, err)
	}
	if now.Attrs().MTU == mtu {
		return nil
	}
	if err := k.did(k.h.LinkSetMTU(l, mtu)); err != nil {
		return fmt.Errorf("set MTU of %s to %d (%s): %w", l.Attrs().Name, mtu, why, err)
	}
	return nil
}

// setAddr has the device have this address and no other.
func (k *devices) setAddr(l vnl.Link, addr netip.Addr) error {
	have, err := k.addrs(l)
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
			if err := k.noLinkLocal(l); err != nil {
				return err
			}
		}
		err := k.did(k.h.AddrDel(l, &vnl.Addr{IPNet: netlink.IPNet(p)}))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %v of %s: %w", p, l.Attrs().Name, err)
		}
	}
	if found || !want.IsValid() {
		return nil
	}
	a := &vnl.Addr{IPNet: netlink.IPNet(want)}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else can answer
	}
	if err := k.did(k.h.AddrReplace(l, a)); err != nil {
		return fmt.Errorf("set address %v of %s: %w", want, l.Attrs().Name, err)
	}
	return nil
}

func (k *devices) addrs(l vnl.Link) ([]netip.Prefix, error) {
	all, err := netlink.Dump(func() ([]vnl.Addr, error) { return k.h.AddrList(l, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	var ps []netip.Prefix
	for _, a := range all {
		ps = append(ps, netlink.Prefix(a.IPNet))
	}
	return ps, nil
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
