// Package reconcile keeps kernel objects in step with a wanted state.
//
// It is the only place that decides what to create, change and delete. A driver supplies
// one kind of object by implementing [Kernel]; everything about read-back, retries and
// ordering between kinds is here, and is tested once.
package reconcile

import "context"

// Kernel is one kind of kernel object, for instance the routes of one table.
type Kernel[K comparable, V any] interface {
	// List reads back every object of this kind that we own.
	List(context.Context) (map[K]V, error)
	// Apply sets and deletes a batch, as one transaction where the kernel has one. To
	// set what is so already and to delete what is not there are no errors. If only
	// some objects failed the error is a [KeyErrors]; after any other the Table reads
	// the kernel back before it tries again.
	Apply(ctx context.Context, set map[K]V, del map[K]V) error
}

// Stage is one step of a [Sequence]; [Table] is the usual one.
type Stage interface {
	Resync()                      // distrust what is remembered of the kernel
	Grow(context.Context) error   // create and change
	Shrink(context.Context) error // delete
}
