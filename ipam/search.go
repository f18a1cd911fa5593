package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// search looks for one address.
type search struct {
	*Allocator
	view *batch
	plan
	want
	all    map[netip.Prefix]block // once they had to be listed: those of all nodes
	limits []string               // why it could not look further
}

// picker chooses an address of a block.
type picker func(block) (ordinal int, ok bool)

// find returns a block in which the address has been given to the holder. It looks, in
// this order, for a free address in the node's own blocks, in a block to claim, and in
// blocks of others; and then for one that rests, in the node's own and in others'.
func (s *search) find(ctx context.Context) (block, netip.Addr, error) {
	if s.want.addr.IsValid() {
		return s.certain(ctx)
	}
	steps := []func(context.Context) (block, netip.Addr, error){
		func(context.Context) (block, netip.Addr, error) { return s.own(block.next) },
		s.claimNew,
		func(ctx context.Context) (block, netip.Addr, error) { return s.borrowed(ctx, block.next) },
		func(context.Context) (block, netip.Addr, error) { return s.own(block.nextResting) },
		func(ctx context.Context) (block, netip.Addr, error) { return s.borrowed(ctx, block.nextResting) },
	}
	for _, step := range steps {
		if b, addr, err := step(ctx); err != nil || addr.IsValid() {
			return b, addr, err
		}
	}
	return block{}, netip.Addr{}, s.full(ctx)
}

// take gives an address of b to the holder; none if there is none.
func (s *search) take(b block, pick picker) (block, netip.Addr, error) {
	b = b.thaw(s.now, s.settings.rest)
	ord, ok := pick(b)
	if !ok {
		return block{}, netip.Addr{}, nil
	}
	b, err := b.assign(ord, s.holder)
	return b, addrAt(b.cidr, ord), err
}

// own takes from the node's blocks, in the order of the pools.
func (s *search) own(pick picker) (block, netip.Addr, error) {
	for _, b := range s.ownBlocks() {
		if b, addr, err := s.take(b, pick); err != nil || addr.IsValid() {
			return b, addr, err
		}
	}
	return block{}, netip.Addr{}, nil
}

// ownBlocks returns the node's blocks as the batch leaves them, in order.
func (s *search) ownBlocks() []block {
	var bs []block
	for _, p := range s.pools {
		first := len(bs)
		for cidr := range s.blocks {
			b, _ := s.view.block(cidr)
			if p.holds(cidr) && b.owner() == s.owner() {
				bs = append(bs, b)
			}
		}
		slices.SortFunc(bs[first:], func(x, y block) int { return comparePrefixes(x.cidr, y.cidr) })
	}
	return bs
}

// claimNew takes from a block that the node claims for the purpose.
func (s *search) claimNew(ctx context.Context) (block, netip.Addr, error) {
	if !s.mayClaim() {
		return block{}, netip.Addr{}, nil
	}
	for range maxTries {
		cidr, ok := s.candidate()
		if !ok && s.all == nil {
			if err := s.listOnce(ctx); err != nil {
				return block{}, netip.Addr{}, err
			}
			continue
		}
		if !ok {
			s.limit("nothing is left to claim")
			return block{}, netip.Addr{}, nil
		}
		err := s.claim(ctx, cidr, s.now)
		s.all = nil // older than the index is now
		if errors.Is(err, errLost) {
			continue // and the index is new
		}
		if err != nil {
			return block{}, netip.Addr{}, err
		}
		if b, addr, err := s.own(block.next); err != nil || addr.IsValid() {
			return b, addr, err
		}
	}
	s.limit("others claimed each block first")
	return block{}, netip.Addr{}, nil
}

// mayClaim tells whether the node may have another block of the family.
func (s *search) mayClaim() bool {
	most := s.settings.maxBlocks
	if s.maxBlocks > 0 {
		most = min(most, s.maxBlocks)
	}
	n := 0
	for cidr, b := range s.blocks {
		if dataplane.FamilyOf(cidr.Addr()) == s.family && b.owner() == s.owner() {
			n++
		}
	}
	switch {
	case !s.settings.autoClaim:
		s.limit("autoAllocateBlocks is false")
		return false
	case n >= most:
		s.limit(fmt.Sprintf("the node has %d blocks of at most %d", n, most))
		return false
	}
	return true
}

// candidate returns a block to claim: one that does not exist, else one that its owner
// left empty.
func (s *search) candidate() (netip.Prefix, bool) {
	for _, p := range s.pools {
		if cidr, ok := s.space.unclaimed(p, s.node); ok {
			return cidr, true
		}
	}
	for _, p := range s.pools {
		if cidr, ok := s.space.vacant(p, s.owner(), s.now); ok {
			return cidr, true
		}
	}
	return netip.Prefix{}, false
}

