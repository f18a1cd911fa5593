package route

import (
	"context"
	"errors"
	"fmt"
	"net"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

// batch is one Apply.
type batch struct {
	*kernel
	ctx     context.Context // of this Apply
	others  map[key]entry   // routes of others; nil: not read yet
	devices map[string]device
	failed  reconcile.KeyErrors[key]
}

type device struct {
	index int
	up    bool
}

// fewDevices is up to how many links are asked for one by one.
const fewDevices = 8

// findDevices learns the indexes of the devices that the batch names.
func (b *batch) findDevices(batches ...map[key]entry) error {
	b.devices = map[string]device{}
	names := map[string]bool{}
	for _, m := range batches {
		for _, e := range m {
			if e.device != "" {
				names[e.device] = true
			}
		}
	}
	if len(names) > fewDevices {
		links, err := b.h.Links()
		for _, l := range links {
			b.noteDevice(l)
		}
		return err
	}
	for name := range names {
		l, err := b.h.LinkByName(name)
		switch {
		case err == nil:
			b.noteDevice(l)
		case !netlink.IsNoLink(err):
			return fmt.Errorf("look up link %s: %w", name, err)
		}
	}
	return nil
}

func (b *batch) noteDevice(l vnl.Link) {
	a := l.Attrs()
	b.devices[a.Name] = device{a.Index, a.Flags&net.FlagUp != 0}
}

func (b *batch) run(m map[key]entry, pick func(key) bool, do func(key, entry) error) {
	for k, e := range m {
		if b.ctx.Err() != nil {
			return
		}
		if !pick(k) {
			continue
		}
		if err := do(k, e); err != nil {
			var own *Error
			if !errors.As(err, &own) {
				err = &Error{Dst: k.dst, Device: e.device, Gateway: e.gateway, Err: err}
			}
			b.failed[k] = err
		}
	}
}

// set makes a route, or changes ours.
func (b *batch) set(k key, e entry) error {
	if e.err != nil {
		return e.err
	}
	if b.shared[k] {
		if err := b.contested(k); err != nil {
			return err
		}
		delete(b.shared, k)
	}
	r, err := b.resolve(k, e)
	if err != nil {
		return err
	}
	err = b.write(k, r)
	if errors.Is(err, unix.EINVAL) && e.onlink && family(k.dst) == dataplane.IPv6 {
		err = b.bridged(k, r)
	}
	if err != nil {
		return b.explain(e, err)
	}
	b.writes++
	b.ours[k] = e
	return nil
}

// write replaces a route of ours, or makes one where nobody has one.
func (b *batch) write(k key, r *vnl.Route) error {
	if _, have := b.ours[k]; have {
		return b.h.RouteReplace(r)
	}
	err := b.h.RouteAdd(r)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := b.contested(k); err != nil {
		return err
	}
	return b.h.RouteReplace(r) // it is ours after all
}

// bridged writes a route whose gateway lies in the very network that now goes elsewhere, as a
// tunnel's gateway does when its block goes from direct to tunnel. For IPv6 the kernel
// refuses that, onlink or not, so that for the moment the gateway gets a route of its own.
func (b *batch) bridged(k key, r *vnl.Route) error {
	bits := 8 * len(r.Gw)
	bridge := &vnl.Route{
		Dst: &net.IPNet{IP: r.Gw, Mask: net.CIDRMask(bits, bits)}, LinkIndex: r.LinkIndex,
		Protocol: protoCalico, Table: unix.RT_TABLE_MAIN,
	}
	if err := b.h.RouteAdd(bridge); err != nil {
		return fmt.Errorf("route to the gateway itself: %w", err)
	}
	err := b.write(k, r)
	b.writes += 2
	return errors.Join(err, b.h.RouteDel(bridge))
}

// contested returns an error if a route of someone else has the key. The kernel cannot be
// asked for one route exactly, so that all are read, once a batch.
func (b *batch) contested(k key) error {
	if b.others == nil {
		others := map[key]entry{}
		err := b.each(b.ctx, func(at key, e entry, _ int) {
			if !b.isOurs(e) {
				others[at] = e
			}
		})
		if err != nil {
			return err
		}
		b.others = others
	}
	if e, ok := b.others[k]; ok {
		return fmt.Errorf("%w: %v", ErrForeign, e)
	}
	return nil
}

// resolve finds the index of the device, and checks what the kernel would let pass.
func (b *batch) resolve(k key, e entry) (*vnl.Route, error) {
	if e.device == "" && e.gateway.IsValid() {
		index, err := find(b.h, e.gateway, b.ownsDevice)
		return e.route(k, index), err
	}
	if e.device == "" {
		return e.route(k, 0), nil
	}
	d, ok := b.devices[e.device]
	switch {
	case !ok:
		return nil, ErrNoInterface
	case !d.up:
		return nil, ErrDown
	}
	return e.route(k, d.index), nil
}

// explain says what the errno of a write means here.
func (b *batch) explain(e entry, err error) error {
	if errors.Is(err, unix.ENODEV) && e.device != "" {
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	}
	if errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("%w: %w", ErrDown, err)
	}
	return err
}

// del deletes exactly this route. It, or its device, may be gone already.
func (b *batch) del(k key, e entry) error {
	d := b.devices[e.device]
	if e.device != "" && d.index == 0 {
		delete(b.ours, k)
		return nil
	}
	err := b.h.RouteDel(e.route(k, d.index))
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete: %w", err)
	}
	if err == nil {
		b.writes++
	}
	delete(b.ours, k)
	return nil
}
