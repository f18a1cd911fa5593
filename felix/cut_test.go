package felix

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/watch"
)

// cutting is a flow from a pod to another, and the drivers that it lives under.
type cutting struct {
	t     *testing.T
	ns    int
	h     *netlink.Handle
	rules *nft.Driver
	flows *flows
	bell  watch.Bell
	table *netlink.Conntrack
	other *netlink.Conntrack // to change what table lists
	state *dataplane.State
	conn  net.Conn
}

func newCutting(t *testing.T) *cutting {
	c := &cutting{t: t, ns: nstest.New(t), state: dataplane.NewState()}
	sh(t, c.ns, "sysctl -qw net.ipv4.ip_forward=1 net.netfilter.nf_conntrack_udp_timeout=600")
	from, to := podOf(t, c.ns, 1), podOf(t, c.ns, 2)
	sh(t, c.ns, "ip route add 10.65.0.1 dev cali1; ip route add 10.65.0.2 dev cali2")
	c.state.Apply(wantedPolicy())
	var err error
	if c.h, err = netlink.Open(c.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.h.Close)
	if c.table, err = netlink.OpenConntrack(c.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.table.Close)
	if c.other, err = netlink.OpenConntrack(c.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.other.Close)
	c.start()
	c.step(1, c.state.Delta())
	c.await(1)
	var l net.PacketConn
	c.do(to, func() (err error) { l, err = net.ListenPacket("udp4", ":80"); return err })
	t.Cleanup(func() { l.Close() })
	c.do(from, func() (err error) { c.conn, err = net.Dial("udp4", "10.65.0.2:80"); return err })
	t.Cleanup(func() { c.conn.Close() })
	if _, err := c.conn.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := l.ReadFrom(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cutting) do(ns int, f func() error) {
	c.t.Helper()
	if err := netlink.Do(ns, f); err != nil {
		c.t.Fatal(err)
	}
}

// start begins as a new agent does.
func (c *cutting) start() {
	c.t.Helper()
	var err error
	if c.rules, err = nft.New(c.ns, nft.Config{}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.rules.Close)
	if c.flows, err = newFlows(c.h, c.rules.Compilers); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.flows.Close)
	bell := watch.NewBell()
	c.bell, c.flows.ring = bell, bell.Ring
}

// step is one of an agent's: what it took in is of that revision.
func (c *cutting) step(rev store.Revision, d *dataplane.Delta) store.Revision {
	c.t.Helper()
	if d != nil {
		c.state.Apply(d)
		c.rules.Update(d)
		c.flows.Update(d)
	}
	c.flows.hold()
	if err := c.rules.Sync(context.Background()); err != nil {
		c.t.Fatal(err)
	}
	if err := c.flows.Sync(context.Background()); err != nil {
		c.t.Fatal(err)
	}
	return c.flows.reach(rev)
}

// await steps until flows obey the revision.
func (c *cutting) await(rev store.Revision) {
	c.t.Helper()
	for c.step(rev, nil) < rev {
		select {
		case <-c.bell:
		case <-time.After(10 * time.Second):
			c.t.Fatalf("waited in vain for revision %d", rev)
		}
	}
}

// marked tells whether the flow is one that was cut.
func (c *cutting) marked() (cut bool) {
	c.t.Helper()
	_, bit, _ := filter.Marks(c.state.Settings.MarkMask)
	n := 0
	err := c.table.Each(netlink.Query{}, func(f *netlink.Flow) error {
		if f.Destination() == netip.MustParseAddr("10.65.0.2") {
			n++
			cut = f.Mark&bit != 0
		}
		return nil
	})
	if err != nil || n != 1 {
		c.t.Fatalf("%d flows, %v, want one", n, err)
	}
	return cut
}

func web(rules ...dataplane.Rule) *dataplane.Delta {
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	d := dataplane.NewDelta()
	d.Policies[id] = &dataplane.Policy{ID: id, Ingress: rules}
	return d
}

