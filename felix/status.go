package felix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/reconcile"
	"github.com/calicogo/calico/store"
)

// Status is what an Agent says of itself.
type Status struct {
	InSync   bool           // the datastore's snapshot has been seen whole
	Revision store.Revision // newest datastore revision whose contents the kernel holds, and which live flows obey
	Problems []Problem      // what stands in the way, ordered
	Stuck    error          // why new pods cannot be programmed; nil: nothing is known of

	done   uint64           // the last input that the kernel holds
	failed map[string]error // objects that a driver could not set, by its name for them
}

// Problem is one thing that is wrong, for people.
type Problem struct {
	Part    string // a driver's name, or calc
	Message string
}

// result is how a driver's Sync ended.
type result struct {
	err    error
	failed map[string]error // if only some objects failed: these
}

// resultOf tells a failure of the whole from one of single objects.
func resultOf(err error) result {
	var some interface{ Failed() map[string]error }
	if errors.As(err, &some) {
		return result{err: err, failed: some.Failed()}
	}
	return result{err: err}
}

func (r result) whole() bool { return r.err == nil || r.failed != nil }

// report publishes what the kernel holds now. A revision counts as held when no driver
// failed as a whole; single objects that failed are problems of their own.
func (a *Agent) report(rev store.Revision, seq uint64, results []result) {
	s := Status{InSync: true, failed: map[string]error{}}
	held := true
	for i, r := range results {
		if held = held && r.whole(); !held && s.Stuck == nil {
			s.Stuck = fmt.Errorf("%s: %w", a.cfg.Drivers[i].part(), r.err)
		}
		s.Problems = append(s.Problems, problems(a.cfg.Drivers[i].part(), r)...)
		if d, ok := a.cfg.Drivers[i].Driver.(interface{ Problems() []string }); ok {
			for _, text := range d.Problems() {
				s.Problems = append(s.Problems, Problem{Part: a.cfg.Drivers[i].part(), Message: text})
			}
		}
		for k, err := range r.failed {
			s.failed[k] = err
		}
	}
	for _, p := range append(a.graph.Problems(), a.settings.problems()...) {
		s.Problems = append(s.Problems, Problem{Part: "calc", Message: fmt.Sprint(p)})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, part := range slices.Sorted(maps.Keys(a.notes)) {
		s.Problems = append(s.Problems, Problem{Part: part, Message: a.notes[part]})
	}
	s.Revision, s.done = a.status.Revision, a.status.done
	if held {
		s.Revision, s.done = a.inForce(rev), seq
	}
	a.logChange(s.Problems)
	a.status = s
	close(a.changed)
	a.changed = make(chan struct{})
}

func problems(name string, r result) []Problem {
	if r.err == nil {
		return nil
	}
	if r.failed == nil {
		return []Problem{{Part: name, Message: r.err.Error()}}
	}
	var ps []Problem
	for _, k := range slices.Sorted(maps.Keys(r.failed)) {
		ps = append(ps, Problem{Part: name, Message: r.failed[k].Error()})
	}
	return ps
}

// logChange logs each problem when it comes and when it goes, not while it lasts.
func (a *Agent) logChange(now []Problem) {
	for _, p := range now {
		if !slices.Contains(a.status.Problems, p) {
			a.cfg.Log.Warn("problem", "part", p.Part, "message", p.Message)
		}
	}
	for _, p := range a.status.Problems {
		if !slices.Contains(now, p) {
			a.cfg.Log.Info("problem is gone", "part", p.Part, "message", p.Message)
		}
	}
}

// Status returns the present status and a channel that is closed when it changes.
func (a *Agent) Status() (Status, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, a.changed
}

// Programmed returns once the kernel holds everything that was taken in before the call,
// rules and routes of the interface among it. It fails with ctx, and then says why it
// had to wait.
func (a *Agent) Programmed(ctx context.Context, at *dataplane.Attachment) error {
	a.mu.Lock()
	want := a.seq
	a.mu.Unlock()
	for {
		s, changed := a.Status()
		err := s.holds(want, at)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not in the kernel yet: %w", at.Interface, err)
		case <-changed:
		}
	}
}

// holds says why the kernel does not hold the attachment yet; nil if it does.
func (s *Status) holds(seq uint64, at *dataplane.Attachment) error {
	if !s.InSync {
		return errors.New("the datastore's contents are not known yet")
	}
	if s.done < seq {
		for _, p := range s.Problems {
			if p.Part != "calc" {
				return fmt.Errorf("%s: %s", p.Part, p.Message)
			}
		}
		return errors.New("the kernel is being brought up to date")
	}
	for _, a := range at.Addrs {
		if err := s.failed[reconcile.Name(netip.PrefixFrom(a, a.BitLen()))]; err != nil {
			return err
		}
	}
	return nil
}
