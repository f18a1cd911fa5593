package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrPartial is in every error that concerns single objects only: whatever it does not
// name was done. Such an error has a method Failed() map[string]error, which says what
// was not done and why, by [Name].
var ErrPartial = errors.New("some objects failed")

// KeyErrors is the error of an Apply that failed for some keys. What became of those is
// unknown; every other key of the batch is as asked. The Table tries the keys again at the
// next Sync, and leaves the others alone.
type KeyErrors[K comparable] map[K]error

// Name is how errors call the object of a key.
func Name(key any) string { return fmt.Sprint(key) }

// Err returns e as an error; nil if no key failed.
func (e KeyErrors[K]) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// shown is how many of many errors are spelled out in one line.
const shown = 4

// Error lists the first few errors, ordered by key.
func (e KeyErrors[K]) Error() string { return summary(e.Failed()) }

// Failed says which objects failed, by [Name], and why.
func (e KeyErrors[K]) Failed() map[string]error {
	m := make(map[string]error, len(e))
	for k, err := range e {
		m[Name(k)] = err
	}
	return m
}

// Unwrap returns the errors of all keys, ordered by key.
func (e KeyErrors[K]) Unwrap() []error { return sorted(e.Failed()) }

// Is makes e an [ErrPartial].
func (e KeyErrors[K]) Is(target error) bool { return target == ErrPartial }

// partial is the partial errors of several tables together.
type partial map[string]error

func (e partial) Error() string            { return summary(e) }
func (e partial) Failed() map[string]error { return e }
func (e partial) Unwrap() []error          { return sorted(e) }
func (e partial) Is(target error) bool     { return target == ErrPartial }

// Join makes one partial error of several, nil of none. If one of them is not partial,
// neither is the result.
func Join(errs ...error) error {
	all := partial{}
	for _, err := range errs {
		if err == nil {
			continue
		}
		var some interface{ Failed() map[string]error }
		if !errors.Is(err, ErrPartial) || !errors.As(err, &some) {
			return whole(errs)
		}
		for k, err := range some.Failed() {
			if old := all[k]; old != nil && old.Error() != err.Error() {
				err = fmt.Errorf("%w; %w", old, err)
			}
			all[k] = err
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// whole is a failure of the whole with partial ones beside it. It is not ErrPartial.
type wholeError struct{ errs []error }

func whole(errs []error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	// Those that are not partial come first, and alone can be unwrapped: else they
	// would seem partial.
	isPartial := func(err error) bool { return errors.Is(err, ErrPartial) }
	slices.SortStableFunc(errs, func(a, b error) int { return cmp.Compare(btoi(isPartial(a)), btoi(isPartial(b))) })
	if len(errs) == 1 {
		return errs[0]
	}
	return &wholeError{errs}
}

func (e *wholeError) Error() string {
	texts := make([]string, len(e.errs))
	for i, err := range e.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e *wholeError) Unwrap() error { return e.errs[0] }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sorted(m map[string]error) []error {
	errs := make([]error, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		errs = append(errs, m[k])
	}
	return errs
}

func summary(m map[string]error) string {
	errs := sorted(m)
	more := ""
	if n := len(errs) - shown; n > 0 {
		more = fmt.Sprintf("; and %d more", n)
		errs = errs[:shown]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ") + more
}
