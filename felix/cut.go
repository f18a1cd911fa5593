package felix

import (
	"context"
	"fmt"
	"time"

	"github.com/calicogo/calico/conntrack"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

// DriverFlows is the name of the driver of live flows.
const DriverFlows = "flows"

// againAfter is when the next pass begins after one that failed; see [conntrack.Driver.Begin] for what more it waits.
const againAfter = 200 * time.Millisecond

// flows has what the rules came to deny reach the flows that live. It is the last of the drivers: its
// Sync begins a pass, unless one is under way or passes have to rest. A pass takes tens of milliseconds and goes on
// beside the agent's loop, so that neither a policy nor a pod waits for it; only the
// revision that the status shows does.
type flows struct {
	d       *conntrack.Driver
	missing error  // why there is no d
	ring    func() // has the agent call Sync
	rules   error  // of the rules' last Sync: by what the kernel does not hold no flow is judged

	pass  *conntrack.Pass // under way
	ended chan error      // when Run has returned
	rest  *time.Timer     // that rings when the next pass may begin

	begun, failed, resting bool           // in the last Sync
	covers, reached        store.Revision // of the pass, and of all that ended
}

// newFlows returns the driver of live flows in h's namespace, which judges by the compilers' programs.
// A kernel without connection tracking's netlink makes it one that does nothing.
func newFlows(h *netlink.Handle, compilers func() []*filter.Compiler) (*flows, error) {
	f := &flows{ended: make(chan error, 1), ring: func() {}}
	d, err := conntrack.New(h, compilers)
	switch {
	case err == nil:
		f.d = d
	case conntrack.Supported(err):
		return nil, err
	default:
		f.missing = fmt.Errorf("%w; flows that live when policy comes to deny them go on", err)
	}
	return f, nil
}

// Close waits for a pass that is under way, whose context must have ended, and frees what f holds.
func (f *flows) Close() {
	if f.pass != nil {
		<-f.ended
		f.pass = nil
	}
	if f.rest != nil {
		f.rest.Stop()
	}
	if f.d != nil {
		f.d.Close()
	}
}

func (f *flows) Update(d *dataplane.Delta) {
	if f.d != nil {
		f.d.Update(d)
	}
}

func (f *flows) Resync() {
	if f.d != nil {
		f.d.Resync()
	}
}

// hold has no flow judged until Sync finds the rules in the kernel.
func (f *flows) hold() {
	if f.d != nil {
		f.d.Hold()
	}
}

// Sync begins the next pass, if there is need of one, and has the one that is under way go on. It does not wait.
func (f *flows) Sync(ctx context.Context) error {
	f.begun, f.failed, f.resting = false, false, false
	if f.d == nil || f.rules != nil {
		return nil
	}
	err := f.end()
	if f.pass == nil && err == nil {
		f.begin(ctx)
	}
	f.d.Release()
	if err != nil {
		f.ringIn(againAfter) // what else is tried again may wait for longer, and have a denial wait
		return &flowsError{err}
	}
	return nil
}

// end ends the pass that is under way, if it has gone through all flows.
func (f *flows) end() error {
	if f.pass == nil {
		return nil
	}
	select {
	case err := <-f.ended:
		f.d.End(f.pass, err)
		f.pass, f.failed = nil, err != nil
		if err == nil {
			f.reached = max(f.reached, f.covers)
		}
		return err
	default:
		return nil
	}
}

func (f *flows) begin(ctx context.Context) {
	pass, rest := f.d.Begin()
	if f.resting = rest > 0; f.resting {
		f.ringIn(rest)
	}
	if pass == nil {
		return
	}
	f.pass, f.begun = pass, true
	go func() {
		f.ended <- pass.Run(ctx)
		f.ring()
	}()
}

func (f *flows) ringIn(wait time.Duration) {
	if f.rest != nil {
		f.rest.Stop()
	}
	f.rest = time.AfterFunc(wait, f.ring)
}

// reach returns the newest revision whose denials have reached all flows, given that which the
// rules hold since the last Sync.
func (f *flows) reach(rev store.Revision) store.Revision {
	switch {
	case f.begun:
		f.covers = rev
	case f.pass == nil && !f.failed && !f.resting && f.rules == nil:
		f.reached = rev
	}
	return f.reached
}

// flowsError is one that no pod has to wait for.
type flowsError struct{ error }

func (e *flowsError) Unwrap() error { return e.error }

// Failed makes it one of single objects: see [resultOf].
func (e *flowsError) Failed() map[string]error { return map[string]error{DriverFlows: e.error} }

// useFlows has the driver of live flows, if there is one, wake the agent's loop.
func (a *Agent) useFlows() {
	f, ok := driver[*flows](a)
	if !ok {
		return
	}
	f.ring = a.loop.Bell.Ring
	if r, ok := driver[*rules](a); ok && f.d != nil {
		r.differ, r.gap = f.d.Changed, f.d.Resync
	}
	if f.missing != nil {
		a.notes[DriverFlows] = f.missing.Error()
	}
}

// hold has no flow judged while the drivers bring the kernel to another state.
func (a *Agent) hold() {
	if f, ok := driver[*flows](a); ok {
		f.hold()
	}
}

// synced tells the driver of live flows how the rules fared. An error of less than all leaves them in the
// kernel, and may last: that another backend is wanted, say.
func (a *Agent) synced(d Driver, err error) {
	if f, ok := driver[*flows](a); ok && d.Name == DriverRules {
		if f.rules = err; resultOf(err).whole() {
			f.rules = nil
		}
	}
}

// inForce returns the newest revision that flows which live obey, where the drivers hold rev.
func (a *Agent) inForce(rev store.Revision) store.Revision {
	if f, ok := driver[*flows](a); ok {
		return f.reach(rev)
	}
	return rev
}
