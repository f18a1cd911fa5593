package conntrack

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
)

// TestBudget holds that what comes after a quiet time is not made to wait; that a pass which may deny waits no longer than is
// bearable, whatever came before; and that all others take their part of the processor, and no more.
func TestBudget(t *testing.T) {
	r := rand.New(rand.NewPCG(difftest.Seed(t), 7))
	for range 200 {
		start := time.Unix(1e9, 0)
		now := start
		var b budget
		var used time.Duration
		for range 100 {
			denies := r.IntN(4) == 0
			wait := b.wait(now, denies)
			if most := urgent + b.last; denies && wait > most {
				t.Fatalf("a pass that may deny waits %v after one of %v", wait, b.last)
			}
			if quiet := b.wait(now.Add(patient), denies); quiet > 0 {
				t.Fatalf("waits %v after a quiet time", quiet)
			}
			now = now.Add(wait)
			cost := time.Duration(r.IntN(400)) * time.Millisecond
			if b.wait(now, denies) > 0 {
				t.Fatal("has waited, and has to wait")
			}
			if !denies {
				used += cost
			}
			now = now.Add(cost)
			b.spent(now, cost, cost)
			if limit := now.Sub(start)/share + saved + 400*time.Millisecond; used > limit {
				t.Fatalf("%v of %v have been used by passes that deny nothing, want at most %v", used, now.Sub(start), limit)
			}
		}
	}
}

