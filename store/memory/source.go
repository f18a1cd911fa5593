package memory

import (
	"cmp"
	"context"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Watch returns a Source of the objects of kinds, of all if there are none.
func (s *Store) Watch(kinds ...string) store.Source { return &source{store: s, kinds: kinds} }

type source struct {
	store *Store
	kinds []string
}

// reader is one Run: what has changed since its last Update.
type reader struct {
	kinds   []string
	changed map[store.Key]api.Object // guarded by the store's mutex
	bell    chan struct{}
}

func (r *reader) wants(k store.Key) bool {
	return len(r.kinds) == 0 || slices.Contains(r.kinds, k.Kind)
}

func (r *reader) tell(k store.Key, o api.Object) {
	if r.wants(k) {
		r.changed[k] = o
	}
}

func (r *reader) ring() {
	select {
	case r.bell <- struct{}{}:
	default: // it has rung already
	}
}

// Run hands on the snapshot and then what changes, coalesced if sink is slow: a commit's
// events always come together.
func (src *source) Run(ctx context.Context, sink func(store.Update)) error {
	s := src.store
	for _, k := range src.kinds {
		if err := (store.Key{Kind: k}).CheckKind(); err != nil {
			return err
		}
	}
	r := s.join(src.kinds)
	defer s.leave(r)
	for {
		select {
		case <-ctx.Done():
		case <-r.bell:
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		sink(s.take(r))
	}
}

// join adds a reader whose first Update is the whole snapshot.
func (s *Store) join(kinds []string) *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &reader{kinds: kinds, changed: map[store.Key]api.Object{}, bell: make(chan struct{}, 1)}
	for k, o := range s.objects {
		r.tell(k, o)
	}
	r.ring()
	s.readers[r] = true
	return r
}

func (s *Store) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, r)
}

func (s *Store) take(r *reader) store.Update {
	s.mu.Lock()
	changed, rev := r.changed, s.rev
	r.changed = map[store.Key]api.Object{}
	s.mu.Unlock()

	u := store.Update{Revision: rev, InSync: true}
	for k, o := range changed {
		u.Events = append(u.Events, store.Event{Key: k, Object: o})
	}
	slices.SortFunc(u.Events, func(a, b store.Event) int { return compareKeys(a.Key, b.Key) })
	return u
}

func compareKeys(a, b store.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
