package tunnel

import (
	"errors"
	"fmt"
	"os"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// Probe tells whether the kernel can make VXLAN devices: nil, [ErrNoModule], or what else
// kept it from being found out, such as a lack of rights. It makes a device in h's namespace, never up, and removes it.
func Probe(h *netlink.Handle) error {
	name := fmt.Sprintf("cvx%d", os.Getpid()) // at most 10 characters
	err := h.LinkAdd(&vnl.Vxlan{LinkAttrs: vnl.LinkAttrs{Name: name}, VxlanId: 1<<24 - 1, Port: 65535})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", ErrNoModule, err)
	case errors.Is(err, unix.EEXIST): // another probe's: so it can
		return nil
	case err != nil:
		return fmt.Errorf("probe VXLAN: %w", err)
	}
	l, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil && !netlink.IsNoLink(err) {
		return fmt.Errorf("probe VXLAN: remove %s: %w", name, err)
	}
	return nil
}
