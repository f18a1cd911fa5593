package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

// devices is the tunnel devices in the kernel.
type devices struct {
	h       *netlink.Handle
	log     *slog.Logger
	created func(string) error
	changed func() // called before a device is written
	ipip    *ipip
	writes  uint64
}

// List reads the devices that are ours.
func (k *devices) List(context.Context) (map[string]device, error) {
	m := map[string]device{}
	for f, name := range vxlanNames {
		l, err := k.h.LinkByName(name)
		if netlink.IsNoLink(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up link %s: %w", name, err)
		}
		d, err := k.read(f, l)
		if err != nil {
			return nil, err
		}
		m[name] = d
	}
	d, ok, err := k.ipip.read()
	if err != nil {
		return nil, err
	}
	if ok {
		m[dataplane.DeviceIPIP] = d
	}
	return m, nil
}

// read describes a link that bears the name of our VXLAN device of family f.
func (k *devices) read(f dataplane.Family, l vnl.Link) (device, error) {
	v, ok := l.(*vnl.Vxlan)
	if !ok {
		return device{drift: "it is of type " + l.Type()}, nil
	}
	d := device{Tunnel: dataplane.Tunnel{
		Encap: dataplane.VXLAN, Family: f, MAC: v.HardwareAddr.String(), Underlay: netlink.Addr(v.SrcAddr),
		VNI: v.VxlanId, Port: uint16(v.Port), MTU: v.MTU,
	}}
	u, gone := findUnderlay(k.h, d.Underlay)
	if gone != nil && !errors.Is(gone, ErrNoUnderlay) {
		return device{}, gone
	}
	d.auto = u.mtu - vxlanOverhead[f]
	addrs, err := k.addrs(l)
	if err != nil {
		return device{}, err
	}
	if len(addrs) == 1 && addrs[0].IsSingleIP() {
		d.Addr = addrs[0].Addr()
	} else if len(addrs) > 0 {
		d.drift = fmt.Sprintf("it has the addresses %v", addrs)
	}
	switch {
	case gone != nil || v.VtepDevIndex != u.index:
		d.drift = "its underlay has moved"
	case v.Learning:
		d.drift = "it learns"
	case v.Flags&net.FlagUp == 0:
		d.drift = "it is down"
	}
	return d, nil
}

// Apply makes, changes and removes devices.
func (k *devices) Apply(ctx context.Context, set, del map[string]device) error {
	failed := reconcile.KeyErrors[string]{}
	for name, d := range set {
		if err := k.put(name, d); err != nil {
			failed[name] = err
		}
	}
	for name := range del {
		k.changed()
		if err := k.takeAway(name); err != nil {
			failed[name] = err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return failed.Err()
}

func (k *devices) put(name string, d device) error {
	if d.err != nil {
		return d.err
	}
	k.changed()
	if name == dataplane.DeviceIPIP {
		return k.ipip.set(d)
	}
	return k.set(name, d)
}

func (k *devices) takeAway(name string) error {
	if name == dataplane.DeviceIPIP {
		return k.ipip.remove()
	}
	return k.remove(name)
}

func (k *devices) remove(name string) error {
	l, err := k.h.LinkByName(name)
	if err == nil {
		err = k.did(k.h.LinkDel(l))
	}
	if err != nil && !netlink.IsNoLink(err) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove tunnel device %s: %w", name, err)
	}
	return nil
}
