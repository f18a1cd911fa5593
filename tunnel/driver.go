package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

// Config is what a Driver may be given.
type Config struct {
	Log *slog.Logger // nil: silent
	// Created is called with the name of each device that was made, before it goes up, for
	// instance to turn off checksum offload where hardware gets it wrong. nil: nothing
	// is done, and offload stays on.
	Created func(device string) error
}

// Driver is the [dataplane.Driver] of tunnel devices, their neighbours and forwarding
// entries. Its methods are safe for concurrent use.
type Driver struct {
	mu      sync.Mutex
	vteps   *vteps
	kernel  *devices
	ip, mac *table
	devices *reconcile.Table[string, device]
	neighs  *reconcile.Table[neighKey, neigh]
	fdb     *reconcile.Table[neighKey, neigh]
	all     reconcile.Sequence
}

var _ dataplane.Driver = (*Driver)(nil)

// New returns a Driver of h's namespace.
func New(h *netlink.Handle, cfg Config) *Driver {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{vteps: newVTEPs(), ip: &table{h: h}, mac: &table{h: h, fdb: true}}
	d.neighs = reconcile.NewTable(d.ip, sameNeigh)
	d.fdb = reconcile.NewTable(d.mac, sameNeigh)
	d.kernel = &devices{h: h, log: cfg.Log, created: cfg.Created, changed: func() {
		d.neighs.Resync() // the kernel drops entries with the device, its state or its MAC
		d.fdb.Resync()
	}}
	d.devices = reconcile.NewTable(d.kernel, same)
	d.all = reconcile.Sequence{d.devices, d.neighs, d.fdb}
	return d
}

// Update notes a change of the wanted tunnels and VTEPs.
func (d *Driver) Update(delta *dataplane.Delta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, t := range delta.Tunnels {
		if t == nil {
			d.devices.Delete(name)
		} else {
			d.devices.Set(name, wantedDevice(name, *t))
		}
	}
	for key, t := range delta.VTEPs {
		d.vteps.set(key, t, d.neighs, d.fdb)
	}
}

// Sync brings the kernel to what is wanted. Where single objects cannot be set the error is
// a [reconcile.ErrPartial] that names each.
func (d *Driver) Sync(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return causes(d.all.Sync(ctx))
}

// causes leaves out, of a partial error, the entries that lack a device that failed itself.
func causes(err error) error {
	var some interface{ Failed() map[string]error }
	if !errors.Is(err, reconcile.ErrPartial) || !errors.As(err, &some) {
		return err
	}
	failed := some.Failed()
	left := reconcile.KeyErrors[string]{}
	for name, err := range failed {
		_, device, _ := strings.Cut(name, " dev ")
		if !errors.Is(err, ErrNoDevice) || failed[device] == nil {
			left[name] = err
		}
	}
	return left.Err()
}

// Resync makes the next Sync read the kernel back.
func (d *Driver) Resync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all.Resync()
}

// Stats are counts since the Driver was made, and the present sizes.
type Stats struct {
	Devices, VTEPs int // wanted
	Lists          uint64
	Writes         uint64 // to devices, addresses, neighbours and forwarding entries
	Failed         uint64 // attempts that failed
}

// Stats returns the Driver's counts.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.devices.Stats().Plus(d.neighs.Stats()).Plus(d.fdb.Stats())
	return Stats{
		Devices: d.devices.Len(), VTEPs: len(d.vteps.ends), Lists: s.Lists, Failed: s.Failed,
		Writes: d.kernel.writes + d.ip.writes + d.mac.writes,
	}
}
