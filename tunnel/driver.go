package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"github.com/calicogo/calico/bpf"
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
	// IPIP is the kind that the device of IPIP shall have.
	IPIP IPIPKind
}

// Driver is the [dataplane.Driver] of tunnel devices, their neighbours and forwarding
// entries. Its methods are safe for concurrent use.
type Driver struct {
	mu      sync.Mutex
	vteps   *vteps
	kernel  *devices
	ip, mac *table
	known   *nodes
	devices *reconcile.Table[string, device]
	neighs  *reconcile.Table[neighKey, neigh]
	fdb     *reconcile.Table[neighKey, neigh]
	nodes   *reconcile.Table[neighKey, neigh]
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
		d.nodes.Resync()
	}}
	d.kernel.ipip = &ipip{devices: d.kernel, choice: cfg.IPIP, peers: d.vteps.peers}
	d.known = &nodes{ipip: d.kernel.ipip}
	d.nodes = reconcile.NewTable(d.known, sameNeigh)
	d.devices = reconcile.NewTable(d.kernel, same)
	d.all = reconcile.Sequence{d.devices, d.neighs, d.fdb, d.nodes}
	return d
}

// Update notes a change of the wanted tunnels and VTEPs.
func (d *Driver) Update(delta *dataplane.Delta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, t := range delta.Tunnels {
		if name == dataplane.DeviceIPIP {
			d.kernel.ipip.local = localOf(t)
		}
		if t == nil {
			d.devices.Delete(name)
		} else {
			d.devices.Set(name, wantedDevice(name, *t))
		}
	}
	for key, t := range delta.VTEPs {
		d.vteps.set(key, t, tables{d.neighs, d.fdb, d.nodes})
		if key.Device == dataplane.DeviceIPIP {
			d.devices.Resync() // MTU and links follow from the routes to all nodes
		}
	}
}

// localOf is the address that IPIP packets leave from; invalid without a tunnel.
func localOf(t *dataplane.Tunnel) netip.Addr {
	if t == nil || !t.Underlay.Is4() {
		return netip.Addr{}
	}
	return t.Underlay
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
	s := d.devices.Stats().Plus(d.neighs.Stats()).Plus(d.fdb.Stats()).Plus(d.nodes.Stats())
	return Stats{
		Devices: d.devices.Len(), VTEPs: len(d.vteps.ends), Lists: s.Lists, Failed: s.Failed,
		Writes: d.kernel.writes + d.ip.writes + d.mac.writes + d.known.writes,
	}
}

// IPIP is the kind that the device of IPIP has; AutoIPIP while there is none.
func (d *Driver) IPIP() IPIPKind {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, wanted := d.devices.Want(dataplane.DeviceIPIP); !wanted {
		return AutoIPIP
	}
	return d.kernel.ipip.kind
}

// IPIPStats are the counts of what stands in for the kernel's ipip; false if nothing does.
func (d *Driver) IPIPStats() (bpf.Stats, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	enc := d.kernel.ipip.enc
	if enc == nil {
		return bpf.Stats{}, false, nil
	}
	s, err := enc.Stats()
	return s, err == nil, err
}
