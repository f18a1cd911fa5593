package conntrack

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/netlink"
)

// Pass is one search for flows that a change may concern. It goes from [Driver.Begin] by
// [Pass.Run] to [Driver.End].
type Pass struct {
	d     *Driver
	scope *scope

	whole map[netip.Addr]bool // addresses all of whose flows are to be judged
	nets  []netip.Prefix      // with more such
	parts []part
	gone  map[netip.Addr]bool // addresses whose flows are to go

	// What was allowed may be denied, and packets that the old rules let pass be under way. A pod that has only just come
	// has had none.
	denies bool

	host   map[netip.Addr]bool
	routes map[netip.Addr]string // as the judge has them
	batch  []netlink.Flow        // listed, and not yet judged; those beyond its length lend their room
	most   int                   // that are judged together

	waited     time.Duration // for the turn
	took, cost time.Duration // of Run: in all, and of a processor
}

// part selects the flows that have one end among the addresses of endpoints, and any end
// among the members of a set.
type part struct {
	ends    map[netip.Addr]bool
	members *members
}

// resolve says which flows the scope is about; nil: none.
func (d *Driver) resolve(s *scope) *Pass {
	p := &Pass{d: d, scope: s, whole: map[netip.Addr]bool{}, gone: map[netip.Addr]bool{}, routes: map[netip.Addr]string{}, denies: s.denies, most: batchFlows}
	for a := range s.gone {
		if len(d.owners.byAddr[a]) == 0 {
			p.gone[a] = true
		} else { // it is another's, who may have shared it
			p.whole[a], p.denies = true, true
		}
	}
	for id, ep := range d.owners.endpoints {
		if _, changed := s.endpoints[id]; s.all || changed {
			p.add(ep)
		}
	}
	if !s.all {
		p.use(s)
	}
	if len(p.whole)+len(p.parts)+len(p.gone) == 0 {
		return nil
	}
	return p
}

// add selects all flows of the endpoint.
func (p *Pass) add(ep *dataplane.Endpoint) {
	p.denies = p.denies || !p.scope.endpoints[ep.Interface]
	for _, a := range ep.Addrs {
		p.whole[a] = true
	}
	p.nets = append(p.nets, ep.Sources...)
}

// use selects the flows of endpoints that changed policies govern, and those that changed members of sets may concern. Each
// endpoint's policies are looked at once, however many sets have changed.
func (p *Pass) use(s *scope) {
	uses := map[dataplane.PolicyID][]*use{}
	for id := range s.policies {
		uses[id] = append(uses[id], &use{})
	}
	var sets []*use
	for id, m := range s.sets {
		if id == dataplane.SetNodes {
			p.nodes(m)
			continue
		}
		u := &use{members: m, loosens: true, ends: map[netip.Addr]bool{}}
		sets = append(sets, u)
		for _, c := range p.d.compilers() {
			for _, pol := range c.Users(id) {
				uses[pol] = append(uses[pol], u)
			}
			u.loosens = u.loosens && (!m.came || c.Loosens(id, true)) && (!m.went || c.Loosens(id, false))
		}
	}
	p.d.owners.using(uses, p.touch)
	for _, u := range sets {
		if len(u.ends) > 0 {
			p.parts = append(p.parts, part{ends: u.ends, members: u.members})
		}
	}
}

// nodes selects the flows of pods that have the address of a node which has come or gone: those that may, or may no more, send into
// the node's tunnels.
func (p *Pass) nodes(m *members) {
	for a := range p.d.owners.byAddr {
		if m.contain(a) {
			p.whole[a], p.denies = true, true
		}
	}
}

// touch selects the flows of an endpoint that the use is about.
func (p *Pass) touch(ep *dataplane.Endpoint, u *use) {
	if u.members == nil || u.members.any || len(ep.Sources) > 0 {
		p.add(ep)
		return
	}
	p.denies = p.denies || !u.loosens && !p.scope.endpoints[ep.Interface]
	for _, a := range ep.Addrs {
		u.ends[a] = true
	}
}

// selects tells whether the flow is one to judge, or to delete.
func (p *Pass) selects(f *netlink.Flow) bool {
	src, dst := f.Source(), f.Destination()
	if p.whole[src] || p.whole[dst] || p.gone[src] || p.gone[dst] || within(src, p.nets) || within(dst, p.nets) {
		return true
	}
	return slices.ContainsFunc(p.parts, func(x part) bool {
		return (x.ends[src] || x.ends[dst]) && (x.members.contain(src) || x.members.contain(dst))
	})
}

// Run lists the flows in question and judges them; what is denied is marked, what is not is cleared, and what is gone is
// deleted. It waits for packets that are under way, and may take a second where there are a million flows. It is
// for any goroutine.
func (p *Pass) Run(ctx context.Context) error {
	runtime.LockOSThread() // whose time is taken
	defer runtime.UnlockOSThread()
	began, cost := time.Now(), threadTime()
	err := p.run(ctx)
	if err != nil {
		p.d.distrust()
	}
	p.took, p.cost = time.Since(began)-p.waited, threadTime()-cost
	return err
}

