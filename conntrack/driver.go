package conntrack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/netlink"
)

// Driver keeps the marks of live flows in step with the rules of one namespace. It is a [dataplane.Driver]
// for one goroutine, the loop's; a [Pass] runs beside that.
//
// What flows are judged by are the endpoints and settings that Update was told of, and the compilers' programs. From
// [Driver.Hold], which Update does, to [Driver.Release] no flow is judged: so the loop may bring rules and
// endpoints from one state to the next, and no pass sees a half of it.
type Driver struct {
	h         *netlink.Handle
	compilers func() []*filter.Compiler
	few       int // fewFlows, but in tests

	turn turn
	held bool   // the loop has the turn
	now  *scope // what changes with the rules that are being written
	next *scope // what has changed since the last pass began

	// For who has the turn.
	owners   *owners
	settings dataplane.Settings

	// Of the pass that is under way, and between passes the loop's.
	list, change *netlink.Conntrack
	stats        Stats
	budget       budget
}

var _ dataplane.Driver = (*Driver)(nil)

// Stats counts what a Driver has done since it was made.
type Stats struct {
	Passes   int // that came to their end
	Judged   int // flows
	Cut      int // flows that came to be denied
	Restored int // flows that are allowed again
	Deleted  int // flows of pods that are gone
}

// New returns a Driver for h's namespace, which judges by the programs of the compilers: those
// of the families, as the kernel holds them. It fails where the kernel cannot tell of flows; see
// [Supported].
func New(h *netlink.Handle, compilers func() []*filter.Compiler) (*Driver, error) {
	d := &Driver{
		h: h, compilers: compilers, few: fewFlows, turn: newTurn(),
		owners: newOwners(), settings: dataplane.DefaultSettings(), now: newScope(), next: newScope(),
	}
	d.now.everything()
	if err := d.open(); err != nil {
		return nil, err
	}
	return d, nil
}

// Close frees the sockets. Marks stay. No pass may be under way.
func (d *Driver) Close() { d.distrust() }

// Stats returns the counts so far. No pass may be under way.
func (d *Driver) Stats() Stats { return d.stats }

// Hold has no flow judged until Release. It waits for what is being judged, a millisecond or so.
func (d *Driver) Hold() {
	if !d.held {
		<-d.turn
		d.held = true
	}
}

// Release says that the kernel holds the rules of the endpoints and programs that there are now.
func (d *Driver) Release() {
	if d.held {
		d.fold()
		d.held = false
		d.turn.give()
	}
}

// Update notes a change of the wanted state, and holds.
func (d *Driver) Update(delta *dataplane.Delta) {
	d.Hold()
	for id, ep := range delta.Endpoints {
		d.endpoint(id, ep)
	}
	for id := range delta.Policies {
		d.now.policy(id)
	}
	for id, sd := range delta.Sets {
		d.now.change(id, sd)
	}
	if len(delta.Tunnels) > 0 || delta.Settings != nil {
		d.now.everything()
	}
	if delta.Settings != nil {
		d.settings = *delta.Settings
	}
}

func (d *Driver) endpoint(id dataplane.Interface, ep *dataplane.Endpoint) {
	old := d.owners.put(id, ep)
	if old != nil {
		for _, a := range old.Addrs {
			d.now.gone[a] = true
		}
	}
	if ep == nil {
		delete(d.now.endpoints, id)
	} else {
		d.now.endpoint(id, old)
	}
}

// Changed notes that the rules are no more, or again, what the wanted state has of these policies and endpoints, such as the
// kernel refuses. Nothing else of delta is looked at.
func (d *Driver) Changed(delta *dataplane.Delta) {
	for id := range delta.Policies {
		d.now.policies[id] = true
	}
	for id := range delta.Endpoints {
		d.now.endpoints[id] = false
	}
}

// Resync makes the next pass judge the flows of every endpoint: rules may have been put right that somebody had
// changed, and packets that passed before be under way.
func (d *Driver) Resync() { d.now.everything() }

// Begin returns a pass over what changed since the last one; nil: nothing that concerns a live
// flow did. If it is to rest first, for what the last ones took, it says how long; then call Begin again.
// One pass may be under way. Begin is for who holds; the pass judges nothing before Release.
func (d *Driver) Begin() (p *Pass, rest time.Duration) {
	p = d.fold()
	if d.next.empty() {
		return nil, 0
	}
	if rest = d.budget.wait(time.Now(), d.next.denies); rest > 0 {
		return nil, rest // and nothing is resolved that more may come to
	}
	if p == nil {
		p = d.resolve(d.next)
	}
	if p != nil {
		p.denies = d.next.denies
	}
	d.next = newScope()
	return p, 0
}

// fold adds what changes now to what has changed. What of it may deny is seen now: a pod that has only just come has had no
// flows yet. If something may already, that need not be known. p is a pass over what has changed if that is
// what changes now.
func (d *Driver) fold() (p *Pass) {
	if d.now.empty() {
		return nil
	}
	now, alone := d.now, d.next.empty()
	d.now = newScope()
	if d.next.denies {
		d.next.merge(now)
		return nil
	}
	if p = d.resolve(now); p == nil {
		return nil
	}
	d.next.merge(now)
	d.next.denies = p.denies
	if !alone {
		return nil
	}
	return p
}

// End says that the pass has come to its end, with the error of its Run. After one, another pass will have to look at
// all that this one would have.
func (d *Driver) End(p *Pass, err error) {
	d.budget.spent(time.Now(), p.took, p.cost)
	if err == nil {
		d.stats.Passes++
		return
	}
	d.now.everything()
	for a := range p.scope.gone {
		d.now.gone[a] = true
	}
}

// Owe counts processor's time that was used elsewhere among that of passes: the next one rests for it, too.
func (d *Driver) Owe(cost time.Duration) { d.budget.spent(time.Now(), d.budget.last, cost) }

// Sync does a whole pass: it may take tens of milliseconds, and more where there are many flows, or where it has to rest.
func (d *Driver) Sync(ctx context.Context) error {
	d.Hold()
	p, rest := d.Begin()
	d.Release()
	if rest > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
			return d.Sync(ctx)
		}
	}
	if p == nil {
		return nil
	}
	err := p.Run(ctx)
	d.End(p, err)
	return err
}

// Supported tells an error of this package's that will pass from one of a kernel that lacks what is needed.
func Supported(err error) bool { return !errors.Is(err, netlink.ErrNoConntrack) }

// open opens the sockets, unless they are.
func (d *Driver) open() error {
	for _, s := range []**netlink.Conntrack{&d.list, &d.change} {
		if *s != nil {
			continue
		}
		err := d.h.Do(func() (err error) {
			*s, err = netlink.OpenConntrack(netlink.Current)
			return err
		})
		if err != nil {
			return fmt.Errorf("connection tracking: %w", err)
		}
	}
	return nil
}

// distrust has the next pass use other sockets: these may have answers yet to what failed.
func (d *Driver) distrust() {
	for _, s := range []**netlink.Conntrack{&d.list, &d.change} {
		if *s != nil {
			(*s).Close()
			*s = nil
		}
	}
}
