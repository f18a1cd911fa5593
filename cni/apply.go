package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// namespaces are the two ends of a veth pair.
type namespaces struct {
	hostNS, podNS int
	host, pod     *netlink.Handle
	links         map[end]vnl.Link // that were looked up; a call's own devices stay what they are
}

// end is a device by side and name.
type end struct {
	side Side
	name string
}

func openNamespaces(hostNS int, host *netlink.Handle, podNS int) (*namespaces, error) {
	pod, err := netlink.Open(podNS)
	if err != nil {
		return nil, fmt.Errorf("pod's network namespace: %w", err)
	}
	return &namespaces{hostNS, podNS, host, pod, map[end]vnl.Link{}}, nil
}

// sameNamespace compares two namespaces by descriptor; a may be netlink.Current.
func sameNamespace(a, b int) (bool, error) {
	var x, y unix.Stat_t
	var err error
	if a == netlink.Current {
		err = unix.Stat("/proc/thread-self/ns/net", &x)
	} else {
		err = unix.Fstat(a, &x)
	}
	if err == nil {
		err = unix.Fstat(b, &y)
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, err
}

func (n *namespaces) close() { n.pod.Close() }

func (n *namespaces) side(s Side) (int, *netlink.Handle) {
	if s == InPod {
		return n.podNS, n.pod
	}
	return n.hostNS, n.host
}

// apply makes the objects in order and calls step after each. On failure it takes back what
// it made.
func (w *Wiring) apply(n *namespaces, step func(format string, args ...any)) error {
	for i := 0; i < len(w.Objects); {
		done, err := n.makeSome(w.Objects[i:])
		if err != nil {
			err = fmt.Errorf("%s: %w", describe(w.Objects[i]), err)
			return errors.Join(err, w.undo(n.host, i+done))
		}
		i += done
		step("object %d, %T", i, w.Objects[i-1])
	}
	return nil
}

// makeSome makes the first object, or the first run of sysctls of one side: entering a
// namespace for each would cost a thread each.
func (n *namespaces) makeSome(os []Object) (int, error) {
	first, ok := os[0].(Sysctl)
	if !ok {
		return 1, n.make(os[0])
	}
	var run []netlink.Sysctl
	for _, o := range os {
		s, ok := o.(Sysctl)
		if !ok || s.Side != first.Side {
			break
		}
		run = append(run, netlink.Sysctl{Name: "net/" + s.Path, Value: s.Value, IfPresent: s.Optional})
	}
	ns, _ := n.side(first.Side)
	return len(run), netlink.SetSysctls(ns, run...)
}

// undo takes back the first n objects. The device carries addresses, routes and
// neighbours with it; sysctls of the pod go with the pod.
func (w *Wiring) undo(host *netlink.Handle, n int) error {
	for i := n - 1; i >= 0; i-- {
		if v, ok := w.Objects[i].(Veth); ok {
			return removeLink(host, v.Host)
		}
	}
	return nil
}

// removeLink deletes a device; that there is none is no error.
func removeLink(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(l)
	}
	if err == nil || netlink.IsNoLink(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("delete device %s: %w", name, err)
}

func (n *namespaces) make(o Object) error {
	switch o := o.(type) {
	case Veth:
		return n.makeVeth(o)
	case LinkUp:
		return onLink(n, o.Side, o.Device, (*netlink.Handle).LinkSetUp)
	case Address:
		return onLink(n, InPod, o.Device, func(h *netlink.Handle, l vnl.Link) error {
			return h.AddrReplace(l, &vnl.Addr{IPNet: netlink.IPNet(o.Prefix), Flags: unix.IFA_F_NODAD})
		})
	case Route:
		return onLink(n, InPod, o.Device, func(h *netlink.Handle, l vnl.Link) error { return h.RouteReplace(o.route(l)) })
	case Neighbour:
		return onLink(n, o.Side, o.Device, func(h *netlink.Handle, l vnl.Link) error { return o.set(h, l) })
	}
	return fmt.Errorf("unknown object %T", o)
}

// onLink calls f with a device by name. *netlink.Handle and vnl.Handle share methods.
func onLink(n *namespaces, s Side, device string, f func(*netlink.Handle, vnl.Link) error) error {
	_, h := n.side(s)
	l := n.links[end{s, device}]
	if l == nil {
		var err error
		if l, err = h.LinkByName(device); err != nil {
			return err
		}
		n.links[end{s, device}] = l
	}
	return f(h, l)
}

func (n *namespaces) makeVeth(v Veth) error {
	hostMAC, err := net.ParseMAC(v.HostMAC)
	if err != nil {
		return err
	}
	podMAC, err := net.ParseMAC(v.PodMAC)
	if err != nil {
		return err
	}
	err = n.host.LinkAdd(&vnl.Veth{
		LinkAttrs:        vnl.LinkAttrs{Name: v.Host, HardwareAddr: hostMAC, MTU: v.MTU},
		PeerName:         v.Pod,
		PeerHardwareAddr: podMAC,
		PeerMTU:          uint32(v.MTU),
		PeerNamespace:    vnl.NsFd(n.podNS),
	})
	if errors.Is(err, unix.EEXIST) { // there was none on the host a moment ago
		if l, errPod := n.pod.LinkByName(v.Pod); errPod == nil {
			return fmt.Errorf("the pod has a device %s (%s) already", v.Pod, l.Type())
		}
	}
	return err
}

func (r Route) route(l vnl.Link) *vnl.Route {
	k := &vnl.Route{LinkIndex: l.Attrs().Index, Dst: netlink.IPNet(r.Dst)}
	if r.Gateway.IsValid() {
		k.Gw = netlink.IP(r.Gateway)
	} else {
		k.Scope = vnl.SCOPE_LINK
	}
	return k
}

func (x Neighbour) set(h *netlink.Handle, l vnl.Link) error {
	mac, err := net.ParseMAC(x.MAC)
	if err != nil {
		return err
	}
	return h.NeighSet(&vnl.Neigh{
		LinkIndex: l.Attrs().Index, Family: family(x.Addr), State: vnl.NUD_PERMANENT,
		IP: netlink.IP(x.Addr), HardwareAddr: mac,
	})
}

func family(a netip.Addr) int {
	if a.Is4() {
		return vnl.FAMILY_V4
	}
	return vnl.FAMILY_V6
}

// describe names an object in an error.
func describe(o Object) string {
	switch o := o.(type) {
	case Sysctl:
		return "set net." + o.Path
	case Veth:
		return "make veth pair " + o.Host + ", " + o.Pod
	case LinkUp:
		return "set " + o.Device + " up"
	case Address:
		return fmt.Sprintf("add %v to %s", o.Prefix, o.Device)
	case Route:
		return fmt.Sprintf("add the pod's route to %v", o.Dst)
	case Neighbour:
		return fmt.Sprintf("add neighbour %v on %s", o.Addr, o.Device)
	}
	return fmt.Sprintf("%T", o)
}

// check says what of the wiring is missing.
func (w *Wiring) check(n *namespaces) error {
	for _, o := range w.Objects {
		if err := n.find(o); err != nil {
			return fmt.Errorf("%s: %w", describe(o), err)
		}
	}
	return nil
}

func (n *namespaces) find(o Object) error {
	switch o := o.(type) {
	case Veth:
		if err := onLink(n, InPod, o.Pod, func(_ *netlink.Handle, l vnl.Link) error {
			if l.Attrs().HardwareAddr.String() != o.PodMAC {
				return fmt.Errorf("the pod's device has the address %s, not %s", l.Attrs().HardwareAddr, o.PodMAC)
			}
			return nil
		}); err != nil {
			return err
		}
		return onLink(n, InHost, o.Host, func(*netlink.Handle, vnl.Link) error { return nil })
	case LinkUp:
		return onLink(n, o.Side, o.Device, func(_ *netlink.Handle, l vnl.Link) error {
			if l.Attrs().Flags&net.FlagUp == 0 {
				return errors.New("it is down")
			}
			return nil
		})
	case Address:
		return onLink(n, InPod, o.Device, func(h *netlink.Handle, l vnl.Link) error {
			addrs, err := h.AddrList(l, family(o.Prefix.Addr()))
			for _, a := range addrs {
				if netlink.Prefix(a.IPNet) == o.Prefix {
					return nil
				}
			}
			return errors.Join(err, errors.New("the address is not there"))
		})
	case Route:
		return onLink(n, InPod, o.Device, func(h *netlink.Handle, l vnl.Link) error {
			routes, err := h.RouteList(l, family(o.Dst.Addr()))
			for _, r := range routes {
				if routeDst(r, o.Dst) == o.Dst && netlink.Addr(r.Gw) == o.Gateway {
					return nil
				}
			}
			return errors.Join(err, errors.New("the route is not there"))
		})
	}
	return nil
}

// routeDst is a route's destination; the kernel leaves out that of a default route.
func routeDst(r vnl.Route, like netip.Prefix) netip.Prefix {
	if r.Dst == nil {
		return netip.PrefixFrom(like.Addr(), 0).Masked()
	}
	return netlink.Prefix(r.Dst)
}
