package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/store"
)

// A commit whose outcome is not known (the datastore did not answer, the caller went
// away) may still be on its way, and take effect after whatever is done next: an address
// assigned to a pod that was given up, after its release. Each commit that gives an
// address out compares the revision of the address's block. So before anything else is
// planned such blocks are written once more, as they are then read: from that moment on
// the old commit has either been seen, or fails in its comparison for good.

// Suspect has the next call take all blocks of the node to have commits on their way. It
// is for a process whose predecessor was killed in the middle of an assignment.
func (a *Allocator) Suspect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.suspect = true
}

// doubtOwn puts the node's blocks in doubt if Suspect was called.
func (a *Allocator) doubtOwn() {
	a.mu.Lock()
	suspect := a.suspect
	a.suspect = false
	a.mu.Unlock()
	if suspect {
		a.doubtBlocks(a.ownCIDRs()...)
	}
}

func (a *Allocator) doubtBlocks(cidrs ...netip.Prefix) {
	for _, cidr := range cidrs {
		if !slices.Contains(a.doubt, cidr) {
			a.doubt = append(a.doubt, cidr)
		}
	}
}

// settleDoubt makes sure that no commit which compares a block in doubt is on its way.
func (a *Allocator) settleDoubt(ctx context.Context) error {
	for len(a.doubt) > 0 {
		ok, err := a.rewrite(ctx, a.doubt[0])
		if err != nil {
			return err
		}
		if ok {
			a.doubt = a.doubt[1:]
		}
	}
	return nil
}

// rewrite writes a block with what is in it; false if it changed meanwhile.
func (a *Allocator) rewrite(ctx context.Context, cidr netip.Prefix) (bool, error) {
	b, ok, err := a.getBlock(ctx, cidr)
	if err != nil && !errors.Is(err, store.ErrInvalid) {
		return false, err
	}
	if !ok { // it is gone, or not what the commit compares: somebody else wrote it
		delete(a.blocks, cidr)
		return true, nil
	}
	b = b.clone()
	b.obj.Spec.SequenceNumber++
	if _, err = a.store.Commit(ctx, []store.Op{store.Replace(b.obj)}); conflict(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, known := a.blocks[cidr]; known {
		a.blocks[cidr] = b
	}
	return true, nil
}
