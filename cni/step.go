package cni

import (
	"context"
	"fmt"
	"strings"

	"github.com/calicogo/calico/store"
)

// step tells the failpoints where the server is: between any two things that it does to a
// file, the datastore or the kernel.
func (s *Server) step(format string, args ...any) {
	if s.cfg.Step != nil {
		s.cfg.Step(fmt.Sprintf(format, args...))
	}
}

// StepStore returns a store that calls step before and after each commit, with the kinds
// that it writes.
func StepStore(s store.Store, step func(string)) store.Store { return stepStore{s, step} }

type stepStore struct {
	store.Store
	step func(string)
}

func (s stepStore) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	var what []string
	for _, op := range ops {
		w := op.Key.Kind
		if op.Object == nil {
			w = "no " + w
		}
		what = append(what, w)
	}
	name := strings.Join(what, ", ")
	s.step("before commit of " + name)
	rev, err := s.Store.Commit(ctx, ops)
	if err == nil {
		s.step("after commit of " + name)
	}
	return rev, err
}
