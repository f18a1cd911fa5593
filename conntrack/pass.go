package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Pass is one search for flows that a change may concern. It goes from [Driver.Begin] by
// [Pass.Collect] to [Driver.End].
type Pass struct {
	d     *Driver
	scope *scope

	whole map[netip.Addr]bool // addresses all of whose flows are to be judged
	parts []part
	gone  map[netip.Addr]bool // addresses whose flows are to go

	flows []netlink.Flow // found, and not yet judged
	host  map[netip.Addr]bool
}

// part selects the flows that have one end among the addresses of endpoints, and any end
// among the members of a set.
type part struct {
	ends    map[netip.Addr]bool
	members *members
}

// resolve says which flows the scope is about; nil: none.
func (d *Driver) resolve(s *scope) *Pass {
	p := &Pass{d: d, scope: s, whole: map[netip.Addr]bool{}, gone: map[netip.Addr]bool{}}
	for a := range s.gone {
		if len(d.owners.byAddr[a]) == 0 {
			p.gone[a] = true
		}
	}
	for id, ep := range d.owners.endpoints {
		if s.all || s.endpoints[id] {
			p.add(ep)
		}
	}
	if !s.all {
		d.owners.using(s.policies, p.add)
		for id, m := range s.sets {
			p.set(id, m)
		}
	}
	if len(p.whole)+len(p.parts)+len(p.gone) == 0 {
		return nil
	}
	return p
}

// add selects all flows of the endpoint.
func (p *Pass) add(ep *dataplane.Endpoint) {
	for _, a := range ep.Addrs {
		p.whole[a] = true
	}
}

// set selects the flows that the changed members of a set may concern.
func (p *Pass) set(id dataplane.SetID, m *members) {
	o := p.d.owners
	if id == dataplane.SetNodes { // who may send into the node's tunnels: of pods, one that has a node's address
		for a := range o.byAddr {
			if m.contain(a) {
				p.whole[a] = true
			}
		}
		return
	}
	policies := map[dataplane.PolicyID]bool{}
	for _, c := range p.d.compilers() {
		for _, pol := range c.Users(id) {
			policies[pol] = true
		}
	}
	x := part{ends: map[netip.Addr]bool{}, members: m}
	o.using(policies, func(ep *dataplane.Endpoint) {
		if m.any {
			p.add(ep)
			return
		}
		for _, a := range ep.Addrs {
			x.ends[a] = true
		}
	})
	if len(x.ends) > 0 {
		p.parts = append(p.parts, x)
	}
}

// selects tells whether the flow is one to judge, or to delete.
func (p *Pass) selects(f *netlink.Flow) bool {
	src, dst := f.Source(), f.Destination()
	if p.whole[src] || p.whole[dst] || p.gone[src] || p.gone[dst] {
		return true
	}
	return slices.ContainsFunc(p.parts, func(x part) bool {
		return (x.ends[src] || x.ends[dst]) && (x.members.contain(src) || x.members.contain(dst))
	})
}

// Collect lists the flows in question. It waits for packets that are under way, and may take a second
// where there are a million flows. It is for any goroutine, one at a time.
func (p *Pass) Collect(ctx context.Context) error {
	ct, err := p.d.table()
	if err != nil {
		return err
	}
	n, err := ct.Len()
	if err != nil || n == 0 && !p.scope.grace {
		return err
	}
	if p.scope.grace {
		netlink.GracePeriod()
		if n, err = ct.Len(); err != nil || n == 0 {
			return err
		}
	}
	if p.host, err = p.d.hostAddrs(); err != nil {
		return err
	}
	for _, q := range p.queries(n) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := ct.Each(q, p.keep); err != nil {
			p.d.distrust()
			return err
		}
	}
	return nil
}

func (p *Pass) keep(f *netlink.Flow) {
	if p.selects(f) {
		p.flows = append(p.flows, f.Keep())
	}
}

// fewFlows is up to how many flows the whole table is listed as fast as those of one address, which
// takes two lists.
const fewFlows = 5000