// threadTime is the processor's time that the thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // zero: nothing is known of costs
	return time.Duration(t.Nano())
}

func (p *Pass) run(ctx context.Context) error {
	if err := p.d.open(); err != nil {
		return err
	}
	n, err := p.d.list.Len()
	if err != nil || n == 0 && !p.denies {
		return err
	}
	if p.denies {
		netlink.GracePeriod()
		if n, err = p.d.list.Len(); err != nil || n == 0 {
			return err
		}
	}
	if p.host, err = p.d.hostAddrs(); err != nil {
		return err
	}
	for _, q := range p.queries(n) {
		if err := p.d.list.Each(q, func(f *netlink.Flow) error { return p.take(ctx, f) }); err != nil {
			return err
		}
	}
	return p.judge(ctx)
}

// batchFlows is how many flows are judged together: few enough that they are what they were when they were listed, and that
// the loop waits for no more than a millisecond. Beside a loop whose turns are long there are up to mostFlows, or
// a pass would take a turn of the loop's for every few of its flows.
const (
	batchFlows = 64
	mostFlows  = 16 * batchFlows
)

// nextBatch is how many flows are judged together after n for which the turn was waited for, and held, so long.
func nextBatch(n int, waited, held time.Duration) int {
	if waited > held {
		return min(2*n, mostFlows)
	}
	return batchFlows
}

// take puts the flow with those to be judged, if it is in question.
func (p *Pass) take(ctx context.Context, f *netlink.Flow) error {
	if !p.selects(f) {
		return nil
	}
	p.batch = slices.Grow(p.batch, 1)[:len(p.batch)+1]
	f.KeepIn(&p.batch[len(p.batch)-1])
	if len(p.batch) < p.most {
		return nil
	}
	return p.judge(ctx)
}

// judge judges the flows of the batch, and changes them, while nothing else changes.
func (p *Pass) judge(ctx context.Context) error {
	if len(p.batch) == 0 {
		return nil
	}
	wait := time.Now()
	if err := p.d.turn.take(ctx); err != nil {
		return err
	}
	defer p.d.turn.give()
	waited, began := time.Since(wait), time.Now()
	p.waited += waited
	defer func() { p.most = nextBatch(p.most, waited, time.Since(began)) }()
	j, err := p.newJudge()
	if err != nil {
		return err
	}
	var changes []netlink.FlowChange
	for i := range p.batch {
		if x, ok := p.d.verdict(j, p, &p.batch[i]); ok {
			changes = append(changes, x)
		}
	}
	if j.err != nil {
		return j.err
	}
	if err = p.d.change.Change(changes); err == nil {
		p.d.count(len(p.batch), changes)
	}
	p.batch = p.batch[:0]
	return err
}

// fewFlows is up to how many flows the whole table is listed as fast as those of one address, which
// takes two lists; fewAddrs of how many addresses the lists are together faster than that of all.
const (
	fewFlows = 5000
	fewAddrs = 2
)

// queries returns what to ask the kernel where it has n flows: for all; or, of a family in which it is about few addresses,
// for what those send and what is sent to them.
func (p *Pass) queries(n int) (out []netlink.Query) {
	if n <= p.d.few {
		return []netlink.Query{{Family: unix.AF_UNSPEC}}
	}
	addrs, many := p.addrs()
	for f, family := range map[dataplane.Family]uint8{dataplane.IPv4: unix.AF_INET, dataplane.IPv6: unix.AF_INET6} {
		if many[f] || f == dataplane.IPv6 && len(addrs[f]) > 0 { // of one of IPv6 the kernel lists all or none
			out = append(out, netlink.Query{Family: family})
			continue
		}
		for a := range addrs[f] {
			out = append(out, netlink.Query{Family: family, Source: a}, netlink.Query{Family: family, Destination: a})
		}
	}
	return out
}

// addrs returns addresses of which every flow in question has one, for families where they are not too many.
func (p *Pass) addrs() (few map[dataplane.Family]map[netip.Addr]bool, many map[dataplane.Family]bool) {
	few = map[dataplane.Family]map[netip.Addr]bool{4: {}, 6: {}}
	many = map[dataplane.Family]bool{}
	add := func(a netip.Addr) {
		if f := dataplane.FamilyOf(a); !many[f] {
			few[f][a] = true
			many[f] = len(few[f]) > fewAddrs
		}
	}
	for _, m := range []map[netip.Addr]bool{p.whole, p.gone} {
		for a := range m {
			add(a)
		}
	}
	for _, net := range p.nets {
		many[dataplane.FamilyOf(net.Addr())] = true
	}
	for _, x := range p.parts {
		if list, ok := x.members.addrs(); ok {
			for _, a := range list {
				add(a)
			}
			continue
		}
		for a := range x.ends {
			add(a)
		}
	}
	return few, many
}

// verdict returns what is to be done about a flow.
func (d *Driver) verdict(j *judge, p *Pass, f *netlink.Flow) (netlink.FlowChange, bool) {
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