// TestRevisionMeansCut holds that a revision is in force only when live flows obey it, whatever comes
// meanwhile, and that what the rules' driver could not do waits.
func TestRevisionMeansCut(t *testing.T) {
	t.Parallel()
	c := newCutting(t)
	allow := dataplane.Rule{Action: dataplane.Allow}
	for rev := store.Revision(2); rev < 12; rev += 2 {
		if got := c.step(rev, web()); got != rev-1 {
			t.Fatalf("revision %d is said to be in force, before flows were looked for, want %d", got, rev-1)
		}
		c.await(rev)
		if !c.marked() {
			t.Fatalf("revision %d: the flow is not cut", rev)
		}
		c.step(rev+1, web(allow))
		c.await(rev + 1)
		if c.marked() {
			t.Fatalf("revision %d: the flow is still cut", rev+1)
		}
	}
	if got := c.step(20, nil); got != 20 {
		t.Errorf("a revision that changes nothing: %d is in force, want 20", got)
	}

	c.step(21, web()) // a pass begins, and while it is under way:
	if got := c.step(22, web(allow)); got != 20 {
		t.Errorf("revision %d is in force, want 20", got)
	}
	c.await(22)
	if c.marked() {
		t.Error("allowed again while the pass was under way: the flow is still cut")
	}

	c.flows.rules = errors.New("refused")
	c.step(23, web())
	if c.flows.pass != nil || c.marked() {
		t.Error("flows were judged by rules that the kernel does not hold")
	}
	c.flows.rules = nil
	c.await(23)
	if !c.marked() {
		t.Error("rules that were refused at first: the flow is not cut")
	}
}

// TestPassesRest holds that changes are judged together where passes have to rest, and that none is said to be in force before.
func TestPassesRest(t *testing.T) {
	t.Parallel()
	c := newCutting(t)
	rested := false
	for rev := store.Revision(2); !rested; rev += 2 {
		c.flows.d.Owe(time.Hour)
		got := c.step(rev, web())
		if rested = c.flows.resting; rested { // it was no second until then
			got = c.step(rev+1, web(dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.TCP}))
		}
		if got >= rev {
			t.Fatalf("revision %d is said to be in force before flows were looked for", got)
		}
		passes := 0
		if rested {
			passes = c.flows.d.Stats().Passes
		}
		c.await(rev + 1)
		if n := c.flows.d.Stats().Passes - passes; rested && n != 1 {
			t.Errorf("%d passes were made for two changes while they had to rest, want one", n)
		}
		if !c.marked() {
			t.Fatalf("revision %d: the flow is not cut", rev)
		}
	}
}

// TestCutAfterDeath holds that the flows are cut by the next agent if one dies when it has written the rules.
func TestCutAfterDeath(t *testing.T) {
	t.Parallel()
	c := newCutting(t)
	c.step(2, web())
	c.flows.Close()
	c.start()
	c.step(2, c.state.Delta())
	c.await(2)
	if !c.marked() {
		t.Error("the flow is not cut")
	}
}

