package conntrack

import (
	"context"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/netlink"
)

// Driver keeps the marks of live flows in step with the rules of one namespace. Sync, and the
// parts that it is made of, come after the rules are in the kernel. It is a [dataplane.Driver], for
// one goroutine but for [Pass.Collect].
type Driver struct {
	h         *netlink.Handle
	compilers func() []*filter.Compiler

	owners   *owners
	settings dataplane.Settings
	next     *scope
	stats    Stats

	// Used by the pass that is under way.
	ct *netlink.Conntrack
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
	d := &Driver{h: h, compilers: compilers, owners: newOwners(), settings: dataplane.DefaultSettings(), next: newScope()}
	d.next.all, d.next.grace = true, true
	if _, err := d.table(); err != nil {
		return nil, err
	}
	return d, nil
}

// Close frees the socket. Marks stay. No pass may be under way.
func (d *Driver) Close() {
	if d.ct != nil {
		d.distrust()
	}
}

// Stats returns the counts so far.
func (d *Driver) Stats() Stats { return d.stats }

// Update notes a change of the wanted state.
func (d *Driver) Update(delta *dataplane.Delta) {
	for id, ep := range delta.Endpoints {
		d.endpoint(id, ep)
	}
	for id := range delta.Policies {
		d.next.policies[id] = true
	}
	for id, sd := range delta.Sets {
		d.next.change(id, sd)
	}
	if len(delta.Policies)+len(delta.Sets) > 0 {
		d.next.grace = true
	}
	if len(delta.Tunnels) > 0 || delta.Settings != nil {
		d.next.all, d.next.grace = true, true
	}
	if delta.Settings != nil {
		d.settings = *delta.Settings
	}
}

func (d *Driver) endpoint(id dataplane.Interface, ep *dataplane.Endpoint) {
	old := d.owners.put(id, ep)
	if old != nil {
		for _, a := range old.Addrs {
			d.next.gone[a] = true
		}
	}
	if ep != nil {
		d.next.endpoints[id] = true
		d.next.grace = d.next.grace || old != nil
	}
}

// Resync makes the next pass judge the flows of every endpoint: rules may have been put right that somebody had
// changed, and packets that passed before be under way.
func (d *Driver) Resync() { d.next.all, d.next.grace = true, true }

// Begin returns a pass over what changed since the last one; nil: nothing that concerns a live
// flow did. One pass may be under way.
func (d *Driver) Begin() *Pass {
	if d.next.empty() {
		d.next.grace = false
		return nil
	}
	s := d.next
	d.next = newScope()
	return d.resolve(s)
}

// Sync does a whole pass: it may take tens of milliseconds, and more where there are many flows.
func (d *Driver) Sync(ctx context.Context) error {
	p := d.Begin()
	if p == nil {
		return nil
	}
	err := p.Collect(ctx)
	for more := err == nil; more && err == nil; {
		more, err = d.End(p)
	}
	if err != nil {
		d.Failed(p)
	}
	return err
}

// programs are those of the compilers that have compiled.
func (d *Driver) programs() map[dataplane.Family]*filter.Program {
	m := map[dataplane.Family]*filter.Program{}
	for _, c := range d.compilers() {
		if p := c.Program(); len(p.Chains) > 0 {
			m[p.Family] = p
		}
	}
	return m
}

// cut is the bit of a flow's mark that has it cut.
func (d *Driver) cut() uint32 {
	_, bit, _ := filter.Marks(d.settings.MarkMask)
	return bit
}

func (d *Driver) count(judged int, changes []netlink.FlowChange) {
	d.stats.Judged += judged
	for _, x := range changes {
		switch {
		case x.Delete:
			d.stats.Deleted++
		case x.Mark != 0:
			d.stats.Cut++
		default:
			d.stats.Restored++
		}
	}
}
