package felix

import (
	"context"
	"sync"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// forwarding is the driver of the sysctls that make the node a router: the node's own, which
// it sets, and those of pods' interfaces, which package cni sets and this puts back.
type forwarding struct {
	ns int

	mu      sync.Mutex
	trusted bool
	pods    map[dataplane.Interface]map[dataplane.Family]bool
}

var _ dataplane.Driver = (*forwarding)(nil)

func newForwarding(ns int) *forwarding {
	return &forwarding{ns: ns, pods: map[dataplane.Interface]map[dataplane.Family]bool{}}
}

func (f *forwarding) Update(d *dataplane.Delta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, ep := range d.Endpoints {
		delete(f.pods, name)
		if ep == nil {
			continue
		}
		f.pods[name] = map[dataplane.Family]bool{}
		for _, a := range ep.Addrs {
			f.pods[name][dataplane.FamilyOf(a)] = true
		}
	}
}

// Resync has the next Sync look at the sysctls. Those that are right are not written.
func (f *forwarding) Resync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trusted = false
}

// saw takes in that forwarding is off on a device; "": on all. It reports whether that is to
// be mended.
func (f *forwarding) saw(device string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, pod := f.pods[dataplane.Interface(device)]
	if device != "" && !pod {
		return false
	}
	f.trusted = false
	return true
}

func (f *forwarding) Sync(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trusted {
		return nil
	}
	err := netlink.EnableForwarding(f.ns)
	if err == nil && len(f.pods) > 0 {
		err = netlink.SetSysctls(f.ns, f.ofPods()...)
	}
	f.trusted = err == nil
	return err
}

// ofPods are the settings of pods' interfaces. One may have gone a moment ago.
func (f *forwarding) ofPods() (settings []netlink.Sysctl) {
	set := func(dir string, name dataplane.Interface, what string) {
		settings = append(settings, netlink.Sysctl{Name: "net/" + dir + "/conf/" + string(name) + "/" + what, Value: "1", IfPresent: true})
	}
	for name, families := range f.pods {
		if families[dataplane.IPv4] {
			set("ipv4", name, "forwarding")
			set("ipv4", name, "proxy_arp")
		}
		if families[dataplane.IPv6] {
			set("ipv6", name, "forwarding")
		}
	}
	return settings
}
