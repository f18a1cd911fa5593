package felix

import (
	"log/slog"

	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/route"
	"github.com/calicogo/calico/tunnel"
)

// Names of the kernel's drivers.
const (
	DriverForwarding = "forwarding"
	DriverRules      = "rules"
	DriverTunnels    = "tunnels"
	DriverRoutes     = "routes"
)

// KernelDrivers returns the drivers of the namespace of descriptor ns, or
// netlink.Current, in the order in which they are synced: rules before the tunnels that
// carry packets, and tunnels before the routes that use them, and live flows last. h is a Handle of the same
// namespace. close frees what they hold; what they put into the kernel stays.
func KernelDrivers(ns int, h *netlink.Handle, log *slog.Logger) (drivers []Driver, close func(), err error) {
	rules := kernelRules(ns)
	flows, err := newFlows(h, rules.Compilers)
	if err != nil {
		rules.Close()
		return nil, nil, err
	}
	drivers = []Driver{
		{Name: DriverForwarding, Driver: newForwarding(ns)},
		{Name: DriverRules, Driver: rules},
		{Name: DriverTunnels, Driver: tunnel.New(h, tunnel.Config{Log: log})},
		{Name: DriverRoutes, Driver: route.New(h)},
		{Name: DriverFlows, Driver: flows},
	}
	return drivers, func() { flows.Close(); rules.Close() }, nil
}