// TestFlowsFail holds that a failed pass holds back the revision and no pod, and is made up for.
func TestFlowsFail(t *testing.T) {
	t.Parallel()
	c := newCutting(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.state.Apply(web())
	c.rules.Update(web())
	c.flows.Update(web())
	c.flows.hold()
	if err := c.rules.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.flows.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	c.flows.reach(2)
	<-c.bell
	err := c.flows.Sync(ctx)
	if !errors.Is(err, context.Canceled) || !resultOf(err).whole() {
		t.Errorf("a pass that failed: %v; want its error, as one that holds no pod up", err)
	}
	if got := c.flows.reach(2); got != 1 {
		t.Errorf("revision %d is in force, want 1", got)
	}
	c.await(2)
	if !c.marked() {
		t.Error("the flow is not cut")
	}
}

// TestCutBesideLesserTrouble holds that flows are judged where the rules are in the kernel though something
// else is wrong: here the backend that is wanted cannot be had, and another holds them.
func TestCutBesideLesserTrouble(t *testing.T) {
	t.Parallel()
	c := newCutting(t)
	r := newRules(func(w choice) (backend, error) {
		if w.backend == dataplane.Iptables {
			return nil, errors.New("no iptables here")
		}
		return keptOpen{c.rules}, nil
	})
	r.ns = c.ns
	a := New(Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Drivers: []Driver{{DriverRules, r}, {DriverFlows, c.flows}}})
	c.state.Settings.Backend = dataplane.Iptables
	c.state.Apply(web())
	r.Update(c.state.Delta())
	c.flows.Update(c.state.Delta())
	for end := time.After(10 * time.Second); a.status.Revision < 2; {
		err := a.sync(t.Context(), 2, 0)
		if err == nil || !resultOf(err).whole() {
			t.Fatalf("%v; want an error that leaves the rules in force", err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatal("flows do not obey the rules")
		}
	}
	if !c.marked() {
		t.Error("the flow is not cut")
	}
	if r.More() {
		t.Error("what iptables left cannot be looked for without it, and yet the agent is to try again at once, for ever")
	}
}

// refusing is a backend that refuses a policy's rules some times.
type refusing struct {
	backend
	policy dataplane.PolicyID
	times  int
}

func (r *refusing) Sync(ctx context.Context) error {
	if r.times == 0 {
		return r.backend.Sync(ctx)
	}
	r.times--
	for _, c := range r.Compilers() {
		_ = c.Settle()
		for name := range c.Program().Chains {
			for _, p := range c.Blame(name).Policies {
				if p.ID == r.policy {
					return &filter.Refused{Object: name, Err: errors.New("not with this kernel")}
				}
			}
		}
	}
	return errors.New("no such policy")
}

func (r *refusing) Close() {}

// TestCutOfOutcast holds that a flow is cut as soon as the policy that allows it is left out, and no more once that is taken again.
func TestCutOfOutcast(t *testing.T) {
	t.Parallel()
	c := newCutting(t)
	allow := web(dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.UDP})
	b := &refusing{backend: keptOpen{c.rules}}
	r := newRules(func(choice) (backend, error) { return b, nil })
	a := New(Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Drivers: []Driver{{DriverRules, r}, {DriverFlows, c.flows}}})
	rev := store.Revision(1)
	reach := func(d *dataplane.Delta, trouble bool) {
		t.Helper()
		rev++
		r.Update(d)
		c.flows.Update(d)
		for end := time.After(10 * time.Second); a.status.Revision < rev; {
			if err := a.sync(t.Context(), rev, 0); err != nil && !trouble {
				t.Fatal(err)
			}
			select {
			case <-time.After(time.Millisecond):
			case <-end:
				t.Fatal("flows do not obey the rules")
			}
		}
	}
	c.state.Apply(allow)
	reach(c.state.Delta(), false)
	if c.marked() {
		t.Fatal("the flow is cut though it is allowed")
	}
	for id := range allow.Policies {
		b.policy, b.times = id, patient
	}
	reach(dataplane.NewDelta(), true) // the kernel comes to refuse what it took
	if len(r.Problems()) == 0 || !c.marked() {
		t.Errorf("problems %v, the flow cut %v, want it cut by a policy that is left out", r.Problems(), c.marked())
	}
	reach(allow, false)
	if len(r.Problems()) > 0 || c.marked() {
		t.Errorf("problems %v, the flow cut %v, want neither", r.Problems(), c.marked())
	}
}

// TestCutAfterMeddling holds that a flow that began while somebody had our table out of the way is cut when
// the table is back, though nothing changed in what is wanted.
func TestCutAfterMeddling(t *testing.T) {
	t.Parallel()
	nstest.RequireTool(t, "nft")
	c := newCutting(t)
	c.step(2, web())
	c.await(2)
	a := New(Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Drivers: []Driver{{DriverRules, &rules{cur: keptOpen{c.rules}, nft: c.rules, now: time.Now, started: true, swept: true, outcasts: newOutcasts()}}, {DriverFlows, c.flows}}})
	a.inSync, a.pending.inSync = true, true
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = a.Run(ctx) })
	parts.Go(func() { _ = a.watchTables(ctx, c.ns) })
	defer parts.Wait()
	defer cancel()
	a.Update(store.Update{Revision: 3, InSync: true})
	for s, changed := a.Status(); s.Revision < 3; s, changed = a.Status() {
		<-changed
	}
	_, bit, _ := filter.Marks(c.state.Settings.MarkMask)
	// As one that passed while there was no table: established, and without the mark.
	err := c.table.Each(netlink.Query{}, func(f *netlink.Flow) error {
		k := f.Keep()
		if err := c.other.Change([]netlink.FlowChange{{Flow: &k, Mask: bit}}); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sh(t, c.ns, "nft delete table ip calico")
	for end := time.Now().Add(10 * time.Second); !c.marked(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the flow is not cut")
		}
	}
}
