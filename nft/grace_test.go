package nft

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

// A transaction that a packet could meet half of, for the kernel has two generations of rules and
// another transaction went before, waits until no such packet is under way; and no other waits.
func TestWaits(t *testing.T) {
	p, q := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "p"}, dataplane.PolicyID{Kind: "NetworkPolicy", Name: "q"}
	rules := func(id dataplane.PolicyID, n int, sets ...dataplane.SetID) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) {
			var list []dataplane.Rule
			for i := range n {
				list = append(list, dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.Protocol(20 + i), Src: dataplane.Peer{Sets: sets}})
			}
			d.Policies[id] = &dataplane.Policy{ID: id, Ingress: list}
		}
	}
	members := difftest.Members("10.0.0.7/32")
	grow := func(d *dataplane.Delta) { d.Sets["s:1"] = &dataplane.SetDelta{Add: slices.Collect(maps.Keys(members))} }
	fill := func(d *dataplane.Delta) { d.Sets["s:2"] = &dataplane.SetDelta{Add: slices.Collect(maps.Keys(members))} }
	shrink := func(d *dataplane.Delta) {
		d.Sets["s:1"] = &dataplane.SetDelta{Remove: slices.Collect(maps.Keys(members))}
	}
	endpoint := func(name dataplane.Interface) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) {
			d.Endpoints[name] = &dataplane.Endpoint{
				Interface: name, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
				Ingress: []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{p, q}}},
			}
		}
	}
	gone := func(name dataplane.Interface) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) { d.Endpoints[name] = nil }
	}
	both := func(fs ...func(*dataplane.Delta)) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) {
			for _, f := range fs {
				f(d)
			}
		}
	}
	type change struct {
		f     func(*dataplane.Delta)
		waits int
	}
	var d *Driver
	later := func(*dataplane.Delta) { d.grace.passed = d.grace.sent }
	for name, list := range map[string][]change{
		"one chain again and again":          {{rules(p, 3), 0}, {rules(p, 4), 0}, {rules(p, 5), 0}},
		"one, then another":                  {{rules(p, 3), 0}, {rules(q, 3), 1}, {rules(q, 4), 0}, {rules(p, 4), 1}},
		"one, and long after another":        {{rules(p, 3), 0}, {later, 0}, {rules(q, 3), 0}},
		"two in one, with nothing before":    {{both(rules(p, 3), rules(q, 3)), 0}},
		"two in one, a moment after":         {{rules(p, 3), 0}, {both(rules(p, 4), rules(q, 3)), 1}},
		"two in one, after a set":            {{shrink, 0}, {both(rules(p, 3, "s:1"), rules(q, 3, "s:1")), 1}},
		"two in one that have a new set":     {{both(fill, rules(p, 2, "s:2"), rules(q, 2, "s:2")), 1}},
		"one that has a new set":             {{both(fill, rules(p, 2, "s:2")), 0}},
		"a set alone":                        {{shrink, 0}, {grow, 0}, {shrink, 0}},
		"a set that opens, after a rule":     {{shrink, 0}, {rules(p, 3, "s:1"), 0}, {grow, 1}, {shrink, 0}, {grow, 0}},
		"a set that opens with a rule":       {{shrink, 0}, {both(rules(p, 3, "s:1"), grow), 1}},
		"two that have a new set, and opens": {{shrink, 0}, {both(rules(p, 3, "s:1", "s:2"), rules(q, 3, "s:1"), grow), 2}},
		"endpoints, a moment after":          {{rules(p, 3), 0}, {endpoint("cali2"), 0}, {endpoint("cali3"), 0}, {gone("cali2"), 0}},
	} {
		t.Run(name, func(t *testing.T) {
			d = newDriver(t, nstest.New(t))
			holdUp(d.grace)
			step := func(f func(*dataplane.Delta)) int {
				delta, was := dataplane.NewDelta(), d.Stats().Waits
				f(delta)
				d.Update(delta)
				mustSync(t, d)
				return d.Stats().Waits - was
			}
			if n := step(both(rules(p, 1, "s:1"), rules(q, 1, "s:1"), grow, endpoint("cali1"))); n != 0 {
				t.Fatalf("a new table waited %d times", n)
			}
			later(nil)
			for i, c := range list {
				if n := step(c.f); n != c.waits {
					t.Errorf("change %d: %d waits, want %d", i, n, c.waits)
				}
			}
		})
	}
}

// holdUp has no more grace periods pass by themselves.
func holdUp(g *grace) {
	g.beforeAll()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits, g.running = 0, &period{}
}

// A grace period that has begun before a transaction is not one after it; one that has begun since
// serves who needs one, and after one that is over nobody waits.
func TestGracePeriods(t *testing.T) {
	g := newGrace()
	g.beforeAll()
	begun := make(chan chan bool)
	g.mu.Lock()
	g.period = func() {
		end := make(chan bool)
		begun <- end
		<-end
	}
	g.mu.Unlock()
	next := func() chan bool {
		select {
		case end := <-begun:
			return end
		case <-time.After(10 * time.Second):
			t.Fatal("no grace period begins")
		}
		return nil
	}
	note := func() { g.note(dataplane.IPv4, true, nil) }
	wait := func() (done chan bool) {
		done = make(chan bool)
		go func() {
			g.beforeAll()
			close(done)
		}()
		return done
	}

	note()
	end, done := next(), wait()
	close(end)
	select {
	case <-done: // that one has done
	case <-begun:
		t.Fatal("no use is made of the grace period that runs")
	}

	note()
	early := next()
	note()
	done = wait()
	late := next() // of its own
	close(early)
	again := next() // after the second
	select {
	case <-done:
		t.Error("a grace period has done that began before the transaction")
	default:
	}
	close(late)
	<-done
	waits := g.waits
	if g.beforeAll(); g.waits != waits {
		t.Error("waits after a grace period")
	}
	close(again)
}