// TestDenies holds which changes are taken for such that may deny a flow that lives, and so do not wait for long.
func TestDenies(t *testing.T) {
	policy := func(name string) dataplane.PolicyID { return dataplane.PolicyID{Kind: "NetworkPolicy", Name: name} }
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 65, 0, n}) }
	pod := func(n byte, policies ...string) *dataplane.Endpoint {
		ep := &dataplane.Endpoint{Interface: difftest.Iface(int(n)), Addrs: []netip.Addr{addr(n)}}
		tier := dataplane.TierPolicies{Tier: "t", Default: dataplane.Deny}
		for _, p := range policies {
			tier.Policies = append(tier.Policies, policy(p))
		}
		if len(policies) > 0 {
			ep.Ingress = []dataplane.TierPolicies{tier}
		}
		return ep
	}
	rule := func(a dataplane.Action, x dataplane.Peer) *dataplane.Policy {
		return &dataplane.Policy{Ingress: []dataplane.Rule{{Action: a, Src: x}}}
	}
	in, out := dataplane.Peer{Sets: []dataplane.SetID{"s"}}, dataplane.Peer{NotSets: []dataplane.SetID{"s"}}
	member := dataplane.Member{Prefix: netip.PrefixFrom(addr(7), 32)}
	add, remove := &dataplane.SetDelta{Add: []dataplane.Member{member}}, &dataplane.SetDelta{Remove: []dataplane.Member{member}}
	type delta = dataplane.Delta
	for name, c := range map[string]struct {
		policy *dataplane.Policy // p, of pod 1
		change func(*delta)
		none   bool // no pass
		denies bool
	}{
		"a pod comes": {nil, func(d *delta) { d.Endpoints["cali2"] = pod(2, "p") }, false, false},
		"a pod comes with a policy": {nil, func(d *delta) {
			d.Endpoints["cali2"] = pod(2, "q")
			d.Policies[policy("q")] = &dataplane.Policy{}
		}, false, false},
		"a pod comes for which members come": {rule(dataplane.Allow, in), func(d *delta) { d.Endpoints["cali7"], d.Sets["s"] = pod(7), add }, false, false},
		"a pod goes":                         {nil, func(d *delta) { d.Endpoints["cali1"] = nil }, false, false},
		"a pod changes":                      {nil, func(d *delta) { d.Endpoints["cali1"] = pod(1) }, false, true},
		"an address goes to another": {nil, func(d *delta) {
			x := *pod(1)
			x.Interface = "cali2"
			d.Endpoints["cali1"], d.Endpoints["cali2"] = nil, &x
		}, false, true},
		"a policy changes":            {nil, func(d *delta) { d.Policies[policy("p")] = &dataplane.Policy{} }, false, true},
		"a policy of nobody":          {nil, func(d *delta) { d.Policies[policy("q")] = &dataplane.Policy{} }, true, false},
		"allow, one comes":            {rule(dataplane.Allow, in), func(d *delta) { d.Sets["s"] = add }, false, false},
		"allow, one goes":             {rule(dataplane.Allow, in), func(d *delta) { d.Sets["s"] = remove }, false, true},
		"allow but, one comes":        {rule(dataplane.Allow, out), func(d *delta) { d.Sets["s"] = add }, false, true},
		"allow but, one goes":         {rule(dataplane.Allow, out), func(d *delta) { d.Sets["s"] = remove }, false, false},
		"deny, one comes":             {rule(dataplane.Deny, in), func(d *delta) { d.Sets["s"] = add }, false, true},
		"deny, one goes":              {rule(dataplane.Deny, in), func(d *delta) { d.Sets["s"] = remove }, false, false},
		"deny but, one comes":         {rule(dataplane.Deny, out), func(d *delta) { d.Sets["s"] = add }, false, false},
		"deny but, one goes":          {rule(dataplane.Deny, out), func(d *delta) { d.Sets["s"] = remove }, false, true},
		"pass, one comes":             {rule(dataplane.Pass, in), func(d *delta) { d.Sets["s"] = add }, false, true},
		"pass, one goes":              {rule(dataplane.Pass, in), func(d *delta) { d.Sets["s"] = remove }, false, true},
		"a set goes":                  {rule(dataplane.Allow, in), func(d *delta) { d.Sets["s"] = nil }, false, true},
		"settings":                    {nil, func(d *delta) { s := dataplane.DefaultSettings(); d.Settings = &s }, false, true},
		"a pod that came a while ago": {nil, func(d *delta) { d.Policies[policy("p")] = &dataplane.Policy{} }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Driver{turn: newTurn(), owners: newOwners(), settings: dataplane.DefaultSettings(), now: newScope(), next: newScope()}
			compilers := []*filter.Compiler{filter.NewCompiler(dataplane.IPv4), filter.NewCompiler(dataplane.IPv6)}
			d.compilers = func() []*filter.Compiler { return compilers }
			step := func(change func(*delta)) *Pass {
				x := dataplane.NewDelta()
				change(x)
				d.Update(x)
				for _, c := range compilers {
					c.Update(x)
					if err := c.Settle(); err != nil {
						t.Fatal(err)
					}
				}
				p, _ := d.Begin()
				d.Release()
				return p
			}
			step(func(x *delta) {
				s := dataplane.DefaultSettings()
				x.Settings, x.Sets["s"] = &s, &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: netip.MustParsePrefix("10.65.9.0/24")}, member}}
				x.Endpoints["cali1"] = pod(1, "p")
				if x.Policies[policy("p")] = c.policy; c.policy == nil {
					x.Policies[policy("p")] = &dataplane.Policy{}
				}
			})
			if name == "a pod that came a while ago" {
				step(func(x *delta) { x.Endpoints["cali1"] = nil })
				d.budget.spent(time.Now(), 0, time.Hour)
				if p := step(func(x *delta) { x.Endpoints["cali1"] = pod(1, "p") }); p != nil || d.next.denies {
					t.Error("there is no rest, or need of haste, where nothing can be denied")
				}
				d.budget = budget{}
			}
			switch p := step(c.change); {
			case (p == nil) != c.none:
				t.Errorf("a pass %v, want one %v", p != nil, !c.none)
			case p != nil && p.denies != c.denies:
				t.Errorf("is taken for one that may deny: %v, want %v", p.denies, c.denies)
			}
		})
	}
}
