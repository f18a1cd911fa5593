package store

import (
	"fmt"
	"reflect"

	"github.com/calicogo/calico/api"
)

// Check says why k can name no object; nil if it can. Its error is an [OpError] that is
// ErrInvalid.
func (k Key) Check() error {
	if err := k.CheckKind(); err != nil {
		return err
	}
	kind, _ := api.KindNamed(k.Kind)
	switch {
	case k.Name == "":
		return k.invalid("the name is missing")
	case kind.Namespaced && k.Namespace == "":
		return k.invalid("the namespace is missing")
	}
	return nil
}

// CheckKind is Check for a key that stands for many objects: all of its kind or, if it
// has a namespace, those of the namespace.
func (k Key) CheckKind() error {
	kind, ok := api.KindNamed(k.Kind)
	switch {
	case !ok:
		return k.invalid("no such kind")
	case !kind.Namespaced && k.Namespace != "":
		return k.invalid("objects of this kind have no namespace")
	}
	return nil
}

// CheckOps says why ops can be no Commit, whatever the datastore holds: a key that names
// nothing, an object that is not what its key says, a key written twice. Every Store
// refuses the same ops. Its error is an [OpError] that is ErrInvalid.
func CheckOps(ops []Op) error {
	seen := make(map[Key]bool, len(ops))
	for _, op := range ops {
		if err := op.check(); err != nil {
			return err
		}
		if seen[op.Key] {
			return op.Key.invalid("named by two ops of one commit")
		}
		seen[op.Key] = true
	}
	return nil
}

func (op Op) check() error {
	if err := op.Key.Check(); err != nil {
		return err
	}
	if op.Revision < AnyRevision {
		return op.Key.invalid("revision %d: want a revision, 0 or AnyRevision", op.Revision)
	}
	if op.Object == nil {
		return nil
	}
	got := Key{op.Object.GetObjectKind().GroupVersionKind().Kind, op.Object.GetNamespace(), op.Object.GetName()}
	if got != op.Key {
		return op.Key.invalid("the object is %v", got)
	}
	kind, _ := api.KindNamed(got.Kind)
	if want := kind.New(); reflect.TypeOf(op.Object) != reflect.TypeOf(want) {
		return op.Key.invalid("the object is a %T, want a %T", op.Object, want)
	}
	return nil
}

func (k Key) invalid(format string, args ...any) error {
	return &OpError{Key: k, Err: fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))}
}

// Compare says whether an op that wants revision want may go ahead where the object's
// revision is have, 0 meaning that there is none; if not it returns an [OpError].
func (op Op) Compare(have Revision) error {
	var err error
	switch {
	case op.Revision == AnyRevision || op.Revision == have:
		return nil
	case op.Revision == 0:
		err = ErrExists
	case have == 0:
		err = ErrNotFound
	default:
		err = ErrConflict
	}
	return &OpError{Key: op.Key, Err: err}
}
