package tunnel

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/reconcile"
)

// nodes is the other nodes that the stand-in of IPIP knows. The kernel's own device has no
// such table: the routes and rules alone say whom it speaks with.
type nodes struct {
	ipip   *ipip
	writes uint64
}

func nodeKey(a netip.Addr) neighKey {
	return neighKey{device: dataplane.DeviceIPIP, what: a.String()}
}

// List reads the addresses that the programs know.
func (k *nodes) List(context.Context) (map[neighKey]neigh, error) {
	m := map[neighKey]neigh{}
	if k.ipip.enc == nil {
		return m, nil
	}
	known, err := k.ipip.enc.Nodes()
	for a := range known {
		m[nodeKey(a)] = neigh{addr: a}
	}
	return m, err
}

// Apply adds and deletes addresses.
func (k *nodes) Apply(ctx context.Context, set, del map[neighKey]neigh) error {
	failed := reconcile.KeyErrors[neighKey]{}
	for key, n := range set {
		if err := k.add(n); err != nil {
			failed[key] = fmt.Errorf("node %v: %w", key, err)
		}
	}
	for key, n := range del {
		if k.ipip.enc == nil {
			break
		}
		if err := k.ipip.enc.DeleteNode(n.addr); err != nil {
			failed[key] = err
		} else {
			k.writes++
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return failed.Err()
}

func (k *nodes) add(n neigh) error {
	switch {
	case n.err != nil:
		return n.err
	case k.ipip.kind == KernelIPIP:
		return nil
	case k.ipip.enc == nil:
		return ErrNoDevice
	}
	if err := k.ipip.enc.AddNode(n.addr); err != nil {
		return err
	}
	k.writes++
	return nil
}
