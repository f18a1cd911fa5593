// Package store says what a datastore of Calico is: keys, events, compare-and-swap
// commits and the contract of a Source. It holds no implementation and does no I/O;
// see store/memory and store/etcd.
package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/calicogo/calico/api"
)

// Key names one object.
type Key struct {
	Kind      string // [api.Kind].Name
	Namespace string // empty for cluster-wide kinds
	Name      string
}

// KeyOf returns the key of o.
func KeyOf(o api.Object) Key {
	return Key{Kind: api.KindOf(o).Name, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (k Key) String() string {
	if k.Namespace == "" {
		return fmt.Sprintf("%s(%s)", k.Kind, k.Name)
	}
	return fmt.Sprintf("%s(%s/%s)", k.Kind, k.Namespace, k.Name)
}

// Revision counts the changes of a datastore. It only grows. The revision of an object
// is that of its last change; see [api.Revision].
type Revision = int64

// Event is a key and its present value. Events may be coalesced or repeated; nothing may
// depend on an event's kind or on the order of events of different keys.
type Event struct {
	Key    Key
	Object api.Object // nil: there is none. Shared between readers: never written to.
}

// Update is a step of a Source: after Events the view equals the datastore at Revision,
// as far as the kinds asked for go.
type Update struct {
	Events   []Event
	Revision Revision // never smaller than in an earlier Update
	InSync   bool     // false only until the first snapshot is complete
}

// Source gives the present contents of a datastore and then its changes.
type Source interface {
	// Run calls sink with the snapshot and then with every change, in one goroutine,
	// until ctx ends; it returns ctx's error, or another if it cannot go on at all.
	// It outlives lost connections: after one it compares and hands on what differs,
	// absences included. It never goes backwards: what is older than what it already
	// handed on is refused.
	Run(ctx context.Context, sink func(Update)) error
}

// AnyRevision in an [Op] means that the object is written whatever is there.
const AnyRevision Revision = -1

// Op is one write of a Commit.
type Op struct {
	Key    Key
	Object api.Object // nil deletes
	// Revision is what the object's revision must be: 0 if it must not exist yet,
	// AnyRevision if that does not matter. Deleting what is absent at AnyRevision is
	// no error.
	Revision Revision
}

// Create, Put, Replace and Delete make the usual Ops.
func Create(o api.Object) Op { return Op{Key: KeyOf(o), Object: o} }

// Put writes o whatever is there.
func Put(o api.Object) Op { return Op{Key: KeyOf(o), Object: o, Revision: AnyRevision} }

// Replace writes o if the stored object is still the one o was read from: the Op's
// Revision is o's own.
func Replace(o api.Object) Op { return Op{Key: KeyOf(o), Object: o, Revision: api.Revision(o)} }

// Delete deletes the object if its revision is rev.
func Delete(k Key, rev Revision) Op { return Op{Key: k, Revision: rev} }

// Store is a datastore. Objects that it returns belong to the caller.
type Store interface {
	// Get returns the object, or an error that is ErrNotFound.
	Get(ctx context.Context, k Key) (api.Object, error)
	// List returns the objects of a kind ordered by namespace and name, of one
	// namespace if it is not empty, and the revision at which they were read.
	List(ctx context.Context, kind, namespace string) ([]api.Object, Revision, error)
	// Commit writes all ops or none (a store that cannot says how far it came with a
	// [PartialError]). It returns the revision of the write and records it in the
	// objects written. The error of a failed comparison is an [OpError].
	Commit(ctx context.Context, ops []Op) (Revision, error)
	// Watch returns a Source of the objects of the given kinds, of all kinds if none
	// is given.
	Watch(kinds ...string) Source
}

// Errors that callers branch on; see errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("already exists")
	ErrConflict    = errors.New("changed by someone else")
	ErrUnavailable = errors.New("datastore unavailable")
	ErrForbidden   = errors.New("forbidden")
	ErrInvalid     = errors.New("invalid")
)

// OpError says which op of a Commit failed, and why: Err is ErrExists, ErrNotFound or
// ErrConflict, ErrInvalid or ErrForbidden.
type OpError struct {
	Key Key
	Err error
}

func (e *OpError) Error() string { return fmt.Sprintf("%v: %v", e.Key, e.Err) }
func (e *OpError) Unwrap() error { return e.Err }

// PartialError says that the first Done ops of a Commit were written and the rest not.
type PartialError struct {
	Done int
	Err  error
}

func (e *PartialError) Error() string { return fmt.Sprintf("after %d writes: %v", e.Done, e.Err) }
func (e *PartialError) Unwrap() error { return e.Err }
