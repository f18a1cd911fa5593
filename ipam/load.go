package ipam

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

func (a *Allocator) owner() string { return hostPrefix + a.node }

// load makes sure that settings, blocks and index are there, and on first use mends what
// an earlier process of this node left half done.
func (a *Allocator) load(ctx context.Context, now time.Time) error {
	if err := a.readSettings(ctx, now); err != nil {
		return err
	}
	if a.loaded {
		a.doubtOwn()
		return a.settleDoubt(ctx)
	}
	if a.handles == nil {
		a.handles = map[string]*api.IPAMHandle{}
	}
	if _, err := a.list(ctx, now); err != nil {
		return err
	}
	if err := a.recover(ctx, now); err != nil {
		return err
	}
	a.loaded = true
	a.doubtOwn()
	return a.settleDoubt(ctx)
}

// list reads all blocks, keeps those of the node and those it borrowed from, and an index
// of the rest. It returns all that can be read.
func (a *Allocator) list(ctx context.Context, now time.Time) (map[netip.Prefix]block, error) {
	objs, _, err := a.store.List(ctx, api.KindIPAMBlock.Name, "")
	if err != nil {
		return nil, err
	}
	all, sp := index(objs, now, a.settings.rest)
	kept := map[netip.Prefix]block{}
	for cidr, b := range all {
		if _, known := a.blocks[cidr]; known || b.owner() == a.owner() {
			kept[cidr] = b
		}
	}
	a.blocks, a.space = kept, sp
	return all, nil
}

// reread reads one block again, which somebody else has changed.
func (a *Allocator) reread(ctx context.Context, k store.Key) error {
	for cidr := range a.blocks {
		if BlockName(cidr) != k.Name {
			continue
		}
		return a.readBlock(ctx, cidr)
	}
	return errors.New("not a block that was read")
}

// recover finishes or undoes the claims and releases of blocks that were cut short. The
// block says who owns it; the affinity follows it.
func (a *Allocator) recover(ctx context.Context, now time.Time) error {
	objs, _, err := a.store.List(ctx, api.KindBlockAffinity.Name, "")
	if err != nil {
		return err
	}
	claimed := map[netip.Prefix]bool{}
	for _, o := range objs {
		aff, ok := o.(*api.BlockAffinity)
		if !ok || !ofNode(aff, a.node) {
			continue
		}
		claimed[affinityCIDR(aff)] = true
		if err := a.mend(ctx, aff, now); err != nil {
			return err
		}
	}
	for cidr, b := range a.blocks {
		if b.owner() == a.owner() && !claimed[cidr] {
			aff := inState(newAffinity(a.node, cidr), api.AffinityConfirmed)
			if err := a.try(ctx, store.Create(aff)); err != nil {
				return err
			}
		}
	}
	return nil
}

// mend brings one affinity of this node into line with its block.
func (a *Allocator) mend(ctx context.Context, aff *api.BlockAffinity, now time.Time) error {
	b, ok := a.blocks[affinityCIDR(aff)]
	switch {
	case !ok || b.owner() != a.owner():
		return a.try(ctx, store.Delete(store.KeyOf(aff), api.Revision(aff)))
	case aff.Spec.State == api.AffinityConfirmed:
		return nil
	case aff.Spec.State == api.AffinityPendingDeletion && entryOf(b, now, a.settings.rest).vacant(now):
		_, err := a.drop(ctx, aff, b)
		return err
	}
	return a.try(ctx, store.Replace(inState(aff, api.AffinityConfirmed)))
}

// try commits ops. If they fail in a comparison somebody else was quicker and has done
// what is right: that is no error.
func (a *Allocator) try(ctx context.Context, ops ...store.Op) error {
	if _, err := a.store.Commit(ctx, ops); err != nil && !conflict(err) {
		return err
	}
	return nil
}
