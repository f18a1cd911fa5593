package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// change is what one job writes.
type change struct {
	before  []store.Op             // a release's extra ops
	grown   []*api.IPAMHandle      // handles to create or replace
	blocks  map[netip.Prefix]block // new contents
	dropped []*api.IPAMHandle      // handles to delete
	after   []store.Op             // an assignment's extra ops
	addrs   []netip.Addr           // the result
}

func (c *change) size() int {
	return len(c.before) + len(c.grown) + len(c.blocks) + len(c.dropped) + len(c.after)
}

// batch gathers the changes of several jobs for one commit. It shows the later ones what
// the earlier ones do to blocks.
type batch struct {
	a       *Allocator
	jobs    []*job
	changes []*change
	blocks  map[netip.Prefix]block
	keys    map[store.Key]*job // of handles and extra ops
	size    int
}

func newBatch(a *Allocator) *batch {
	return &batch{a: a, blocks: map[netip.Prefix]block{}, keys: map[store.Key]*job{}}
}

// block returns the block as the batch leaves it, else as it was last read; false if it
// was not.
func (b *batch) block(cidr netip.Prefix) (block, bool) {
	if bl, ok := b.blocks[cidr]; ok {
		return bl, true
	}
	bl, ok := b.a.blocks[cidr]
	return bl, ok
}

// writes tells whether an earlier job of the batch writes k, a handle or an extra op.
func (b *batch) writes(k store.Key) bool { _, ok := b.keys[k]; return ok }

// add takes the job's change into the batch unless it writes a key that an earlier one
// writes, or is too much.
func (b *batch) add(j *job, c *change) bool {
	if len(b.changes) > 0 && b.size+c.size() > maxOps {
		return false
	}
	keys := c.keys()
	if slices.ContainsFunc(keys, b.writes) {
		return false
	}
	if c.size() == 0 {
		j.finish(c.addrs, nil)
		return true
	}
	for _, k := range keys {
		b.keys[k] = j
	}
	for cidr, bl := range c.blocks {
		b.blocks[cidr] = bl
	}
	b.jobs, b.changes = append(b.jobs, j), append(b.changes, c)
	b.size += c.size()
	return true
}

// keys are those that only one job of a batch may write.
func (c *change) keys() []store.Key {
	var ks []store.Key
	for _, ops := range [][]store.Op{c.before, c.after} {
		for _, op := range ops {
			ks = append(ks, op.Key)
		}
	}
	for _, hs := range [][]*api.IPAMHandle{c.grown, c.dropped} {
		for _, h := range hs {
			ks = append(ks, store.KeyOf(h))
		}
	}
	return ks
}

// ops puts all changes in an order in which a store that is not atomic may stop anywhere:
// whoever holds an address has a handle that names its block.
func (b *batch) ops() []store.Op {
	var before, grown, blocks, dropped, after []store.Op
	for _, c := range b.changes {
		before = append(before, c.before...)
		for _, h := range c.grown {
			grown = append(grown, store.Replace(h))
		}
		for _, h := range c.dropped {
			dropped = append(dropped, store.Delete(store.KeyOf(h), api.Revision(h)))
		}
		after = append(after, c.after...)
	}
	for _, bl := range b.blocks {
		blocks = append(blocks, store.Replace(bl.obj))
	}
	var ops []store.Op
	for _, part := range [][]store.Op{before, grown, blocks, dropped, after} {
		ops = append(ops, part...)
	}
	return ops
}

func (b *batch) commit(ctx context.Context) error {
	_, err := b.a.store.Commit(ctx, b.ops())
	return err
}

// settle ends the jobs or returns those that must be tried again.
func (b *batch) settle(ctx context.Context, err error) []*job {
	if err == nil {
		b.keep()
		return nil
	}
	failed := (*store.OpError)(nil)
	partial := (*store.PartialError)(nil)
	if !errors.As(err, &failed) || errors.As(err, &partial) {
		b.forget() // what was written is not known
	}
	if failed == nil {
		return b.abort(ctx, err)
	}
	culprit := b.keys[failed.Key]
	switch {
	case culprit == nil: // a block
		if !conflict(err) {
			return b.abort(ctx, err)
		}
		b.a.loaded = b.a.loaded && b.a.reread(ctx, failed.Key) == nil
	case failed.Key.Kind == api.KindIPAMHandle.Name && conflict(err):
		culprit.fresh = true
		delete(b.a.handles, failed.Key.Name)
	default:
		culprit.extraTries++
		if culprit.fixed || !conflict(err) || culprit.extraTries >= maxExtraTries {
			culprit.finish(nil, err)
		}
	}
	return b.again(err)
}

// conflict tells whether err can be overcome by reading again.
func conflict(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound)
}

// keep remembers what was written and ends the jobs.
func (b *batch) keep() {
	for cidr, bl := range b.blocks {
		b.a.blocks[cidr] = bl
	}
	for i, c := range b.changes {
		for _, h := range c.grown {
			b.a.handles[h.Name] = h
		}
		for _, h := range c.dropped {
			delete(b.a.handles, h.Name)
		}
		b.jobs[i].finish(c.addrs, nil)
	}
}

// forget drops what the batch may have changed, or may change yet.
func (b *batch) forget() {
	b.a.loaded = false
	for cidr := range b.blocks {
		b.a.doubtBlocks(cidr)
	}
	for k, j := range b.keys {
		if k.Kind == api.KindIPAMHandle.Name {
			delete(b.a.handles, k.Name)
			j.fresh = true
		}
	}
}

// abort ends all jobs with err. If it is only the leader's time that is up the others
// try again, and the leader ends its own.
func (b *batch) abort(ctx context.Context, err error) []*job {
	if ctx.Err() != nil {
		return b.again(err)
	}
	for _, j := range b.jobs {
		j.finish(nil, err)
	}
	return nil
}

// again returns the jobs that are not done and may try again.
func (b *batch) again(err error) []*job {
	var js []*job
	for _, j := range b.jobs {
		if !j.isDone() && j.retry(err) {
			js = append(js, j)
		}
	}
	return js
}
