package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// Request asks for addresses.
type Request struct {
	// Handle names the owner. The same handle gets the same addresses again.
	Handle string
	// Families it needs one address of, in the order of the answer.
	Families []dataplane.Family
	// Pools to take them from, in order, of whatever family; see SelectPools. Those
	// that do not allow Use are passed over.
	Pools []*api.IPPool
	// Addrs are wanted instead of whichever is free, at most one a family. Each must
	// lie in one of Pools. Their families need not be listed in Families.
	Addrs []netip.Addr
	// Attrs are kept with the addresses: api.AttrNode, api.AttrNamespace and so on.
	Attrs map[string]string
	// Use is Workload if empty.
	Use api.IPPoolUse
	// MaxBlocks lowers the number of blocks of a family that the node may have; 0
	// leaves it at what IPAMConfiguration says.
	MaxBlocks int
	Now       time.Time
}

// Allocator gives out addresses for one node. It is safe for concurrent use. It keeps
// what it read and wrote of this node's blocks and handles; what others change under it
// shows as a failed comparison, upon which it reads again.
type Allocator struct {
	store store.Store
	node  string

	turn    chan struct{} // holds one value while somebody plans and commits
	mu      sync.Mutex
	wait    []*job // guarded by mu
	suspect bool   // guarded by mu: Suspect was called

	// What follows belongs to whoever has the turn.
	loaded   bool
	settings settings
	blocks   map[netip.Prefix]block // this node's, and those it borrowed from
	space    space
	handles  map[string]*api.IPAMHandle
	doubt    []netip.Prefix // blocks that a commit of unknown outcome may still write
}

// NewAllocator returns an Allocator for the node with the given name.
func NewAllocator(s store.Store, node string) *Allocator {
	return &Allocator{store: s, node: node, turn: make(chan struct{}, 1)}
}

// Assign gives the handle of r the addresses it needs: those it has, and further ones
// for families of which it has none; all or none. Block, handle and the ops that extra
// returns for the addresses are written in one commit. Extra may be nil. It is called
// anew for each try, maybe in another goroutine but never after Assign has returned.
//
// If ctx ends or the datastore fails, the addresses may or may not be assigned: a
// further Assign gives the same ones, Release frees them, even if the commit takes effect
// only while Release runs; see doubt.go.
//
// Errors: ErrInvalid, ErrNoPool, ErrPoolFull (a [PoolFullError]), ErrTaken, those of
// extra and those of the store.
func (a *Allocator) Assign(ctx context.Context, r Request, extra func([]netip.Addr) ([]store.Op, error)) ([]netip.Addr, error) {
	p, err := parseRequest(r)
	if err != nil {
		return nil, err
	}
	j := &job{now: r.Now, extra: extra, done: make(chan struct{})}
	j.stage = func(ctx context.Context, b *batch) (*change, error) { return a.stageAssign(ctx, b, j, p) }
	if err := a.submit(ctx, j); err != nil {
		return nil, fmt.Errorf("assign addresses to %s: %w", r.Handle, err)
	}
	return j.addrs, nil
}

// Release takes all addresses from a handle and deletes it, in one commit with the extra
// ops. The addresses rest from now on. A handle that is not there is no error; the extra
// ops are committed all the same.
func (a *Allocator) Release(ctx context.Context, handle string, now time.Time, extra ...store.Op) error {
	if err := errors.Join(checkHandle(handle), checkNow(now)); err != nil {
		return err
	}
	j := &job{now: now, fixed: true, done: make(chan struct{})}
	j.stage = func(ctx context.Context, b *batch) (*change, error) { return a.stageRelease(ctx, b, j, handle, extra) }
	if err := a.submit(ctx, j); err != nil {
		return fmt.Errorf("release addresses of %s: %w", handle, err)
	}
	return nil
}

