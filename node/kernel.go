package node

import (
	"context"
	"strings"
	"time"

	"github.com/calicogo/calico/netlink"
)

// settle is how long the kernel must be quiet before it is read back: a device that
// comes or goes takes many objects with it.
const settle = 200 * time.Millisecond

// watchKernel has the agent read the kernel back when something in it changed that may
// have undone what the agent wrote. The agent's own changes are seen too; reading back
// what is right costs little and writes nothing.
func (r *runtime) watchKernel(ctx context.Context) error {
	m, err := netlink.NewMonitor(netlink.Current, netlink.KindLink, netlink.KindRoute, netlink.KindNeigh)
	if err != nil {
		return err
	}
	defer m.Close()
	quiet := time.AfterFunc(time.Hour, r.agent.Resync)
	defer quiet.Stop()
	return m.Run(ctx, func(e netlink.Event) {
		if e.Undoes() && !(e.Kind == netlink.KindLink && strings.HasPrefix(e.Name, "cali")) {
			quiet.Reset(settle) // pods' devices come and go by our own doing
		}
	})
}
