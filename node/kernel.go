package node

import (
	"context"
	"time"

	"github.com/calicogo/calico/felix"
	"github.com/calicogo/calico/netlink"
)

// Changes in the kernel come in swarms: a device takes many objects with it. They are
// answered once they have been quiet for settle, or after patience if they never are.
const (
	settle   = 200 * time.Millisecond
	patience = 2 * time.Second
)

// watchKernel has the agent read devices and routes back when something in the kernel
// changed that may have undone what the agent wrote. The agent's own changes are seen
// too; reading back what is right writes nothing.
func (r *runtime) watchKernel(ctx context.Context) error {
	m, err := netlink.NewMonitor(netlink.Current, netlink.KindLink, netlink.KindRoute, netlink.KindNeigh)
	if err != nil {
		return err
	}
	swarm := swarm{flush: func() { r.agent.Resync(felix.DriverTunnels, felix.DriverRoutes) }}
	defer swarm.stop()
	return m.Run(ctx, func(e netlink.Event) {
		if e.Undoes() {
			swarm.add(time.Now())
		}
	})
}

// watchTables has the agent put its rules back at once when somebody deleted them: `nft
// flush ruleset`, as firewall services do when they start, takes everybody's, and leaves
// every pod without policy.
func (r *runtime) watchTables(ctx context.Context) error {
	m, err := netlink.NewTableMonitor(netlink.Current)
	if err != nil {
		return err
	}
	return m.Run(ctx, func(netlink.Event) { r.agent.Resync(felix.DriverRules) })
}

// swarm calls flush once for many events. add is called by one goroutine.
type swarm struct {
	flush func()
	timer *time.Timer
	until time.Time // the first event not yet flushed waits no longer than this
}

func (s *swarm) add(now time.Time) {
	if now.After(s.until) {
		s.until = now.Add(patience)
	}
	s.stop()
	s.timer = time.AfterFunc(min(settle, s.until.Sub(now)), s.flush)
}

func (s *swarm) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
