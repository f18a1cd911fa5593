package felix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/calc"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/watch"
)

// Config is what an Agent needs.
type Config struct {
	Node    string
	Local   []config.Layer // settings that win over the datastore's, the strongest first: environment, file
	Drivers []Driver       // synced in this order
	Log     *slog.Logger
	Resync  time.Duration // how often the kernel is read back; 0: 90 s
}

// Driver is one part of the kernel, with a name for people.
type Driver struct {
	Name string
	dataplane.Driver
}

// part is the name of what is in use, for problems.
func (d Driver) part() string {
	if p, ok := d.Driver.(interface{ Part() string }); ok {
		return p.Part()
	}
	return d.Name
}

// Agent keeps one node's kernel in step with the datastore and the node's records.
// Its methods are safe for concurrent use.
type Agent struct {
	cfg  Config
	loop watch.Loop
	busy atomic.Bool

	// Owned by the loop's goroutine.
	graph    *calc.Graph
	inSync   bool
	attached map[dataplane.AttachmentID]dataplane.Interface
	settings settings
	alarm    *time.Timer // rings the loop's bell; see schedule

	mu      sync.Mutex
	pending input
	seq     uint64            // of the last input taken in
	notes   map[string]string // problems that no driver tells of, by part
	status  Status
	changed chan struct{} // closed, and replaced, when status changes
}

// input is what has come in since the loop last looked.
type input struct {
	objects     map[store.Key]api.Object
	attachments map[dataplane.AttachmentID]*dataplane.Attachment
	detached    map[dataplane.AttachmentID]bool // gone at some time, though maybe attached anew
	revision    store.Revision
	inSync      bool
	resync      map[string]bool // names of drivers
}

func newInput() input {
	return input{
		objects:     map[store.Key]api.Object{},
		attachments: map[dataplane.AttachmentID]*dataplane.Attachment{},
		detached:    map[dataplane.AttachmentID]bool{},
		resync:      map[string]bool{},
	}
}

// New returns an Agent; [Agent.Run] runs it.
func New(cfg Config) *Agent {
	if cfg.Resync == 0 {
		cfg.Resync = 90 * time.Second
	}
	a := &Agent{cfg: cfg, graph: calc.New(cfg.Node, cfg.Local...), pending: newInput(), notes: map[string]string{}, changed: make(chan struct{}),
		attached: map[dataplane.AttachmentID]dataplane.Interface{}, settings: newSettings(cfg.Node)}
	a.loop = watch.Loop{Bell: watch.NewBell(), Step: a.step, Resync: a.distrust, Interval: cfg.Resync}
	a.alarm = time.AfterFunc(time.Hour, a.loop.Bell.Ring)
	a.alarm.Stop()
	a.useFlows()
	return a
}

// Run brings the kernel to what the inputs say until ctx ends. The kernel is left as it
// is.
func (a *Agent) Run(ctx context.Context) error {
	defer a.alarm.Stop()
	return a.loop.Run(ctx)
}

// Busy tells whether the agent is working on its inputs, or on the kernel, right now.
func (a *Agent) Busy() bool { return a.busy.Load() }

// Update takes in what a Source says; it is a sink of [store.Source].
func (a *Agent) Update(u store.Update) {
	a.feed(func(in *input) {
		for _, e := range u.Events {
			in.objects[e.Key] = e.Object
		}
		in.revision, in.inSync = u.Revision, u.InSync
	})
}

// SetAttachment takes in a record of this node, or with nil that there is none.
func (a *Agent) SetAttachment(id dataplane.AttachmentID, at *dataplane.Attachment) {
	a.feed(func(in *input) {
		in.attachments[id] = at
		if at == nil {
			in.detached[id] = true
		}
	})
}

// Resync has the named drivers read the kernel back soon: something in it changed that we
// did not change.
func (a *Agent) Resync(drivers ...string) {
	a.feed(func(in *input) {
		for _, name := range drivers {
			in.resync[name] = true
		}
	})
}

func (a *Agent) feed(f func(*input)) {
	a.mu.Lock()
	f(&a.pending)
	a.seq++
	a.mu.Unlock()
	a.loop.Bell.Ring()
}

func (a *Agent) take() (input, uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.pending
	a.pending = newInput()
	a.pending.revision, a.pending.inSync = in.revision, in.inSync
	return in, a.seq
}

// distrust has every driver read the kernel at its next Sync, but for those that know themselves when that is due.
func (a *Agent) distrust() {
	for _, d := range a.cfg.Drivers {
		if _, ok := d.Driver.(dueDriver); !ok {
			d.Resync()
		}
	}
}

// dueDriver is a driver whose Sync is to be called at a time of its own.
type dueDriver interface{ Due() time.Time } // zero: never

// schedule has the loop run when the first of those is due.
func (a *Agent) schedule() {
	var first time.Time
	for _, d := range a.cfg.Drivers {
		if x, ok := d.Driver.(dueDriver); ok {
			if due := x.Due(); !due.IsZero() && (first.IsZero() || due.Before(first)) {
				first = due
			}
		}
	}
	a.alarm.Stop()
	if !first.IsZero() {
		a.alarm.Reset(time.Until(first))
	}
}

// step brings the kernel to what has come in so far.
func (a *Agent) step(ctx context.Context) error {
	a.busy.Store(true)
	defer a.busy.Store(false)
	in, seq := a.take()
	a.put(in)
	for _, d := range a.cfg.Drivers {
		if in.resync[d.Name] {
			d.Resync()
		}
	}
	if !a.inSync && !in.inSync {
		a.graph.Prepare()
		return nil // until the snapshot is whole the kernel's previous state stands
	}
	a.inSync = true
	delta := a.graph.Flush()
	if !delta.Empty() {
		for _, d := range a.cfg.Drivers {
			d.Update(delta)
		}
	}
	return a.sync(ctx, in.revision, seq)
}

func (a *Agent) put(in input) {
	for k, o := range in.objects {
		if o = a.settings.sound(k, o); o == nil {
			a.graph.Remove(k)
		} else {
			a.graph.Put(o)
		}
	}
	a.attach(in)
}

// attach puts the attachments into the graph. A device that was replaced by one of the
// same name since the last step took the kernel's routes with it, though nothing may have
// changed in what is wanted: the routes are read back.
func (a *Agent) attach(in input) {
	gone := map[dataplane.Interface]bool{}
	for id := range in.detached {
		gone[a.attached[id]] = true
	}
	for id, at := range in.attachments {
		if at == nil {
			delete(a.attached, id)
			a.graph.RemoveAttachment(id)
		}
	}
	for id, at := range in.attachments {
		if at != nil {
			if gone[at.Interface] {
				in.resync[DriverRoutes] = true
			}
			a.attached[id] = at.Interface
			a.graph.PutAttachment(at)
		}
	}
}

// sync runs every driver, whatever the others say: each fails safe alone (an interface
// without rules drops, a rule without a route is idle).
func (a *Agent) sync(ctx context.Context, rev store.Revision, seq uint64) error {
	a.hold()
	results := make([]result, len(a.cfg.Drivers))
	var errs []error
	for i, d := range a.cfg.Drivers {
		err := d.Sync(ctx)
		a.synced(d, err)
		if err != nil {
			results[i] = resultOf(err)
			errs = append(errs, fmt.Errorf("%s: %w", d.part(), err))
		}
	}
	a.report(rev, seq, results)
	a.schedule()
	for _, d := range a.cfg.Drivers {
		if m, ok := d.Driver.(interface{ More() bool }); ok && m.More() {
			a.loop.Bell.Ring()
		}
	}
	return errors.Join(errs...)
}