// borrowed takes from a block of another node, or of nobody.
func (s *search) borrowed(ctx context.Context, pick picker) (block, netip.Addr, error) {
	if s.settings.strict {
		s.limit("strictAffinity forbids borrowing")
		return block{}, netip.Addr{}, nil
	}
	if err := s.listOnce(ctx); err != nil {
		return block{}, netip.Addr{}, err
	}
	for _, p := range s.pools {
		for _, e := range s.space {
			if !p.holds(e.cidr) || e.owner == s.owner() || e.strict || e.free+e.resting == 0 {
				continue
			}
			b, addr, err := s.take(s.foreign(e.cidr), pick)
			if addr.IsValid() {
				s.blocks[e.cidr] = s.all[e.cidr] // as stored, not as the batch would have it
			}
			if err != nil || addr.IsValid() {
				return b, addr, err
			}
		}
	}
	return block{}, netip.Addr{}, nil
}

// listOnce reads the blocks of all nodes, once in a search.
func (s *search) listOnce(ctx context.Context) error {
	if s.all != nil {
		return nil
	}
	all, err := s.list(ctx, s.now)
	s.all = all
	return err
}

// foreign returns a block as the batch leaves it, else as it was listed.
func (s *search) foreign(cidr netip.Prefix) block {
	if b, ok := s.view.blocks[cidr]; ok {
		return b
	}
	return s.all[cidr]
}

// certain takes the address asked for, whether it has rested or not.
func (s *search) certain(ctx context.Context) (block, netip.Addr, error) {
	addr := s.want.addr
	for range maxTries {
		e, ok := s.space.containing(addr)
		if !ok {
			if err := s.claimFor(ctx, addr); err != nil {
				return block{}, addr, err
			}
			continue
		}
		b, ok, err := s.Allocator.block(ctx, s.view, e.cidr)
		if err != nil {
			return block{}, addr, err
		}
		if !ok { // it is gone
			if _, err := s.list(ctx, s.now); err != nil {
				return block{}, addr, err
			}
			continue
		}
		return s.takeCertain(b, addr)
	}
	return block{}, addr, fmt.Errorf("%w: the block of %v changes hands too fast", ErrPoolFull, addr)
}

func (s *search) takeCertain(b block, addr netip.Addr) (block, netip.Addr, error) {
	if b.owner() != s.owner() && (s.settings.strict || b.obj.Spec.StrictAffinity) {
		return b, addr, fmt.Errorf("%w: %v is in block %v of %s, and strictAffinity forbids borrowing",
			ErrPoolFull, addr, b.cidr, cmp.Or(b.owner(), "nobody"))
	}
	if !b.usable() {
		return b, addr, fmt.Errorf("%w: block %v of %v is being deleted", ErrPoolFull, b.cidr, addr)
	}
	b, err := b.thaw(s.now, s.settings.rest).assign(ordinalOf(b.cidr, addr), s.holder)
	return b, addr, err
}

// claimFor claims the block that addr would be in. The limit on the node's blocks does
// not hold here: without the block the address cannot be had at all.
func (s *search) claimFor(ctx context.Context, addr netip.Addr) error {
	if !s.settings.autoClaim {
		return fmt.Errorf("%w: %v is in no block, and autoAllocateBlocks is false", ErrPoolFull, addr)
	}
	cidr, err := addr.Prefix(s.poolOf(addr).size)
	if err != nil {
		return err
	}
	if err := s.claim(ctx, cidr, s.now); err != nil && !errors.Is(err, errLost) {
		return err
	}
	if _, ok := s.space.containing(addr); ok {
		return nil
	}
	if there := s.space.overlapping(cidr); len(there) > 0 {
		return fmt.Errorf("%w: block %v of %v overlaps block %v", ErrPoolFull, cidr, addr, there[0].cidr)
	}
	return nil
}

func (s *search) limit(why string) {
	if !slices.Contains(s.limits, why) {
		s.limits = append(s.limits, why)
	}
}

// full makes the error that says that there is none.
func (s *search) full(ctx context.Context) error {
	if err := s.listOnce(ctx); err != nil { // the counts may be old
		return err
	}
	e := &PoolFullError{Node: s.node, Family: s.family, Limits: s.limits}
	for _, p := range s.pools {
		e.Pools = append(e.Pools, s.space.use(p))
	}
	return e
}
