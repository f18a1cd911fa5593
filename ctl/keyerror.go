package ctl

import "github.com/calicogo/calico/store"

// keyError is one of the store's errors about an object, in upstream's words.
type keyError struct {
	msg string
	key store.Key
	err error
}

func (e *keyError) Error() string { return e.msg + ": " + e.key.String() }
func (e *keyError) Unwrap() error { return e.err }

func notFound(k store.Key) error {
	return &keyError{"resource does not exist", k, store.ErrNotFound}
}

func exists(k store.Key) error {
	return &keyError{"resource already exists", k, store.ErrExists}
}

func conflict(k store.Key) error {
	return &keyError{"update conflict", k, store.ErrConflict}
}