// queries returns what to ask the kernel where it has n flows: for all, or, if it is about one
// address, for what that sends and what is sent to it.
func (p *Pass) queries(n int) []netlink.Query {
	a, one := p.single()
	if !one || n <= fewFlows {
		return []netlink.Query{{Family: unix.AF_UNSPEC}}
	}
	if !a.Is4() { // of which the kernel lists all or none
		return []netlink.Query{{Family: unix.AF_INET6}}
	}
	return []netlink.Query{{Family: unix.AF_INET, Source: a}, {Family: unix.AF_INET, Destination: a}}
}

// single is the one address that every flow in question has; false: there are several.
func (p *Pass) single() (a netip.Addr, one bool) {
	n := 0
	count := func(m map[netip.Addr]bool) {
		for x := range m {
			if x != a {
				a = x
				n++
			}
			if n > 1 {
				return
			}
		}
	}
	count(p.whole)
	count(p.gone)
	for _, x := range p.parts {
		count(x.ends)
	}
	return a, n == 1
}

// endFor is how long End judges at a time, endLook after how many flows it looks at the clock.
const (
	endFor  = 5 * time.Millisecond
	endLook = 64
)

// End judges what was found, marks what is denied, clears what is not, and deletes what is gone. It
// stops after some milliseconds; more: it wants to be called again.
func (d *Driver) End(p *Pass) (more bool, err error) {
	ct, err := d.table()
	if err != nil {
		return false, err
	}
	j := &judge{owners: d.owners, programs: d.programs(), host: p.host}
	if len(j.programs) == 0 {
		return false, errors.New("live flows: there are no rules yet to judge them by")
	}
	var changes []netlink.FlowChange
	begin, n := time.Now(), 0
	for n < len(p.flows) && (n%endLook != 0 || time.Since(begin) < endFor) {
		if x, ok := d.change(j, p, &p.flows[n]); ok {
			changes = append(changes, x)
		}
		n++
	}
	if err := ct.Change(changes); err != nil {
		d.distrust()
		return false, err
	}
	d.count(n, changes)
	if p.flows = p.flows[n:]; len(p.flows) > 0 {
		return true, nil
	}
	d.stats.Passes++
	return false, nil
}

// change returns what is to be done about a flow.
func (d *Driver) change(j *judge, p *Pass, f *netlink.Flow) (netlink.FlowChange, bool) {
	src, dst := f.Source(), f.Destination()
	denied, ours := j.denies(f)
	switch {
	case p.gone[src] && len(d.owners.byAddr[src]) == 0, p.gone[dst] && len(d.owners.byAddr[dst]) == 0:
		return netlink.FlowChange{Flow: f, Delete: true}, true
	case !ours:
		return netlink.FlowChange{}, false
	}
	bit := d.cut()
	want := uint32(0)
	if denied {
		want = bit
	}
	return netlink.FlowChange{Flow: f, Mark: want, Mask: bit}, f.Mark&bit != want
}

// Failed says that the pass did not come to its end: another one will have to look at all that this
// one would have.
func (d *Driver) Failed(p *Pass) {
	d.next.all, d.next.grace = true, true
	for a := range p.scope.gone {
		d.next.gone[a] = true
	}
}

// Supported tells an error of this package's that will pass from one of a kernel that lacks what is needed.
func Supported(err error) bool { return !errors.Is(err, netlink.ErrNoConntrack) }

func (d *Driver) hostAddrs() (map[netip.Addr]bool, error) {
	all, err := d.h.Addrs()
	if err != nil {
		return nil, err
	}
	m := make(map[netip.Addr]bool, len(all))
	for _, a := range all {
		m[a] = true
	}
	return m, nil
}

// table returns the open socket.
func (d *Driver) table() (*netlink.Conntrack, error) {
	if d.ct != nil {
		return d.ct, nil
	}
	err := d.h.Do(func() (err error) {
		d.ct, err = netlink.OpenConntrack(netlink.Current)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connection tracking: %w", err)
	}
	return d.ct, nil
}

// distrust has the next one use another socket: this one may have answers yet to what failed.
func (d *Driver) distrust() {
	d.ct.Close()
	d.ct = nil
}
