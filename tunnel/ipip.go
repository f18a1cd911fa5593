package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/bpf"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// IPIPKind is what makes IPIP of packets.
type IPIPKind string

const (
	// AutoIPIP is, as a choice, what stands; else the kernel's device where there can be
	// one; else the stand-in.
	AutoIPIP IPIPKind = ""
	// KernelIPIP is a device of the kernel's module ipip.
	KernelIPIP IPIPKind = "kernel"
	// EBPFIPIP is what stands in for it: a pair of veth devices and eBPF programs.
	EBPFIPIP IPIPKind = "ebpf"
)

// ipip is the device tunl0, of one kind or the other.
type ipip struct {
	*devices
	choice IPIPKind
	kind   IPIPKind            // chosen; AutoIPIP: not yet
	peers  func() []netip.Addr // the other nodes
	local  netip.Addr          // the underlay address wanted; invalid: no tunnel is
	enc    *bpf.Encapsulator   // of the stand-in; nil: not loaded
}

// What the alias of a device of the kernel's says.
const (
	aliasMade    = "calico: made"    // ours altogether
	aliasAdopted = "calico: adopted" // the kernel's own: it cannot be removed, and goes down with us
)

// find returns tunl0, nil if there is none.
func (k *ipip) find(name string) (vnl.Link, error) {
	l, err := k.h.LinkByName(name)
	if netlink.IsNoLink(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, nil
}

// read describes the device; false if there is none of ours.
func (k *ipip) read() (device, bool, error) {
	l, err := k.find(dataplane.DeviceIPIP)
	if err != nil {
		return device{}, false, err
	}
	left, err := bpf.Leftovers(k.h)
	if err != nil {
		return device{}, false, err
	}
	d := device{Tunnel: dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4}}
	switch kind := kindOf(l); {
	case kind == KernelIPIP && ours(l) && k.fits(kind):
		k.kind = kind
		err = k.readKernel(&d, l, left)
	case kind == EBPFIPIP && k.fits(kind):
		k.kind = kind
		err = k.readStandIn(&d, l)
	case kind == EBPFIPIP, kind == KernelIPIP && ours(l):
		d.drift = "it is of the other kind"
	case len(left) > 0:
		d.drift = "its eBPF programs stand without it"
	default:
		return device{}, false, nil
	}
	return d, err == nil, err
}

// fits tells whether a device of a kind may stay.
func (k *ipip) fits(kind IPIPKind) bool { return k.choice == AutoIPIP || k.choice == kind }

// kindOf is the kind of a device called tunl0; none if it is neither, or absent.
func kindOf(l vnl.Link) IPIPKind {
	switch l.(type) {
	case *vnl.Iptun:
		return KernelIPIP
	case *vnl.Veth:
		return EBPFIPIP
	}
	return AutoIPIP
}

// readCommon describes what devices of both kinds have: address, MTU, state.
func (k *ipip) readCommon(d *device, l vnl.Link) (paths netlink.Paths, err error) {
	d.MTU = l.Attrs().MTU
	paths, err = k.paths(l)
	switch {
	case errors.Is(err, netlink.ErrNoSuchAddr), errors.Is(err, ErrInvalid):
		d.drift, err = err.Error(), nil
	case err != nil:
		return paths, err
	}
	d.auto = paths.MTU - ipipOverhead
	addrs, err := k.addrs(l)
	if err != nil {
		return paths, err
	}
	if len(addrs) == 1 && addrs[0].IsSingleIP() {
		d.Addr = addrs[0].Addr()
	} else if len(addrs) > 0 {
		d.drift = fmt.Sprintf("it has the addresses %v", addrs)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		d.drift = "it is down"
	}
	return paths, nil
}

