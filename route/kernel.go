package route

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

// kernel is the routes of the main table that are ours.
type kernel struct {
	h        *netlink.Handle
	prefixes []string // of pods' interfaces
	ours     map[key]entry
	shared   map[key]bool // keys of ours that others' routes have too, as of the last List
	writes   uint64
}

func newKernel(h *netlink.Handle, prefixes []string) *kernel {
	return &kernel{h: h, prefixes: prefixes, ours: map[key]entry{}, shared: map[key]bool{}}
}

// tunnels are our tunnel devices: they are known by their names.
var tunnels = []string{dataplane.DeviceVXLAN, dataplane.DeviceVXLANv6, dataplane.DeviceIPIP}

// daemons are the protocols of routes that the kernel and routing daemons make
// (linux/rtnetlink.h): on whatever device they are, they are not ours.
var daemons = []int{
	unix.RTPROT_REDIRECT, unix.RTPROT_KERNEL, unix.RTPROT_RA, unix.RTPROT_GATED, unix.RTPROT_MRT,
	unix.RTPROT_ZEBRA, unix.RTPROT_BIRD, unix.RTPROT_DNROUTED, unix.RTPROT_XORP, unix.RTPROT_NTK,
	unix.RTPROT_MROUTED, unix.RTPROT_KEEPALIVED, unix.RTPROT_BABEL, unix.RTPROT_OPENR, unix.RTPROT_BGP,
	unix.RTPROT_ISIS, unix.RTPROT_OSPF, unix.RTPROT_RIP, unix.RTPROT_EIGRP,
}

func (k *kernel) isOurs(e entry) bool {
	if e.protocol == protoCalico {
		return true
	}
	return e.device != "" && k.ownsDevice(e.device) && !slices.Contains(daemons, e.protocol)
}

func (k *kernel) ownsDevice(name string) bool {
	return slices.Contains(tunnels, name) || slices.ContainsFunc(k.prefixes, func(p string) bool { return p != "" && strings.HasPrefix(name, p) })
}

// List reads the main table once, both families.
func (k *kernel) List(ctx context.Context) (map[key]entry, error) {
	clear(k.ours)
	clear(k.shared)
	foreign := map[key]bool{}
	gateways := finder{k.h, map[hop]bool{}}
	err := k.each(ctx, func(at key, e entry, link int) {
		if k.isOurs(e) {
			k.note(at, gateways.normal(e, link, k.ownsDevice))
		} else {
			foreign[at] = true
		}
	})
	for at := range k.ours {
		if foreign[at] {
			k.shared[at] = true
		}
	}
	return maps.Clone(k.ours), err
}

// each reads the main table and calls f for every route, with the index of its link.
func (k *kernel) each(ctx context.Context, f func(key, entry, int)) error {
	links, err := k.h.Links()
	if err != nil {
		return err
	}
	all, err := k.dump()
	if err != nil {
		return err
	}
	for i := range all {
		device := ""
		if l := links[all[i].LinkIndex]; l != nil {
			device = l.Attrs().Name
		}
		at, e := read(&all[i], device)
		f(at, e, all[i].LinkIndex)
	}
	return ctx.Err()
}

// note remembers a route of ours under its own key, or the next duplicate's.
func (k *kernel) note(key key, e entry) {
	for {
		if _, taken := k.ours[key]; !taken {
			k.ours[key] = e
			return
		}
		key.nth++
	}
}

func (k *kernel) dump() ([]vnl.Route, error) {
	var all []vnl.Route
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		some, err := netlink.Dump(func() ([]vnl.Route, error) {
			return k.h.RouteListFiltered(f, &vnl.Route{Table: unix.RT_TABLE_MAIN}, vnl.RT_FILTER_TABLE)
		})
		if err != nil && !(f == unix.AF_INET6 && noFamily(err)) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// Apply deletes duplicates, then sets, then deletes the rest. Routes are set by replacing,
// so that there is never none for a prefix that has one before and after.
func (k *kernel) Apply(ctx context.Context, set, del map[key]entry) error {
	b := &batch{kernel: k, ctx: ctx, failed: reconcile.KeyErrors[key]{}}
	if err := b.findDevices(set, del); err != nil {
		return err
	}
	dup := func(x key) bool { return x.nth > 0 }
	b.run(del, dup, b.del)
	b.run(set, func(key) bool { return true }, b.set)
	b.run(del, func(x key) bool { return !dup(x) }, b.del)
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.failed.Err()
}
