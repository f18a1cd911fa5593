package route

import (
	"context"
	"slices"
	"sync"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

// Driver is the [dataplane.Driver] of routes. Its methods are safe for concurrent use.
type Driver struct {
	mu     sync.Mutex
	kernel *kernel
	table  *reconcile.Table[key, entry]
}

var _ dataplane.Driver = (*Driver)(nil)

// New returns a Driver of the main table of h's namespace. Until it is told other
// settings it takes [dataplane.DefaultSettings].
func New(h *netlink.Handle) *Driver {
	k := newKernel(h, dataplane.DefaultSettings().InterfacePrefixes)
	return &Driver{kernel: k, table: reconcile.NewTable(k, equal)}
}

// Update notes a change of the wanted routes and of the prefixes of pods' interfaces.
func (d *Driver) Update(delta *dataplane.Delta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dst, r := range delta.Routes {
		if r == nil {
			d.table.Delete(keyOf(dst))
		} else {
			d.table.Set(keyOf(dst), wanted(dst, r))
		}
	}
	if s := delta.Settings; s != nil && !slices.Equal(s.InterfacePrefixes, d.kernel.prefixes) {
		d.kernel.prefixes = slices.Clone(s.InterfacePrefixes)
		d.table.Resync() // what is ours has changed
	}
}

// Sync brings the kernel's routes to what is wanted. Where single routes cannot be set the
// error is a [reconcile.ErrPartial] and has an [Error] for each, by prefix.
func (d *Driver) Sync(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.table.Sync(ctx)
}

// Resync makes the next Sync read the kernel back.
func (d *Driver) Resync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table.Resync()
}

// Stats are counts since the Driver was made, and the present size.
type Stats struct {
	Routes int // wanted
	Lists  uint64
	Writes uint64 // routes written to the kernel, or deleted
	Failed uint64 // attempts that failed
}

// Stats returns the Driver's counts.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.table.Stats()
	return Stats{Routes: d.table.Len(), Lists: s.Lists, Writes: d.kernel.writes, Failed: s.Failed}
}
