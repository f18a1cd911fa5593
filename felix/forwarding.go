package felix

import (
	"context"
	"sync"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// forwarding is the driver of the sysctls that make the node a router.
type forwarding struct {
	ns int

	mu      sync.Mutex
	trusted bool
}

var _ dataplane.Driver = (*forwarding)(nil)

func (f *forwarding) Update(*dataplane.Delta) {}

// Resync has the next Sync look at the sysctls. Those that are right are not written.
func (f *forwarding) Resync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trusted = false
}

func (f *forwarding) Sync(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trusted {
		return nil
	}
	err := netlink.EnableForwarding(f.ns)
	f.trusted = err == nil
	return err
}
