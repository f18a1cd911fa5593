package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

// plan is a Request that has been checked and parsed.
type plan struct {
	holder
	wants     []want
	maxBlocks int
	now       time.Time
}

// want is one address: a certain one if addr is valid, else any of the family.
type want struct {
	family dataplane.Family
	addr   netip.Addr
	pools  []pool // of the family
}

func parseRequest(r Request) (plan, error) {
	p := plan{holder: holder{r.Handle, maps.Clone(r.Attrs)}, maxBlocks: r.MaxBlocks, now: r.Now}
	if err := errors.Join(checkHandle(r.Handle), checkNow(r.Now)); err != nil {
		return p, err
	}
	pools, err := parsePools(r)
	if err != nil {
		return p, err
	}
	families, addrs, err := wanted(r)
	if err != nil {
		return p, err
	}
	for _, f := range families {
		w := want{family: f, addr: addrs[f]}
		for _, pl := range pools {
			if dataplane.FamilyOf(pl.cidr.Addr()) == f {
				w.pools = append(w.pools, pl)
			}
		}
		if len(w.pools) == 0 {
			return p, fmt.Errorf("%w: %s asks for an %v address, but no %v pool is given", ErrNoPool, r.Handle, f, f)
		}
		if w.addr.IsValid() && w.poolOf(w.addr) == nil {
			return p, fmt.Errorf("%w: %v lies in no pool that may be used", ErrNoPool, w.addr)
		}
		p.wants = append(p.wants, w)
	}
	return p, nil
}

// wanted returns the families in the order of the answer, and the addresses asked for.
func wanted(r Request) ([]dataplane.Family, map[dataplane.Family]netip.Addr, error) {
	families := slices.Clone(r.Families)
	addrs := map[dataplane.Family]netip.Addr{}
	for _, addr := range r.Addrs {
		addr = addr.Unmap().WithZone("")
		f := dataplane.FamilyOf(addr)
		if !addr.IsValid() || addrs[f].IsValid() {
			return nil, nil, fmt.Errorf("%w: addresses %v: want at most one of each family", ErrInvalid, r.Addrs)
		}
		addrs[f] = addr
		if !slices.Contains(families, f) {
			families = append(families, f)
		}
	}
	for i, f := range families {
		if (f != dataplane.IPv4 && f != dataplane.IPv6) || slices.Contains(families[:i], f) {
			return nil, nil, fmt.Errorf("%w: families %d: want 4, 6 or both, each once", ErrInvalid, families)
		}
	}
	if len(families) == 0 {
		return nil, nil, fmt.Errorf("%w: %s asks for no address", ErrInvalid, r.Handle)
	}
	return families, addrs, nil
}

func parsePools(r Request) ([]pool, error) {
	use := r.Use
	if use == "" {
		use = api.UseWorkload
	}
	var pools []pool
	for _, p := range r.Pools {
		if !allows(p, use) {
			continue
		}
		parsed, err := parsePool(p)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoPool, err)
		}
		pools = append(pools, parsed)
	}
	return pools, nil
}

func (w want) poolOf(addr netip.Addr) *pool {
	for i := range w.pools {
		if w.pools[i].cidr.Contains(addr) {
			return &w.pools[i]
		}
	}
	return nil
}

// stageAssign says what gives p its addresses. A handle that was not read is taken to be
// new, which the commit makes sure of, and so does this before there is nothing for it.
func (a *Allocator) stageAssign(ctx context.Context, b *batch, j *job, p plan) (*change, error) {
	if b.writes(handleKey(p.handle)) {
		return nil, errWait
	}
	c, err := a.tryAssign(ctx, b, j, p)
	if a.handles[p.handle] != nil || !errors.Is(err, ErrPoolFull) && !errors.Is(err, ErrTaken) {
		return c, err
	}
	switch h, errRead := a.readHandle(ctx, j, p.handle); {
	case errRead != nil:
		return nil, errRead
	case h == nil:
		return nil, err
	}
	return a.tryAssign(ctx, b, j, p)
}

