package netlink

import (
	"errors"

	vnl "github.com/vishvananda/netlink"
)

// dumpTries is how often an interrupted dump is begun anew.
const dumpTries = 8

// Dump runs f, which dumps kernel objects, again if the kernel said that they changed
// meanwhile and that the dump may therefore lack some (NLM_F_DUMP_INTR).
func Dump[T any](f func() ([]T, error)) ([]T, error) {
	var all []T
	var err error
	for range dumpTries {
		all, err = f()
		if !errors.Is(err, vnl.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}
