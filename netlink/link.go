package netlink

import (
	"errors"
	"fmt"

	vnl "github.com/vishvananda/netlink"
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
