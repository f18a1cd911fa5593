package cni

import (
	"context"
	"errors"

	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// gc detaches what the runtime says it no longer has. The list is true at the moment of
// the call only, so that a GC, unlike a DEL, is never put off as a whole: the devices go
// now, and what the datastore must be asked for is in the records.
func (s *Server) gc(ctx context.Context, r *Request) error {
	stale, err := s.stale(r)
	if err != nil {
		return err
	}
	var errs []error
	for _, rec := range stale {
		errs = append(errs, s.locked(rec, s.cutOff))
	}
	for _, rec := range stale {
		err := s.locked(rec, func(now *Record) error { return s.finish(ctx, now) })
		if unanswered(err) { // the others would wait in vain as well
			s.cfg.Log.Warn("the addresses of pods that GC removed are given back later", "error", err)
			break
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stale lists the attachments to the network that the runtime does not name.
func (s *Server) stale(r *Request) (stale []*Record, err error) {
	if r.Conf.ValidAttached == nil { // not the same as an empty list
		return nil, wire.Errorf(wire.CodeConfig, "network configuration: GC without cni.dev/valid-attachments")
	}
	valid := map[dataplane.AttachmentID]bool{}
	for _, a := range r.Conf.ValidAttached {
		valid[dataplane.AttachmentID{ContainerID: a.ContainerID, IfName: a.IfName}] = true
	}
	for _, rec := range s.cfg.Records.All() {
		if rec.State == Attached && rec.Handle == r.Conf.Name+"."+rec.ID.ContainerID && !valid[rec.ID] {
			stale = append(stale, rec)
		}
	}
	return stale, nil
}

// unanswered tells whether the datastore did not answer.
func unanswered(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}
