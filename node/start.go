package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/watch"
)

// start takes the node from a known datastore to ready, and then keeps its resource up
// to date. Each step is tried until it holds.
func (r *runtime) start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.cache.Synced():
	}
	rev, err := retry(ctx, r, "node resource", r.announce)
	if err != nil {
		return err
	}
	s := r.board.wait(ctx, func(s Status) bool { return s.InSync && s.Revision >= rev })
	if s.Revision < rev {
		return ctx.Err()
	}
	r.cni.Open()
	if _, err := retry(ctx, r, "cni installation", r.install); err != nil {
		return err
	}
	r.board.setReady()
	r.log.Info("ready", "node", r.cfg.Name, "revision", rev)
	keep := watch.Loop{Bell: r.poke, Step: r.upkeep}
	return keep.Run(ctx)
}

// retry repeats f until it succeeds or ctx ends, and tells the board what is wrong
// meanwhile.
func retry[T any](ctx context.Context, r *runtime, part string, f func(context.Context) (T, error)) (T, error) {
	for {
		v, err := f(ctx)
		news := r.board.note(part, err)
		if err == nil {
			return v, nil
		}
		if news {
			r.log.Warn("trying again", "part", part, "error", err)
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// announce writes the Node resource with its addresses and returns the revision that
// has them.
func (r *runtime) announce(ctx context.Context) (store.Revision, error) {
	var a addresses
	for _, f := range []struct {
		family dataplane.Family
		set    AddressSetting
		to     *netip.Prefix
	}{{dataplane.IPv4, r.cfg.IPv4, &a.v4}, {dataplane.IPv6, r.cfg.IPv6, &a.v6}} {
		p, _, err := detect(r.net, f.family, f.set, r.cfg.Datastore.Endpoints)
		if err != nil {
			return 0, err
		}
		*f.to = p
	}
	if !a.v4.IsValid() && !a.v6.IsValid() {
		return 0, errors.New("no address found for this node: set IP, or IP_AUTODETECTION_METHOD")
	}
	if err := r.ensureCluster(ctx); err != nil {
		return 0, err
	}
	if err := ensurePools(ctx, r.store, r.cfg.Pools); err != nil {
		return 0, err
	}
	n, err := writeNode(ctx, r.store, r.cfg.Name, a)
	if err != nil {
		return 0, err
	}
	if err := r.tunnel.sync(ctx, n, watch.Objects[*api.IPPool](r.cache, api.KindIPPool), r.resolve()); err != nil {
		return 0, err
	}
	// The commits above may have been made by the allocator: ask for what stands.
	n, err = readNode(ctx, r.store, r.cfg.Name)
	if err != nil {
		return 0, err
	}
	if n == nil {
		return 0, fmt.Errorf("node %s was deleted while this node started", r.cfg.Name)
	}
	return api.Revision(n), nil
}

// ensureCluster has every cluster's objects be there. One that cannot be read is a condition, which goes when
// all can be.
func (r *runtime) ensureCluster(ctx context.Context) error {
	unreadable, err := ensureCluster(ctx, r.store, r.cfg.Version)
	if err != nil {
		return err
	}
	r.unreadable = unreadable != nil
	r.board.note("cluster", unreadable)
	return nil
}

var clusterKey = store.Key{Kind: api.KindClusterInformation.Name, Name: "default"}

// upkeep keeps the Node resource in line with the pools, and says when another node
// claims this one's address.
func (r *runtime) upkeep(ctx context.Context) error {
	if _, ok := r.cache.Get(clusterKey); !ok || r.unreadable { // somebody deleted it; or has put right what could not be read
		if err := r.ensureCluster(ctx); err != nil {
			return err
		}
	}
	o, ok := r.cache.Get(store.Key{Kind: api.KindNode.Name, Name: r.cfg.Name})
	if !ok || addressless(o.(*api.Node)) { // somebody deleted it, or wrote it without what the node itself put there
		_, err := r.announce(ctx)
		r.board.note("node resource", err)
		return err
	}
	n := o.(*api.Node)
	var taken error
	if other := conflicting(watch.Objects[*api.Node](r.cache, api.KindNode), n); other != "" {
		taken = fmt.Errorf("node %s says that it has this node's address: delete that Node if the machine is gone, or set IP on one of the two", other)
	}
	r.board.note("address", taken)
	err := r.tunnel.sync(ctx, api.Clone(n), watch.Objects[*api.IPPool](r.cache, api.KindIPPool), r.resolve())
	r.board.note("tunnel address", err)
	errMTU := r.writeMTU()
	r.board.note("mtu", errMTU)
	return errors.Join(err, errMTU)
}

// addressless tells that a Node resource says nothing of where the node is, so that no
// other node can send it a packet.
func addressless(n *api.Node) bool {
	return n.Spec.BGP == nil || n.Spec.BGP.IPv4Address == "" && n.Spec.BGP.IPv6Address == ""
}

func (r *runtime) install(context.Context) (struct{}, error) {
	if !r.cfg.ManageCNI {
		return struct{}{}, nil
	}
	if err := installPlugin(r.cfg.CNIBinDir); err != nil {
		return struct{}{}, err
	}
	return struct{}{}, writeConflist(r.cfg.CNIConfDir, r.cfg.CNIConf)
}

func nodeAddr(n *api.Node, f dataplane.Family) (netip.Addr, error) {
	s := ""
	if n.Spec.BGP != nil {
		s = n.Spec.BGP.IPv4Address
		if f == dataplane.IPv6 {
			s = n.Spec.BGP.IPv6Address
		}
	}
	p, err := parseAddress(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("node %s has no %s address", n.Name, f)
	}
	return p.Addr(), nil
}
