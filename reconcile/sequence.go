package reconcile

import (
	"context"
	"errors"
)

// Sequence is stages of which later ones refer to earlier ones. They grow in order and
// shrink in reverse, so that nothing ever refers to an object that is not there.
type Sequence []Stage

// Sync grows and shrinks every stage. A stage that fails to grow as a whole stops the
// later ones, and nothing is deleted. One that fails for some objects ([ErrPartial]) does not stop the
// others from growing, but nothing is deleted that those objects may still refer to.
func (s Sequence) Sync(ctx context.Context) error {
	var errs []error
	last := 0 // the last stage of which objects failed to grow
	for i, st := range s {
		err := st.Grow(ctx)
		if err != nil {
			errs = append(errs, err)
			last = i
		}
		if err != nil && !errors.Is(err, ErrPartial) {
			return Join(errs...)
		}
	}
	for i := len(s) - 1; i >= last; i-- {
		if err := s[i].Shrink(ctx); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return Join(errs...)
}

// Resync makes every stage read the kernel back at the next Sync.
func (s Sequence) Resync() {
	for _, st := range s {
		st.Resync()
	}
}
