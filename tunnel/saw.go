package tunnel

import (
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Saw takes in a notification of the kernel: that a neighbour or forwarding entry of a device is
// there now, or no more. It reports whether the next Sync has something to mend. The driver's own
// changes, and what the kernel finds out by itself, are no news.
func (d *Driver) Saw(n *vnl.Neigh, device string, deleted bool) bool {
	if !isVXLAN(device) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k, t := d.ip, d.neighs
	key := neighKey{device: device, what: netlink.Addr(n.IP).String()}
	if n.Family == unix.AF_BRIDGE {
		k, t = d.mac, d.fdb
		key.what = n.HardwareAddr.String()
	}
	m := map[neighKey]neigh{}
	if !deleted {
		k.note(m, device, *n)
	}
	e, exists := m[key]
	if old, have := t.Has(key); have && exists && old != e && n.Family == unix.AF_BRIDGE {
		t.Resync() // beside ours, or in its place: it takes a look
		return true
	}
	return t.Saw(key, e, exists)
}

// SawRoute takes in a notification that the route to dst changed; an invalid dst stands for
// all addresses. It reports whether the next Sync has something to mend: the device of IPIP
// follows the routes to the other nodes.
func (d *Driver) SawRoute(dst netip.Prefix, device string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.kernel.ipip.local.IsValid() || device == dataplane.DeviceIPIP {
		return false
	}
	for _, a := range d.vteps.peers() {
		if !dst.IsValid() || dst.Contains(a) {
			d.devices.Resync()
			return true
		}
	}
	return false
}

// SawFilter takes in a notification that a filter or qdisc was deleted. It reports whether
// the next Sync has something to mend.
func (d *Driver) SawFilter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.kernel.ipip.local.IsValid() || d.kernel.ipip.kind == KernelIPIP {
		return false
	}
	d.devices.Resync()
	return true
}

func isVXLAN(device string) bool {
	for _, name := range vxlanNames {
		if device == name {
			return true
		}
	}
	return false
}
