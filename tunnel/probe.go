package tunnel

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/bpf"
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

// ProbeIPIP tells what can make IPIP devices: KernelIPIP, else EBPFIPIP, else an error that
// names what the kernel lacks. It tries in a namespace that it makes for that; asking for
// the kernel's device loads the module ipip where there is one.
func ProbeIPIP() (IPIPKind, error) {
	var kind IPIPKind
	err := netlink.Thread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("probe IPIP: make a network namespace: %w", err)
		}
		h, err := netlink.Open(netlink.Current)
		if err != nil {
			return fmt.Errorf("probe IPIP: %w", err)
		}
		defer h.Close()
		kind, err = probeIPIP(h)
		return err
	})
	return kind, err
}

// probeIPIP tries in h's namespace, which is the calling thread's.
func probeIPIP(h *netlink.Handle) (IPIPKind, error) {
	none := h.LinkAdd(&vnl.Iptun{
		LinkAttrs: vnl.LinkAttrs{Name: "probe"}, Proto: unix.IPPROTO_IPIP,
		Local: net.IPv4(127, 0, 0, 1), Remote: net.IPv4(127, 0, 0, 2), // any to any may be taken
	})
	if none == nil {
		return KernelIPIP, nil
	}
	if !errors.Is(none, unix.EOPNOTSUPP) {
		return AutoIPIP, fmt.Errorf("probe IPIP: %w", none)
	}
	k := &ipip{devices: &devices{h: h, log: slog.New(slog.DiscardHandler)}}
	if err := k.tryStandIn(); err != nil {
		return AutoIPIP, fmt.Errorf("%w; %w: %w", ErrNoIPIP, ErrNoStandIn, err)
	}
	return EBPFIPIP, nil
}

// tryStandIn makes the pair and attaches both programs.
func (k *ipip) tryStandIn() error {
	l, p, err := k.ensurePair(nil)
	if err != nil {
		return err
	}
	if err := k.configurePair(l, p); err != nil {
		return err
	}
	if err := k.load(); err != nil {
		return err
	}
	defer k.enc.Close()
	if err := k.enc.Attach(p.Attrs().Index, bpf.Encapsulates); err != nil {
		return err
	}
	return k.enc.Attach(l.Attrs().Index, bpf.Decapsulates)
}
