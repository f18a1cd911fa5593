package ipam

import (
	"context"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// stageRelease says what takes everything from a handle.
func (a *Allocator) stageRelease(ctx context.Context, b *batch, j *job, id string, extra []store.Op) (*change, error) {
	if b.writes(handleKey(id)) {
		return nil, errWait
	}
	c := &change{before: extra, blocks: map[netip.Prefix]block{}}
	h, err := a.knownHandle(ctx, j, id)
	if err != nil {
		return nil, err
	}
	cidrs := a.ownCIDRs() // where it might hold addresses although there is no such handle
	if h != nil {
		c.dropped = []*api.IPAMHandle{h}
		if cidrs, err = handleBlocks(h); err != nil {
			return nil, err
		}
	}
	for _, cidr := range cidrs {
		bl, ok, err := a.block(ctx, b, cidr)
		if err != nil {
			return nil, err
		}
		if ok {
			a.releaseIn(c, bl, bl.held(id), j)
		}
	}
	return c, nil
}

func (a *Allocator) releaseIn(c *change, bl block, ords []int, j *job) {
	if len(ords) > 0 {
		c.blocks[bl.cidr] = bl.thaw(j.now, a.settings.rest).release(ords, j.now, a.settings.rest)
	}
}

// knownHandle returns the handle, read from the datastore if it was not before.
func (a *Allocator) knownHandle(ctx context.Context, j *job, id string) (*api.IPAMHandle, error) {
	if h := a.handles[id]; h != nil && !j.fresh {
		return h, nil
	}
	return a.readHandle(ctx, j, id)
}

func (a *Allocator) ownCIDRs() []netip.Prefix {
	var cidrs []netip.Prefix
	for cidr, b := range a.blocks {
		if b.owner() == a.owner() {
			cidrs = append(cidrs, cidr)
		}
	}
	slices.SortFunc(cidrs, comparePrefixes)
	return cidrs
}

// stageReleaseAddrs says what takes the given addresses from their holders.
func (a *Allocator) stageReleaseAddrs(ctx context.Context, b *batch, j *job, as []Allocation) (*change, error) {
	c := &change{blocks: map[netip.Prefix]block{}}
	ords := map[netip.Prefix][]int{}
	lost := map[string]map[netip.Prefix]int{} // by handle and block, how many
	for _, al := range as {
		cidr, ok, err := a.blockOf(ctx, j, al.Addr)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		bl, ok, err := a.block(ctx, b, cidr)
		if err != nil {
			return nil, err
		}
		ord := ordinalOf(cidr, al.Addr)
		if !ok || !al.stands(bl, ord) || slices.Contains(ords[cidr], ord) {
			continue
		}
		ords[cidr] = append(ords[cidr], ord)
		c.addrs = append(c.addrs, al.Addr)
		h := bl.handleOf(ord)
		if lost[h] == nil {
			lost[h] = map[netip.Prefix]int{}
		}
		lost[h][cidr]++
	}
	for cidr, o := range ords {
		bl, _ := b.block(cidr)
		a.releaseIn(c, bl, o, j)
	}
	return c, a.shrink(ctx, j, c, lost)
}

// stands tells whether the address is still assigned as al says.
func (al Allocation) stands(b block, ord int) bool {
	return b.live(ord) &&
		(al.Handle == "" || al.Handle == b.handleOf(ord)) &&
		(al.Sequence == 0 || al.Sequence == b.sequence(ord))
}

// shrink takes from the handles what they lost.
func (a *Allocator) shrink(ctx context.Context, j *job, c *change, lost map[string]map[netip.Prefix]int) error {
	fresh := j.fresh
	for id, cidrs := range lost {
		if id == "" {
			continue // held without a handle
		}
		j.fresh = fresh
		h, err := a.knownHandle(ctx, j, id)
		if err != nil {
			return err
		}
		if h == nil {
			continue
		}
		left := h
		for cidr, n := range cidrs {
			left = counted(left, cidr, -n)
		}
		if len(left.Spec.Block) == 0 {
			c.dropped = append(c.dropped, h)
		} else {
			c.grown = append(c.grown, left)
		}
	}
	return nil
}

// blockOf returns the block that addr is in.
func (a *Allocator) blockOf(ctx context.Context, j *job, addr netip.Addr) (netip.Prefix, bool, error) {
	if !addr.IsValid() {
		return netip.Prefix{}, false, nil
	}
	if e, ok := a.space.containing(addr); ok {
		return e.cidr, true, nil
	}
	if _, err := a.list(ctx, j.now); err != nil {
		return netip.Prefix{}, false, err
	}
	e, ok := a.space.containing(addr)
	return e.cidr, ok, nil
}
