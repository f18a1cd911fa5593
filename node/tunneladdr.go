package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
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
	forced func(config.Felix) *bool // whatever pools say
	get    func(*api.Node) string
	set    func(*api.Node, string)
}

// tunnelAddrs are all there are.
var tunnelAddrs = []tunnelAddr{
	{
		family: dataplane.IPv4, handle: "ipip-tunnel-addr-", kind: "ipipTunnelAddress",
		used: ipip, forced: func(f config.Felix) *bool { return f.IPIPEnabled },
		get: func(n *api.Node) string {
			if n.Spec.BGP == nil {
				return ""
			}
			return n.Spec.BGP.IPv4IPIPTunnelAddr
		},
		set: func(n *api.Node, addr string) {
			if n.Spec.BGP == nil && addr == "" {
				return
			}
			if n.Spec.BGP == nil {
				n.Spec.BGP = &api.NodeBGP{}
			}
			n.Spec.BGP.IPv4IPIPTunnelAddr = addr
		},
	},
	{
		family: dataplane.IPv4, handle: "vxlan-tunnel-addr-", kind: "vxlanTunnelAddress",
		used: vxlan, forced: func(f config.Felix) *bool { return f.VXLANEnabled },
		get: func(n *api.Node) string { return n.Spec.IPv4VXLANTunnelAddr },
		set: func(n *api.Node, addr string) { n.Spec.IPv4VXLANTunnelAddr = addr },
	},
	{
		family: dataplane.IPv6, handle: "vxlan-v6-tunnel-addr-", kind: "vxlanV6TunnelAddress",
		used: vxlan, forced: func(config.Felix) *bool { return nil }, // as calc has it
		get: func(n *api.Node) string { return n.Spec.IPv6VXLANTunnelAddr },
		set: func(n *api.Node, addr string) { n.Spec.IPv6VXLANTunnelAddr = addr },
	},
}

func ipip(s api.IPPoolSpec) bool { return s.IPIPMode != "" && s.IPIPMode != api.EncapNever }

func vxlan(s api.IPPoolSpec) bool { return s.VXLANMode != "" && s.VXLANMode != api.EncapNever }

// tunnelUpkeep gives the node the tunnel addresses that the pools call for, and gives
// back those that none calls for any more.
type tunnelUpkeep struct {
	store store.Store
	alloc *ipam.Allocator
	node  string
	now   func() time.Time
	// sure are the addresses that IPAM is known to hold for this node, by handle: what the
	// Node resource says else was put there by somebody else.
	sure map[string]string
}

func newTunnelUpkeep(s store.Store, alloc *ipam.Allocator, node string) *tunnelUpkeep {
	return &tunnelUpkeep{store: s, alloc: alloc, node: node, now: time.Now, sure: map[string]string{}}
}

// verify makes n say nothing but what IPAM holds for the node: a Node resource that was
// deleted or edited by hand is no reason to change an address, and one that IPAM does not
// know as the node's may be a pod's. What IPAM holds beyond that is given back.
func (u *tunnelUpkeep) verify(ctx context.Context, t tunnelAddr, n *api.Node, pools []*api.IPPool) error {
	if sure, known := u.sure[t.handle]; known && sure == t.get(n) {
		return nil
	}
	now, err := u.read(ctx) // n may be older than what was last written
	if err != nil {
		return err
	}
	says := t.get(now)
	t.set(n, says)
	held, err := u.alloc.ByHandle(ctx, t.handle+u.node)
	if err != nil {
		return err
	}
	switch {
	case len(held) == 0 && says == "", len(held) == 1 && held[0].String() == says:
		u.sure[t.handle] = says
		return nil
	case len(held) == 1 && within(held[0].String(), pools):
		t.set(n, "") // the handle gives it again
		return nil
	}
	return u.release(ctx, t, n)
}

// callers are the pools that such an address may be of, the best first; none if none is
// called for. Where the configuration has the tunnel without a pool that calls for it,
// to be there before one does, any pool will do.
func (t tunnelAddr) callers(pools []*api.IPPool, f config.Felix) []*api.IPPool {
	forced := t.forced(f)
	var some, others []*api.IPPool
	for _, p := range pools {
		switch {
		case familyOf(p) != t.family:
		case t.used(p.Spec):
			some = append(some, p)
		case forced != nil && *forced:
			others = append(others, p)
		}
	}
	return append(some, others...)
}

// sync brings the Node resource's tunnel addresses in line with the pools and with IPAM.
// All that are called for are there before one that no longer is goes.
func (u *tunnelUpkeep) sync(ctx context.Context, n *api.Node, pools []*api.IPPool, f config.Felix) error {
	var errs []error
	for _, wanted := range []bool{true, false} {
		for _, t := range tunnelAddrs {
			callers := t.callers(pools, f)
			if wanted != (len(callers) > 0) {
				continue
			}
			if err := u.one(ctx, t, n, callers); err != nil {
				errs = append(errs, fmt.Errorf("tunnel address (%s): %w", t.kind, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (u *tunnelUpkeep) one(ctx context.Context, t tunnelAddr, n *api.Node, pools []*api.IPPool) error {
	if err := u.verify(ctx, t, n, pools); err != nil {
		return err
	}
	have := t.get(n)
	switch {
	case len(pools) > 0 && within(have, pools):
		return nil
	case len(pools) > 0:
		return u.assign(ctx, t, n, pools)
	case have != "":
		return u.release(ctx, t, n)
	}
	return nil
}

// assign takes an address and writes it into the Node resource with the same commit. An
// address from a pool that went away is given back first: the handle would bring it back.
func (u *tunnelUpkeep) assign(ctx context.Context, t tunnelAddr, n *api.Node, pools []*api.IPPool) error {
	if t.get(n) != "" {
		if err := u.release(ctx, t, n); err != nil {
			return err
		}
	}
	eligible, err := ipam.SelectPools(pools, n, nil, nil, t.family, api.UseTunnel)
	if errors.Is(err, ipam.ErrNoPool) {
		return nil // all are for other nodes; the agent says what follows from it
	}
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
	delete(u.sure, t.handle)
	addrs, err := u.alloc.Assign(ctx, req, func(addrs []netip.Addr) ([]store.Op, error) {
		return u.write(ctx, t, n, addrs[0].String())
	})
	if err == nil {
		u.sure[t.handle] = addrs[0].String()
	}
	return err
}

func (u *tunnelUpkeep) release(ctx context.Context, t tunnelAddr, n *api.Node) error {
	ops, err := u.write(ctx, t, n, "")
	if err != nil {
		return err
	}
	delete(u.sure, t.handle)
	if err := u.alloc.Release(ctx, t.handle+u.node, u.now(), ops...); err != nil {
		return err
	}
	u.sure[t.handle] = ""
	return nil
}

// write returns the op that puts addr into the Node resource as it is stored now, and
// changes n with it.
func (u *tunnelUpkeep) write(ctx context.Context, t tunnelAddr, n *api.Node, addr string) ([]store.Op, error) {
	now, err := u.read(ctx)
	if err != nil {
		return nil, err
	}
	t.set(now, addr)
	t.set(n, addr)
	return []store.Op{store.Replace(now)}, nil
}

func (u *tunnelUpkeep) read(ctx context.Context) (*api.Node, error) {
	now, err := readNode(ctx, u.store, u.node)
	if err == nil && now == nil {
		err = fmt.Errorf("node %s is gone", u.node)
	}
	return now, err
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
