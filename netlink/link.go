package netlink

import (
	"errors"
	"fmt"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// IsNoLink tells whether err says that there is no such link.
func IsNoLink(err error) bool {
	var none vnl.LinkNotFoundError
	return errors.As(err, &none)
}

// Links returns all links of the namespace by index.
func (h *Handle) Links() (map[int]vnl.Link, error) {
	all, err := Dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	m := make(map[int]vnl.Link, len(all))
	for _, l := range all {
		m[l.Attrs().Index] = l
	}
	return m, nil
}

// Addressed tells which links, by index, have an address that others than their own neighbours
// may reach.
func (h *Handle) Addressed() (map[int]bool, error) {
	all, err := Dump(func() ([]vnl.Addr, error) { return h.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	m := map[int]bool{}
	for _, a := range all {
		if a.Scope < unix.RT_SCOPE_LINK {
			m[a.LinkIndex] = true
		}
	}
	return m, nil
}
