package node

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
)

// tunnelAddr is one sort of address that a node's tunnel devices have.
type tunnelAddr struct {
	family dataplane.Family
	handle string // prefix of the IPAM handle; the node's name follows
	kind   string // of the allocation, for people
	used   func(api.IPPoolSpec) bool
	field  func(*api.Node) *string
}

// tunnelAddrs are all there are.
var tunnelAddrs = []tunnelAddr{
	{
		family: dataplane.IPv4, handle: "vxlan-tunnel-addr-", kind: "vxlanTunnelAddress",
		used:  vxlan,
		field: func(n *api.Node) *string { return &n.Spec.IPv4VXLANTunnelAddr },
	},
	{
		family: dataplane.IPv6, handle: "vxlan-v6-tunnel-addr-", kind: "vxlanV6TunnelAddress",
		used:  vxlan,
		field: func(n *api.Node) *string { return &n.Spec.IPv6VXLANTunnelAddr },
	},
}

func vxlan(s api.IPPoolSpec) bool { return s.VXLANMode != "" && s.VXLANMode != api.EncapNever }

// tunnelUpkeep gives the node the tunnel addresses that the pools call for, and gives
// back those that none calls for any more.
type tunnelUpkeep struct {
	store store.Store
	alloc *ipam.Allocator
	node  string
	now   func() time.Time
}

// verify drops from the Node resource what IPAM does not know as the node's, and gives
// back what the Node resource does not name and no pool calls for: a Node that was deleted
// or edited by hand says nothing true of either. sync then sets the rest right.
func (u *tunnelUpkeep) verify(ctx context.Context, n *api.Node, pools []*api.IPPool) error {
	for _, t := range tunnelAddrs {
		held, err := u.alloc.ByHandle(ctx, t.handle+u.node)
		if err == nil && !t.agrees(*t.field(n), held, t.encapsulated(pools)) {
			err = u.release(ctx, t, n)
		}
		if err != nil {
			return fmt.Errorf("tunnel address (%s): %w", t.kind, err)
		}
	}
	return nil
}

// agrees tells whether what the Node resource says and what IPAM holds go together.
func (t tunnelAddr) agrees(says string, held []netip.Addr, pools []*api.IPPool) bool {
	switch {
	case len(held) == 0:
		return says == ""
	case says == "": // the handle gives it again
		return len(held) == 1 && within(held[0].String(), pools)
	}
	return len(held) == 1 && held[0].String() == says
}

// encapsulated are the pools that call for such an address.
func (t tunnelAddr) encapsulated(pools []*api.IPPool) []*api.IPPool {
	var some []*api.IPPool
	for _, p := range pools {
		if t.used(p.Spec) && familyOf(p) == t.family {
			some = append(some, p)
		}
	}
	return some
}

// sync brings the Node resource's tunnel addresses in line with the pools.
func (u *tunnelUpkeep) sync(ctx context.Context, n *api.Node, pools []*api.IPPool) error {
	for _, t := range tunnelAddrs {
		if err := u.one(ctx, t, n, pools); err != nil {
			return fmt.Errorf("tunnel address (%s): %w", t.kind, err)
		}
	}
	return nil
}

func (u *tunnelUpkeep) one(ctx context.Context, t tunnelAddr, n *api.Node, pools []*api.IPPool) error {
	encapsulated := t.encapsulated(pools)
	have := *t.field(n)
	switch {
	case len(encapsulated) > 0 && within(have, encapsulated):
		return nil
	case len(encapsulated) > 0:
		return u.assign(ctx, t, n, encapsulated)
	case have != "":
		return u.release(ctx, t, n)
	}
	return nil
}

// assign takes an address and writes it into the Node resource with the same commit. An
// address from a pool that went away is given back first: the handle would bring it back.
func (u *tunnelUpkeep) assign(ctx context.Context, t tunnelAddr, n *api.Node, pools []*api.IPPool) error {
	if *t.field(n) != "" {
		if err := u.release(ctx, t, n); err != nil {
			return err
		}
	}
	eligible, err := ipam.SelectPools(pools, n, nil, nil, t.family, api.UseTunnel)
	if err != nil {
		return err
	}
	req := ipam.Request{
		Handle:   t.handle + u.node,
		Families: []dataplane.Family{t.family},
		Pools:    eligible,
		Attrs:    map[string]string{api.AttrNode: u.node, api.AttrType: t.kind},
		Use:      api.UseTunnel,
		Now:      u.now(),
	}
	_, err = u.alloc.Assign(ctx, req, func(addrs []netip.Addr) ([]store.Op, error) {
		return u.write(ctx, t, n, addrs[0].String())
	})
	return err
}

func (u *tunnelUpkeep) release(ctx context.Context, t tunnelAddr, n *api.Node) error {
	ops, err := u.write(ctx, t, n, "")
	if err != nil {
		return err
	}
	return u.alloc.Release(ctx, t.handle+u.node, u.now(), ops...)
}

// write returns the op that puts addr into the Node resource as it is stored now, and
// changes n with it.
func (u *tunnelUpkeep) write(ctx context.Context, t tunnelAddr, n *api.Node, addr string) ([]store.Op, error) {
	now, err := readNode(ctx, u.store, u.node)
	if err != nil {
		return nil, err
	}
	if now == nil {
		return nil, fmt.Errorf("node %s is gone", u.node)
	}
	*t.field(now) = addr
	*t.field(n) = addr
	return []store.Op{store.Replace(now)}, nil
}

func familyOf(p *api.IPPool) dataplane.Family {
	cidr, err := netip.ParsePrefix(p.Spec.CIDR)
	if err != nil {
		return 0
	}
	return dataplane.FamilyOf(cidr.Addr())
}

func within(addr string, pools []*api.IPPool) bool {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return false
	}
	for _, p := range pools {
		if cidr, err := netip.ParsePrefix(p.Spec.CIDR); err == nil && cidr.Contains(a) {
			return true
		}
	}
	return false
}
