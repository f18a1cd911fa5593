package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// plan reads what the store has, and says what is to be done with each of r.objects. It
// is an error if anything stands against any of them.
func (r *request) plan(ctx context.Context) ([]step, error) {
	stored, err := r.lookUp(ctx)
	if err != nil {
		return nil, err
	}
	steps := make([]step, len(r.objects))
	for i, o := range r.objects {
		s, err := r.step(o, stored[store.KeyOf(o)])
		if err != nil {
			return nil, err
		}
		steps[i] = s
	}
	if r.verb == verbDelete {
		return steps, tiersAreEmpty(ctx, r.st, r.objects)
	}
	if err := poolsAreApart(ctx, r.st, r.objects); err != nil {
		return nil, err
	}
	return steps, tiersExist(ctx, r.st, r.objects)
}

// found is what the store has of a key.
type found struct {
	object   api.Object // nil if what is there cannot be read
	revision store.Revision
}

// few is how many objects of a kind are got one by one rather than listed.
const few = 8

// lookUp reads what the store has of the keys of r.objects. Keys that it does not have are
// left out.
func (r *request) lookUp(ctx context.Context) (map[store.Key]found, error) {
	byKind := map[string][]store.Key{}
	for _, o := range r.objects {
		k := store.KeyOf(o)
		byKind[k.Kind] = append(byKind[k.Kind], k)
	}
	all := make(map[store.Key]found, len(r.objects))
	for kind, keys := range byKind {
		if len(keys) > few {
			if err := r.list(ctx, kind, all); err != nil {
				return nil, err
			}
			if r.listSuffices() {
				continue
			}
		}
		for _, k := range keys {
			if err := r.get(ctx, k, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// listSuffices tells whether what a List does not have needs no second look, though a List
// leaves out what cannot be read: where we create it, the commit will fail, and the next
// look is closer.
func (r *request) listSuffices() bool {
	return r.try == 1 && (r.verb == verbApply || r.verb == verbCreate)
}

func (r *request) list(ctx context.Context, kind string, all map[store.Key]found) error {
	list, _, err := r.st.List(ctx, kind, "")
	for _, o := range list {
		all[store.KeyOf(o)] = found{o, api.Revision(o)}
	}
	return err
}

// get adds what the store has of k to all, unless it is there.
func (r *request) get(ctx context.Context, k store.Key, all map[store.Key]found) error {
	if _, ok := all[k]; ok {
		return nil
	}
	o, err := r.st.Get(ctx, k)
	switch {
	case errors.Is(err, store.ErrInvalid):
		all[k] = found{nil, store.AnyRevision}
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	default:
		all[k] = found{o, api.Revision(o)}
	}
	return nil
}

// step says what is to be done with o, given what is stored.
func (r *request) step(o api.Object, f found) (step, error) {
	k, there := store.KeyOf(o), f != found{}
	switch {
	case r.verb == verbDelete && there:
		return step{store.Delete(k, f.revision), Deleted}, nil
	case r.verb == verbDelete && r.options.SkipNotExists:
		return step{change: Skipped}, nil
	case r.verb == verbCreate && there && r.options.SkipExists:
		return step{change: Skipped}, nil
	case r.verb == verbCreate && there:
		return step{}, exists(k)
	case !there && (r.verb == verbDelete || r.verb == verbReplace):
		return step{}, notFound(k)
	case !there:
		return step{store.Create(o), Created}, nil
	}
	return replacement(o, f)
}

// replacement says what is to be done with o where f is stored.
func replacement(o api.Object, f found) (step, error) {
	op := store.Op{Key: store.KeyOf(o), Object: o, Revision: f.revision}
	if f.object == nil {
		return step{op, Replaced}, nil
	}
	if v := o.GetResourceVersion(); v != "" && v != f.object.GetResourceVersion() {
		return step{}, fmt.Errorf("%w: resourceVersion %s is out of date, the latest is %s: get the object again, or leave the field out to overwrite it",
			conflict(op.Key), v, f.object.GetResourceVersion())
	}
	if err := unchangeable(f.object, o); err != nil {
		return step{}, err
	}
	keep(f.object, o)
	if same(f.object, o) {
		return step{op, Unchanged}, nil
	}
	return step{op, Replaced}, nil
}

// keep gives o what is not the user's to say of the stored object that it replaces.
func keep(stored, o api.Object) {
	o.SetUID(stored.GetUID())
	o.SetCreationTimestamp(stored.GetCreationTimestamp())
	was, is := reflect.ValueOf(stored).Elem().FieldByName("Status"), reflect.ValueOf(o).Elem().FieldByName("Status")
	if is.IsValid() && is.CanSet() {
		is.Set(was)
	}
}

// same tells whether two objects differ in nothing but their revision.
func same(a, b api.Object) bool {
	version := b.GetResourceVersion()
	b.SetResourceVersion(a.GetResourceVersion())
	defer b.SetResourceVersion(version)
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// poolsAreApart checks that no pool among objects overlaps another, given or stored.
func poolsAreApart(ctx context.Context, st store.Store, objects []api.Object) error {
	given := map[string]*api.IPPool{}
	for _, o := range objects {
		if p, ok := o.(*api.IPPool); ok {
			given[p.Name] = p
		}
	}
	if len(given) == 0 {
		return nil
	}
	stored, _, err := st.List(ctx, api.KindIPPool.Name, "")
	if err != nil {
		return err
	}
	var others []*api.IPPool
	for _, o := range stored {
		if p := o.(*api.IPPool); given[p.Name] == nil {
			others = append(others, p)
		}
	}
	for _, o := range objects { // others may overlap each other: that is not of today
		p, ok := o.(*api.IPPool)
		if !ok {
			continue
		}
		for _, other := range others {
			if err := api.OverlappingPools([]*api.IPPool{p, other}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tiersExist checks that the tier of each policy among objects is among them, stored, or
// one that every cluster has.
func tiersExist(ctx context.Context, st store.Store, objects []api.Object) error {
	known := map[string]bool{"": true}
	for _, o := range objects {
		if api.KindOf(o) == api.KindTier {
			known[o.GetName()] = true
		}
	}
	for _, o := range objects {
		tier := tierOf(o)
		if known[tier] || api.IsBuiltInTier(tier) {
			continue
		}
		switch _, err := st.Get(ctx, store.Key{Kind: api.KindTier.Name, Name: tier}); {
		case errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("%v: spec.tier: there is no tier %s: create it first", store.KeyOf(o), tier)
		case err != nil && !errors.Is(err, store.ErrInvalid):
			return err
		}
		known[tier] = true
	}
	return nil
}

// tiersAreEmpty checks that every policy of a tier among objects, which are to be deleted,
// is among them too.
func tiersAreEmpty(ctx context.Context, st store.Store, objects []api.Object) error {
	going, tiers := map[store.Key]bool{}, map[string]bool{}
	for _, o := range objects {
		going[store.KeyOf(o)] = true
		if api.KindOf(o) == api.KindTier {
			tiers[o.GetName()] = true
		}
	}
	if len(tiers) == 0 {
		return nil
	}
	for _, kind := range []*api.Kind{api.KindNetworkPolicy, api.KindGlobalNetworkPolicy} {
		policies, _, err := st.List(ctx, kind.Name, "")
		if err != nil {
			return err
		}
		for _, p := range policies {
			if tier := tierOf(p); tiers[tier] && !going[store.KeyOf(p)] {
				return fmt.Errorf("Tier(%s): %v belongs to it: delete the policies of a tier first", tier, store.KeyOf(p))
			}
		}
	}
	return nil
}
