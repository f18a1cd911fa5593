package netlink

import (
	"errors"
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addrs returns the namespace's own addresses, of both families.
func (h *Handle) Addrs() ([]netip.Addr, error) {
	all, err := Dump(func() ([]vnl.Addr, error) { return h.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]netip.Addr, 0, len(all))
	for _, a := range all {
		if x, ok := netip.AddrFromSlice(a.IP); ok {
			out = append(out, x.Unmap())
		}
	}
	return out, nil
}

// DeviceTo returns the name of the device that packets to the address leave by; "": there is no route.
func (h *Handle) DeviceTo(a netip.Addr) (string, error) {
	routes, err := h.RouteGet(IP(a))
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES):
		return "", nil // the last three are what routes that refuse are told by
	case err != nil:
		return "", fmt.Errorf("look up the route to %v: %w", a, err)
	case len(routes) == 0:
		return "", nil
	}
	l, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		var gone vnl.LinkNotFoundError
		if errors.As(err, &gone) {
			return "", nil
		}
		return "", fmt.Errorf("look up the device of the route to %v: %w", a, err)
	}
	return l.Attrs().Name, nil
}
