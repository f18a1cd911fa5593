package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// ReleaseEmptyBlocks gives back the node's blocks in which no address is in use or at
// rest, except those claimed within the last minute and one of each family, which the
// next pod will want. It returns the blocks given back. Blocks of nobody that have
// become empty go too.
func (a *Allocator) ReleaseEmptyBlocks(ctx context.Context, now time.Time) ([]netip.Prefix, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	gone, err := a.releaseEmpty(ctx, now)
	if err != nil {
		return gone, fmt.Errorf("release empty blocks: %w", err)
	}
	return gone, nil
}

func (a *Allocator) releaseEmpty(ctx context.Context, now time.Time) ([]netip.Prefix, error) {
	if err := a.load(ctx, now); err != nil {
		return nil, err
	}
	all, err := a.list(ctx, now)
	if err != nil {
		return nil, err
	}
	var gone []netip.Prefix
	for _, e := range a.surplus(now) { // a list of its own: a.space shrinks meanwhile
		ok, err := a.giveBack(ctx, all[e.cidr], now)
		if err != nil {
			a.loaded = false
			return gone, err
		}
		if ok {
			gone = append(gone, e.cidr)
		}
	}
	return gone, nil
}

// surplus returns the empty blocks that the node, or nobody, has, less what it keeps.
func (a *Allocator) surplus(now time.Time) []entry {
	kept := map[dataplane.Family]bool{}
	for _, e := range a.space {
		if e.owner == a.owner() && !e.vacant(now) {
			kept[dataplane.FamilyOf(e.cidr.Addr())] = true
		}
	}
	var es []entry
	for _, e := range a.space {
		f := dataplane.FamilyOf(e.cidr.Addr())
		switch {
		case !e.vacant(now) || (e.owner != "" && e.owner != a.owner()):
		case e.owner == a.owner() && !kept[f]:
			kept[f] = true
		default:
			es = append(es, e)
		}
	}
	return es
}

// giveBack deletes an empty block of this node or of nobody; false if somebody took an
// address from it meanwhile.
func (a *Allocator) giveBack(ctx context.Context, b block, now time.Time) (bool, error) {
	if b.owner() == "" {
		return a.delete(ctx, b, store.Delete(store.KeyOf(b.obj), api.Revision(b.obj)))
	}
	k := store.KeyOf(newAffinity(a.node, b.cidr))
	o, err := a.store.Get(ctx, k)
	if err != nil {
		return false, err
	}
	aff, ok := o.(*api.BlockAffinity)
	if !ok {
		return false, fmt.Errorf("%w: %v is stored as a %T", store.ErrInvalid, k, o)
	}
	leaving := inState(aff, api.AffinityPendingDeletion)
	if _, err := a.store.Commit(ctx, []store.Op{store.Replace(leaving)}); err != nil {
		return false, err
	}
	return a.drop(ctx, leaving, b)
}

// drop deletes a block and its affinity, which is in state pendingDeletion, or confirms
// the affinity if the block has changed.
func (a *Allocator) drop(ctx context.Context, aff *api.BlockAffinity, b block) (bool, error) {
	ok, err := a.delete(ctx, b,
		store.Delete(store.KeyOf(b.obj), api.Revision(b.obj)),
		store.Delete(store.KeyOf(aff), api.Revision(aff)))
	if ok || err != nil {
		return ok, err
	}
	return false, a.try(ctx, store.Replace(inState(aff, api.AffinityConfirmed)))
}

// delete commits ops that delete b; false if it has changed.
func (a *Allocator) delete(ctx context.Context, b block, ops ...store.Op) (bool, error) {
	_, err := a.store.Commit(ctx, ops)
	switch {
	case err == nil:
		delete(a.blocks, b.cidr)
		a.space = a.space.without(b.cidr)
		return true, nil
	case conflict(err):
		return false, a.readBlock(ctx, b.cidr)
	}
	return false, err
}