// ReleaseAddrs takes addresses from whoever has them, 64 in a commit. It returns those
// that somebody had.
func (a *Allocator) ReleaseAddrs(ctx context.Context, addrs []netip.Addr, now time.Time) ([]netip.Addr, error) {
	var as []Allocation
	for _, addr := range addrs {
		as = append(as, Allocation{Addr: addr.Unmap()})
	}
	return a.ReleaseAllocations(ctx, as, now)
}

// Allocation is an address and who holds it.
type Allocation struct {
	Addr   netip.Addr
	Handle string
	// Sequence differs from one assignment of the address to the next, even to the
	// same handle.
	Sequence uint64
}

// ReleaseAllocations takes addresses from those who have them, 64 in a commit, and
// returns those taken. An allocation that has a handle or a sequence number stands only
// for that one; if the address has passed to another since, it is left alone.
func (a *Allocator) ReleaseAllocations(ctx context.Context, as []Allocation, now time.Time) ([]netip.Addr, error) {
	if err := checkNow(now); err != nil {
		return nil, err
	}
	var taken []netip.Addr
	for part := range slices.Chunk(as, 64) {
		j := &job{now: now, done: make(chan struct{})}
		j.stage = func(ctx context.Context, b *batch) (*change, error) { return a.stageReleaseAddrs(ctx, b, j, part) }
		if err := a.submit(ctx, j); err != nil {
			return taken, fmt.Errorf("release %d addresses from %v on: %w", len(part), part[0].Addr, err)
		}
		taken = append(taken, j.addrs...)
	}
	return taken, nil
}

// ByHandle returns the addresses that the handle holds, read from the datastore, in
// order; none if there is no such handle.
func (a *Allocator) ByHandle(ctx context.Context, handle string) ([]netip.Addr, error) {
	as, err := a.Allocations(ctx, handle)
	var addrs []netip.Addr
	for _, al := range as {
		addrs = append(addrs, al.Addr)
	}
	return addrs, err
}

// Allocations is ByHandle with the sequence numbers.
func (a *Allocator) Allocations(ctx context.Context, handle string) ([]Allocation, error) {
	if err := checkHandle(handle); err != nil {
		return nil, err
	}
	as, err := a.allocations(ctx, handle)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", handle, err)
	}
	return as, nil
}

func (a *Allocator) allocations(ctx context.Context, handle string) ([]Allocation, error) {
	h, err := a.getHandle(ctx, handle)
	if h == nil || err != nil {
		return nil, err
	}
	cidrs, err := handleBlocks(h)
	if err != nil {
		return nil, err
	}
	var as []Allocation
	for _, cidr := range cidrs {
		b, ok, err := a.getBlock(ctx, cidr)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		for _, ord := range b.held(handle) {
			as = append(as, Allocation{addrAt(cidr, ord), handle, b.sequence(ord)})
		}
	}
	return as, nil
}

// getHandle reads a handle; nil if there is none.
func (a *Allocator) getHandle(ctx context.Context, id string) (*api.IPAMHandle, error) {
	o, err := a.store.Get(ctx, handleKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h, ok := o.(*api.IPAMHandle)
	if !ok {
		return nil, fmt.Errorf("%w: %v is stored as a %T", store.ErrInvalid, handleKey(id), o)
	}
	return h, nil
}

// getBlock reads a block; false if there is none.
func (a *Allocator) getBlock(ctx context.Context, cidr netip.Prefix) (block, bool, error) {
	k := store.Key{Kind: api.KindIPAMBlock.Name, Name: BlockName(cidr)}
	o, err := a.store.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return block{}, false, nil
	}
	if err != nil {
		return block{}, false, err
	}
	ob, ok := o.(*api.IPAMBlock)
	if !ok {
		return block{}, false, fmt.Errorf("%w: %v is stored as a %T", store.ErrInvalid, k, o)
	}
	b, err := parseBlock(ob)
	if err != nil {
		return block{}, false, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return b, true, nil
}
