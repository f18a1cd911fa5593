// Package memory is a [store.Store] in memory, for tests and tools. Nothing outlives
// the process. It has no clock and starts no goroutine.
package memory

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Store holds objects in memory. Make one with [New].
type Store struct {
	// Now dates new objects; nil leaves creationTimestamp as it is given. Set it
	// before the first Commit.
	Now func() time.Time

	mu      sync.Mutex
	rev     store.Revision
	objects map[store.Key]api.Object // never written to once they are here
	readers map[*reader]bool
}

// New returns an empty store at revision 1, which is where etcd begins too.
func New() *Store {
	return &Store{rev: 1, objects: map[store.Key]api.Object{}, readers: map[*reader]bool{}}
}

// Get returns a copy of the object.
func (s *Store) Get(ctx context.Context, k store.Key) (api.Object, error) {
	if err := cmp.Or(ctx.Err(), k.Check()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	o, ok := s.objects[k]
	s.mu.Unlock()
	if !ok {
		return nil, &store.OpError{Key: k, Err: store.ErrNotFound}
	}
	return api.Clone(o), nil
}

// List returns copies of the objects of a kind.
func (s *Store) List(ctx context.Context, kind, namespace string) ([]api.Object, store.Revision, error) {
	if err := cmp.Or(ctx.Err(), (store.Key{Kind: kind, Namespace: namespace}).CheckKind()); err != nil {
		return nil, 0, err
	}
	found, rev := s.find(kind, namespace)
	slices.SortFunc(found, func(a, b api.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	for i, o := range found {
		found[i] = api.Clone(o)
	}
	return found, rev, nil
}

func (s *Store) find(kind, namespace string) ([]api.Object, store.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []api.Object
	for k, o := range s.objects {
		if k.Kind == kind && (namespace == "" || k.Namespace == namespace) {
			found = append(found, o)
		}
	}
	return found, s.rev
}

// Commit writes all ops or none.
func (s *Store) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if err := cmp.Or(ctx.Err(), store.CheckOps(ops)); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	writes := 0
	for _, op := range ops {
		old, ok := s.objects[op.Key]
		have := store.Revision(0)
		if ok {
			have = api.Revision(old)
		}
		if err := op.Compare(have); err != nil {
			return 0, err
		}
		if ok || op.Object != nil {
			writes++
		}
	}
	if writes > 0 {
		s.rev++
		s.write(ops)
	}
	return s.rev, nil
}

// write makes the changes, at revision s.rev, and tells the readers.
func (s *Store) write(ops []store.Op) {
	for _, op := range ops {
		old, ok := s.objects[op.Key]
		var now api.Object
		switch {
		case op.Object != nil:
			s.stamp(op, old)
			now = api.Clone(op.Object)
			s.objects[op.Key] = now
		case ok:
			delete(s.objects, op.Key)
		default:
			continue
		}
		for r := range s.readers {
			r.tell(op.Key, now)
		}
	}
	for r := range s.readers {
		r.ring()
	}
}

// stamp records in the object what the store decides: its revision, and for a new one
// its uid and age, which from then on stay.
func (s *Store) stamp(op store.Op, old api.Object) {
	o := op.Object
	api.SetRevision(o, s.rev)
	switch {
	case old != nil && o.GetUID() == "":
		o.SetUID(old.GetUID())
		o.SetCreationTimestamp(old.GetCreationTimestamp())
	case old == nil && (op.Revision == 0 || o.GetUID() == ""):
		o.SetUID(uuid.NewUUID())
		if s.Now != nil {
			o.SetCreationTimestamp(metav1.NewTime(s.Now().UTC()))
		}
	}
}