func (a *Allocator) tryAssign(ctx context.Context, b *batch, j *job, p plan) (*change, error) {
	h, err := a.handle(ctx, j, p.handle)
	if err != nil {
		return nil, err
	}
	has, err := a.held(ctx, b, h)
	if err != nil {
		return nil, err
	}
	c := &change{blocks: map[netip.Prefix]block{}}
	grown := has.handle(p.handle, h)
	for _, w := range p.wants {
		addr, ok := has.of(w.family)
		if ok && w.addr.IsValid() && addr != w.addr {
			return nil, fmt.Errorf("%w: %v is wanted, but the handle holds %v", ErrTaken, w.addr, addr)
		}
		if !ok {
			s := &search{Allocator: a, view: b, plan: p, want: w}
			bl, got, err := s.find(ctx)
			if err != nil {
				return nil, err
			}
			addr = got
			c.blocks[bl.cidr] = bl
			grown = counted(grown, bl.cidr, 1)
		}
		c.addrs = append(c.addrs, addr)
	}
	// Written even if nothing has changed: the comparison makes sure that the addresses
	// are still the handle's when the extra ops are written.
	c.grown = []*api.IPAMHandle{grown}
	c.after, err = j.extraOps(c.addrs)
	return c, err
}

// holding is what a handle has.
type holding struct {
	cidrs []netip.Prefix
	addrs []netip.Addr
}

// held reads what the handle has; h may be nil.
func (a *Allocator) held(ctx context.Context, b *batch, h *api.IPAMHandle) (holding, error) {
	var has holding
	if h == nil {
		return has, nil
	}
	cidrs, err := handleBlocks(h)
	if err != nil {
		return has, err
	}
	for _, cidr := range cidrs {
		bl, ok, err := a.block(ctx, b, cidr)
		if err != nil {
			return has, err
		}
		if !ok {
			continue
		}
		for _, ord := range bl.held(h.Name) {
			has.cidrs, has.addrs = append(has.cidrs, cidr), append(has.addrs, addrAt(cidr, ord))
		}
	}
	return has, nil
}

func (has holding) of(f dataplane.Family) (netip.Addr, bool) {
	for _, addr := range has.addrs {
		if dataplane.FamilyOf(addr) == f {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// handle returns the object to write: the old one, if any, with what it really has.
func (has holding) handle(id string, old *api.IPAMHandle) *api.IPAMHandle {
	h := newHandle(id)
	if old != nil {
		c := *old
		c.Spec = h.Spec
		h = &c
	}
	for _, cidr := range has.cidrs {
		h = counted(h, cidr, 1)
	}
	return h
}

// handle returns the handle as it was last read or written; nil if it was not. If an
// earlier try showed that to be wrong it is read, and its blocks with it.
func (a *Allocator) handle(ctx context.Context, j *job, id string) (*api.IPAMHandle, error) {
	if !j.fresh {
		return a.handles[id], nil
	}
	return a.readHandle(ctx, j, id)
}

func (a *Allocator) readHandle(ctx context.Context, j *job, id string) (*api.IPAMHandle, error) {
	delete(a.handles, id)
	h, err := a.getHandle(ctx, id)
	if err != nil {
		return nil, err
	}
	if h != nil {
		cidrs, err := handleBlocks(h)
		if err != nil {
			return nil, err
		}
		for _, cidr := range cidrs {
			if err := a.readBlock(ctx, cidr); err != nil {
				return nil, err
			}
		}
		a.handles[id] = h
	}
	j.fresh = false
	return h, nil
}

// readBlock reads a block into the cache.
func (a *Allocator) readBlock(ctx context.Context, cidr netip.Prefix) error {
	bl, ok, err := a.getBlock(ctx, cidr)
	if err != nil {
		return err
	}
	if ok {
		a.blocks[cidr] = bl
	} else {
		delete(a.blocks, cidr)
	}
	return nil
}

// block returns a block as the batch leaves it, else as it was last read, else as it is
// stored.
func (a *Allocator) block(ctx context.Context, b *batch, cidr netip.Prefix) (block, bool, error) {
	if bl, ok := b.block(cidr); ok {
		return bl, true, nil
	}
	if err := a.readBlock(ctx, cidr); err != nil {
		return block{}, false, err
	}
	bl, ok := a.blocks[cidr]
	return bl, ok, nil
}
