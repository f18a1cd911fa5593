package ipam

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// errLost says that another claim got the block, or one that overlaps it.
var errLost = errors.New("block claimed by another node")

// claim makes cidr a block of this node; errLost if it cannot be. See the package's
// documentation for why it reads only after it has written its intent.
func (a *Allocator) claim(ctx context.Context, cidr netip.Prefix, now time.Time) error {
	aff, err := a.intend(ctx, cidr)
	if err != nil {
		a.loaded = false // the intent may be written: recover looks after it
		return err
	}
	for range maxTries {
		ops, err := a.claimOps(ctx, aff, cidr, now)
		if err == nil {
			_, err = a.store.Commit(ctx, ops)
		}
		var failed *store.OpError
		switch {
		case err == nil:
			a.remember(ops, cidr, now)
			return nil
		case errors.Is(err, errLost):
			if err := a.try(ctx, store.Delete(store.KeyOf(aff), api.Revision(aff))); err != nil {
				a.loaded = false
				return err
			}
			return errLost
		case !conflict(err):
			a.loaded = false
			return err
		case errors.As(err, &failed) && failed.Key == store.KeyOf(aff):
			return errLost // a rival deleted the intent
		}
	}
	a.loaded = false
	return errLost
}

// intend writes the pending affinity, or takes over the one that is there.
func (a *Allocator) intend(ctx context.Context, cidr netip.Prefix) (*api.BlockAffinity, error) {
	aff := newAffinity(a.node, cidr)
	for range maxTries {
		_, err := a.store.Commit(ctx, []store.Op{store.Replace(aff)})
		if err == nil {
			return aff, nil
		}
		if !conflict(err) {
			return nil, err
		}
		o, err := a.store.Get(ctx, store.KeyOf(aff))
		switch old, ok := o.(*api.BlockAffinity); {
		case errors.Is(err, store.ErrNotFound):
			aff = newAffinity(a.node, cidr)
		case err != nil:
			return nil, err
		case ok:
			aff = inState(old, api.AffinityPending)
		}
	}
	return nil, store.ErrConflict
}

// claimOps reads everything anew and returns what claims cidr: it creates the block or
// takes an empty one over, confirms the affinity and ends all rival claims.
func (a *Allocator) claimOps(ctx context.Context, aff *api.BlockAffinity, cidr netip.Prefix, now time.Time) ([]store.Op, error) {
	// Affinities first. A rival whose intent is not among them comes after this read
	// and will find ours; one that is done has left a block for the next read.
	objs, _, err := a.store.List(ctx, api.KindBlockAffinity.Name, "")
	if err != nil {
		return nil, err
	}
	full, err := a.list(ctx, now)
	if err != nil {
		return nil, err
	}
	b, err := a.claimable(full, cidr, now)
	if err != nil {
		return nil, err
	}
	ops := []store.Op{store.Replace(inState(aff, api.AffinityConfirmed))}
	if b.obj != nil {
		ops = append([]store.Op{store.Replace(b.obj)}, ops...)
	}
	for _, o := range objs {
		if r, ok := o.(*api.BlockAffinity); ok && r.Name != aff.Name && rival(r, cidr) {
			ops = append(ops, store.Delete(store.KeyOf(r), api.Revision(r)))
		}
	}
	return ops, nil
}

// rival tells whether r claims addresses of cidr.
func rival(r *api.BlockAffinity, cidr netip.Prefix) bool {
	p := affinityCIDR(r)
	return p.IsValid() && p.Overlaps(cidr)
}

// claimable returns the block to write in order to own cidr; one without object if
// nothing need be written.
func (a *Allocator) claimable(full map[netip.Prefix]block, cidr netip.Prefix, now time.Time) (block, error) {
	there := a.space.overlapping(cidr)
	switch {
	case len(there) == 0:
		return newBlock(cidr, a.owner(), a.settings.strict, now), nil
	case len(there) > 1 || there[0].cidr != cidr:
		return block{}, errLost
	case there[0].owner == a.owner():
		return block{}, nil
	case there[0].vacant(now):
		return full[cidr].owned(a.owner(), now), nil
	}
	return block{}, errLost
}

// remember keeps the block that ops wrote.
func (a *Allocator) remember(ops []store.Op, cidr netip.Prefix, now time.Time) {
	o, ok := ops[0].Object.(*api.IPAMBlock)
	if !ok {
		return
	}
	b := block{cidr, o}
	a.blocks[cidr] = b
	a.space = newSpace(append(a.space.without(cidr), entryOf(b, now, a.settings.rest)))
}
