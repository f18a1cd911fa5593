package watch

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Cache holds the present objects of some kinds as a Source gave them. It is safe for
// concurrent use; its objects are shared and never written to.
type Cache struct {
	kinds []string

	mu     sync.RWMutex
	byKind map[string]map[store.Key]api.Object
	rev    store.Revision
	synced chan struct{} // closed once the snapshot is complete
	done   bool
}

// NewCache returns an empty cache of the given kinds.
func NewCache(kinds ...string) *Cache {
	c := &Cache{kinds: kinds, byKind: map[string]map[store.Key]api.Object{}, synced: make(chan struct{})}
	for _, k := range kinds {
		c.byKind[k] = map[store.Key]api.Object{}
	}
	return c
}

// Update takes over what a Source says. It is a sink of [store.Source].
func (c *Cache) Update(u store.Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range u.Events {
		m := c.byKind[e.Key.Kind]
		switch {
		case m == nil: // not one of ours
		case e.Object == nil:
			delete(m, e.Key)
		default:
			m[e.Key] = e.Object
		}
	}
	c.rev = u.Revision
	if u.InSync && !c.done {
		c.done = true
		close(c.synced)
	}
}

// Get returns the object, if the cache has it.
func (c *Cache) Get(k store.Key) (api.Object, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	o, ok := c.byKind[k.Kind][k]
	return o, ok
}

// List returns the objects of a kind, ordered by namespace and name.
func (c *Cache) List(kind string) []api.Object {
	c.mu.RLock()
	all := make([]api.Object, 0, len(c.byKind[kind]))
	for _, o := range c.byKind[kind] {
		all = append(all, o)
	}
	c.mu.RUnlock()
	slices.SortFunc(all, func(a, b api.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return all
}

// Objects returns the objects of kind k as their own type.
func Objects[T api.Object](c *Cache, k *api.Kind) []T {
	all := c.List(k.Name)
	ts := make([]T, 0, len(all))
	for _, o := range all {
		ts = append(ts, o.(T))
	}
	return ts
}

// Synced is closed once the cache holds a whole snapshot.
func (c *Cache) Synced() <-chan struct{} { return c.synced }

// Revision is the datastore's revision that the cache shows.
func (c *Cache) Revision() store.Revision {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.rev
}

// Tee returns a Source that hands everything src says to each of first, in order, before
// its own sink: one connection to the datastore serves a whole node.
func Tee(src store.Source, first ...func(store.Update)) store.Source {
	return tee{src, first}
}

type tee struct {
	src   store.Source
	first []func(store.Update)
}

func (t tee) Run(ctx context.Context, sink func(store.Update)) error {
	return t.src.Run(ctx, func(u store.Update) {
		for _, f := range t.first {
			f(u)
		}
		sink(u)
	})
}
