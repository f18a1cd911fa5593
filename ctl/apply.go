package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Options are how objects are written.
type Options struct {
	// SkipExists makes it no error to create what exists; it stays as it is.
	SkipExists bool
	// SkipNotExists makes it no error to delete what does not exist.
	SkipNotExists bool
	// Reserved allows names that stand for objects of Kubernetes: profiles kns.* and
	// ksa.*, policies knp.default.*.
	Reserved bool
}

// Change says what became of an object.
type Change string

const (
	Created   Change = "created"
	Replaced  Change = "replaced"
	Unchanged Change = "unchanged" // it already was as it is wanted
	Deleted   Change = "deleted"
	Skipped   Change = "skipped" // Options asked for it
)

// Result is what became of one object.
type Result struct {
	Key    store.Key
	Change Change
}

// Apply creates the objects, or replaces those that exist. They are defaulted, and checked
// all together, before any is written. Up to 128 are written in one commit; if a later
// commit fails, the results are those of the commits before, in the order of objects.
//
// An object whose metadata has a resourceVersion is replaced only if that is still the
// stored one; else what others write at the same time is no error. The status of a
// stored object is kept.
func Apply(ctx context.Context, st store.Store, objects []api.Object, o Options) ([]Result, error) {
	return run(ctx, st, verbApply, objects, o)
}

// Create is Apply for objects that must not exist. Their resourceVersion is ignored.
func Create(ctx context.Context, st store.Store, objects []api.Object, o Options) ([]Result, error) {
	return run(ctx, st, verbCreate, objects, o)
}

// Replace is Apply for objects that must exist.
func Replace(ctx context.Context, st store.Store, objects []api.Object, o Options) ([]Result, error) {
	return run(ctx, st, verbReplace, objects, o)
}

// Delete deletes objects, of which only kind, namespace and name are looked at, after it
// has checked all.
func Delete(ctx context.Context, st store.Store, objects []api.Object, o Options) ([]Result, error) {
	return run(ctx, st, verbDelete, objects, o)
}

// Validate defaults and checks objects as far as that goes without a datastore.
func Validate(objects []api.Object, o Options) error {
	return checkAll(verbValidate, objects, o)
}

// A verb is what is done with objects. Its values are the words of the command line.
type verb string

const (
	verbApply    verb = "apply"
	verbCreate   verb = "create"
	verbReplace  verb = "replace"
	verbDelete   verb = "delete"
	verbValidate verb = "validate"
)

// done is what has happened to an object after the verb.
func (v verb) done() string {
	switch v {
	case verbApply:
		return "applied"
	case verbValidate:
		return "validated"
	}
	return string(v) + "d"
}

const (
	batchSize = 128 // of a commit: what etcd takes, if it was not told otherwise
	attempts  = 10  // to write what others write at the same time
)

// request is one call of Apply and the like.
type request struct {
	st      store.Store
	verb    verb
	options Options
	objects []api.Object // that are not yet written
	results []Result
	try     int // from 1
}

func run(ctx context.Context, st store.Store, v verb, objects []api.Object, o Options) ([]Result, error) {
	if err := checkAll(v, objects, o); err != nil {
		return nil, err
	}
	r := &request{st: st, verb: v, options: o, objects: objects}
	for r.try = 1; ; r.try++ {
		steps, err := r.plan(ctx)
		if err != nil {
			return r.results, err
		}
		err = r.commit(ctx, steps)
		switch {
		case err == nil:
			return r.results, nil
		case !raced(err):
			return r.results, err
		case r.try == attempts:
			return r.results, fmt.Errorf("%w, %d times in a row: try again", err, attempts)
		}
	}
}

// raced tells whether a commit failed because the store is no longer what it was when the
// commit was planned.
func raced(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound)
}

// step is what is to be done with one object.
type step struct {
	op     store.Op // unless change says that nothing is to be written
	change Change
}

func (s step) writes() bool { return s.change != Unchanged && s.change != Skipped }

// commit takes the steps, which are for r.objects, batch by batch.
func (r *request) commit(ctx context.Context, steps []step) error {
	for len(steps) > 0 {
		batch := steps[:min(len(steps), batchSize)]
		var ops []store.Op
		for _, s := range batch {
			if s.writes() {
				ops = append(ops, s.op)
			}
		}
		if len(ops) > 0 {
			if _, err := r.st.Commit(ctx, ops); err != nil {
				return err
			}
		}
		for i, s := range batch {
			r.results = append(r.results, Result{Key: store.KeyOf(r.objects[i]), Change: s.change})
		}
		r.objects, steps = r.objects[len(batch):], steps[len(batch):]
	}
	return nil
}