// paths looks up the ways to the other nodes; nothing without a wanted tunnel.
func (k *ipip) paths(tunl0 vnl.Link) (netlink.Paths, error) {
	if !k.local.IsValid() {
		return netlink.Paths{}, nil
	}
	p, err := k.h.Paths(k.local, k.peers())
	if err != nil {
		return p, fmt.Errorf("tunnel %s: %w", dataplane.DeviceIPIP, err)
	}
	if tunl0 != nil && slices.Contains(p.Links, tunl0.Attrs().Index) {
		return p, fmt.Errorf("tunnel %s: %w: the route to another node's address goes by the tunnel itself (is the address in an IP pool?)",
			dataplane.DeviceIPIP, ErrInvalid)
	}
	return p, nil
}

// set makes the device as wanted.
func (k *ipip) set(d device) error {
	l, err := k.choose()
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", dataplane.DeviceIPIP, err)
	}
	if l != nil && kindOf(l) == AutoIPIP {
		return fmt.Errorf("tunnel %s: %w (it is of type %s)", dataplane.DeviceIPIP, ErrForeign, l.Type())
	}
	if l != nil && kindOf(l) != k.kind {
		k.log.Warn("replacing the tunnel device", "device", dataplane.DeviceIPIP, "because", "it is not of the kind "+string(k.kind))
		if err := k.replace(l); err != nil {
			return err
		}
		l = nil
	}
	if k.kind == EBPFIPIP {
		return k.setStandIn(d, l)
	}
	if err = k.setKernel(d, l); errors.Is(err, ErrNoIPIP) {
		k.kind = AutoIPIP // the module was unloaded: probe again
	}
	return err
}

// choose settles the kind and returns the device that stands. A device that carries packets
// is not replaced by one of another kind, which would interrupt them, unless the
// configuration says which it shall be.
func (k *ipip) choose() (vnl.Link, error) {
	l, err := k.find(dataplane.DeviceIPIP)
	if err != nil {
		return nil, err
	}
	kind := k.kind
	switch {
	case k.choice == KernelIPIP || k.choice == EBPFIPIP:
		kind = k.choice
	case k.choice != AutoIPIP:
		return nil, fmt.Errorf("%w: there is no kind %q of IPIP device", ErrInvalid, k.choice)
	case l != nil:
		kind = kindOf(l)
	case kind == AutoIPIP:
		if kind, err = ProbeIPIP(); err != nil {
			return nil, err
		}
		if l, err = k.find(dataplane.DeviceIPIP); err != nil { // loading the module makes one
			return nil, err
		}
	}
	if kind != k.kind {
		k.log.Info("IPIP device chosen", "device", dataplane.DeviceIPIP, "kind", string(kind))
	}
	k.kind = kind
	return l, nil
}

// replace removes a device of the other kind.
func (k *ipip) replace(l vnl.Link) error {
	if err := k.remove(); err != nil {
		return err
	}
	still, err := k.find(dataplane.DeviceIPIP)
	if err != nil || still == nil {
		return err
	}
	if err := k.h.LinkDel(l); err != nil && !netlink.IsNoLink(err) { // the kernel keeps its own without a word
		return fmt.Errorf("remove tunnel device %s: %w", dataplane.DeviceIPIP, err)
	}
	if still, err = k.find(dataplane.DeviceIPIP); err == nil && still != nil {
		err = fmt.Errorf("tunnel %s: the kernel has a device of that name that cannot be removed", dataplane.DeviceIPIP)
	}
	return err
}

// remove takes away what is ours of either kind.
func (k *ipip) remove() error {
	l, err := k.find(dataplane.DeviceIPIP)
	if err != nil {
		return err
	}
	if err := k.detachAll(); err != nil {
		return err
	}
	switch kindOf(l) {
	case EBPFIPIP:
		return k.devices.remove(dataplane.DeviceIPIP)
	case KernelIPIP:
		return k.removeKernel(l)
	}
	return nil
}

// detachAll takes the stand-in's programs off all links, and with them their maps.
func (k *ipip) detachAll() error {
	left, err := bpf.Leftovers(k.h)
	if err != nil {
		return err
	}
	for _, link := range left {
		if err := k.did(bpf.Detach(k.h, link)); err != nil {
			return err
		}
	}
	if k.enc != nil {
		k.enc.Close()
		k.enc = nil
	}
	return nil
}
