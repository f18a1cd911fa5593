package reconcile

import (
	"context"
	"errors"
	"maps"
)

// Table holds the wanted and the known actual objects of one kind. It is for one
// goroutine at a time.
//
// It reads the kernel when it does not know it: first of all, after [Table.Resync] and
// after a failed Apply. Then it compares everything once; later it looks only at keys that were
// touched since.
type Table[K comparable, V any] struct {
	kernel Kernel[K, V]
	equal  func(have, want V) bool
	want   map[K]V
	have   map[K]V        // nil: not known
	dirty  map[K]struct{} // keys that may differ; without meaning while have is nil
	doubt  map[K]struct{} // keys of dirty whose last Apply failed: have may be wrong about them
	stats  Stats
}

// Stats counts what a Table asked of its Kernel.
type Stats struct {
	Lists  uint64 // times that all was read back
	Set    uint64 // objects handed to Apply to be set
	Del    uint64 // objects handed to Apply to be deleted
	Failed uint64 // objects whose Apply failed
}

// Writes is how many objects were handed to Apply.
func (s Stats) Writes() uint64 { return s.Set + s.Del }

// Plus adds counts.
func (s Stats) Plus(o Stats) Stats {
	return Stats{s.Lists + o.Lists, s.Set + o.Set, s.Del + o.Del, s.Failed + o.Failed}
}

// NewTable returns an empty table. equal tells whether what the kernel has is what is
// wanted; its arguments are not alike where a wanted value leaves something to the kernel.
func NewTable[K comparable, V any](k Kernel[K, V], equal func(have, want V) bool) *Table[K, V] {
	return &Table[K, V]{
		kernel: k, equal: equal,
		want: map[K]V{}, dirty: map[K]struct{}{}, doubt: map[K]struct{}{},
	}
}

// Set has the object of key k be v.
func (t *Table[K, V]) Set(k K, v V) {
	t.want[k] = v
	t.dirty[k] = struct{}{}
}

// Delete has there be no object of key k.
func (t *Table[K, V]) Delete(k K) {
	delete(t.want, k)
	t.dirty[k] = struct{}{}
}

// Replace has the objects be those of m, and no others.
func (t *Table[K, V]) Replace(m map[K]V) {
	for k := range t.want {
		if _, ok := m[k]; !ok {
			t.Delete(k)
		}
	}
	for k, v := range m {
		t.Set(k, v)
	}
}

// Want returns what is wanted of key k.
func (t *Table[K, V]) Want(k K) (V, bool) {
	v, ok := t.want[k]
	return v, ok
}

// Len is the number of objects wanted.
func (t *Table[K, V]) Len() int { return len(t.want) }

// Pending is the number of keys that the next Sync has to look at, as far as is known.
func (t *Table[K, V]) Pending() int { return len(t.dirty) }

// Stats returns the counts since the table was made.
func (t *Table[K, V]) Stats() Stats { return t.stats }

// Resync distrusts what is remembered of the kernel: it is read back next time.
func (t *Table[K, V]) Resync() { t.have = nil }

// Sync sets and deletes what differs in one Apply, for kernels with transactions.
func (t *Table[K, V]) Sync(ctx context.Context) error {
	if err := t.read(ctx); err != nil {
		return err
	}
	return t.apply(ctx, t.toSet(), t.toDel())
}

// Grow sets what differs; see [Sequence].
func (t *Table[K, V]) Grow(ctx context.Context) error {
	if err := t.read(ctx); err != nil {
		return err
	}
	return t.apply(ctx, t.toSet(), nil)
}

// Shrink deletes what is not wanted; see [Sequence].
func (t *Table[K, V]) Shrink(ctx context.Context) error {
	if err := t.read(ctx); err != nil {
		return err
	}
	return t.apply(ctx, nil, t.toDel())
}

// read learns what the kernel has, where that is not known, and which keys differ.
func (t *Table[K, V]) read(ctx context.Context) error {
	if t.have != nil && !t.doubtful() {
		return nil
	}
	t.stats.Lists++
	have, err := t.kernel.List(ctx)
	if err != nil {
		t.have = nil
		return err
	}
	if have == nil {
		have = map[K]V{}
	}
	t.have = have
	clear(t.dirty)
	clear(t.doubt)
	for k, v := range t.want {
		if old, ok := have[k]; !ok || !t.equal(old, v) {
			t.dirty[k] = struct{}{}
		}
	}
	for k := range have {
		if _, ok := t.want[k]; !ok {
			t.dirty[k] = struct{}{}
		}
	}
	return nil
}

// doubtful tells whether a key in doubt is no longer wanted. What is wanted can be set
// whatever there is; to delete, one must know what there is.
func (t *Table[K, V]) doubtful() bool {
	for k := range t.doubt {
		if _, ok := t.want[k]; !ok {
			return true
		}
	}
	return false
}

func (t *Table[K, V]) toSet() map[K]V {
	set := map[K]V{}
	for k := range t.dirty {
		want, wanted := t.want[k]
		if !wanted {
			continue
		}
		_, doubt := t.doubt[k]
		if old, ok := t.have[k]; ok && !doubt && t.equal(old, want) {
			delete(t.dirty, k)
		} else {
			set[k] = want
		}
	}
	return set
}

func (t *Table[K, V]) toDel() map[K]V {
	del := map[K]V{}
	for k := range t.dirty {
		if _, wanted := t.want[k]; wanted {
			continue
		}
		if old, ok := t.have[k]; ok {
			del[k] = old
		} else {
			delete(t.dirty, k)
		}
	}
	return del
}

func (t *Table[K, V]) apply(ctx context.Context, set, del map[K]V) error {
	if len(set)+len(del) == 0 {
		return nil
	}
	t.stats.Set += uint64(len(set))
	t.stats.Del += uint64(len(del))
	// The Kernel may keep or change the maps that it is given.
	err := t.kernel.Apply(ctx, maps.Clone(set), maps.Clone(del))
	var failed KeyErrors[K]
	if err != nil && !errors.As(err, &failed) {
		t.have = nil
		t.stats.Failed += uint64(len(set) + len(del))
		return err
	}
	for k, v := range set {
		t.settle(k, failed, func() { t.have[k] = v })
	}
	for k := range del {
		t.settle(k, failed, func() { delete(t.have, k) })
	}
	return err
}

// settle notes what became of key k: done as asked, or in doubt.
func (t *Table[K, V]) settle(k K, failed KeyErrors[K], done func()) {
	if _, bad := failed[k]; bad {
		t.doubt[k] = struct{}{}
		t.stats.Failed++
		return
	}
	delete(t.doubt, k)
	delete(t.dirty, k)
	done()
}

var _ Stage = (*Table[int, int])(nil)
