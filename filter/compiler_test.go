package filter

import (
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
)

// What is gone leaves nothing behind in the Compiler's books.
func TestCompilerForgets(t *testing.T) {
	c := NewCompiler(dataplane.IPv4)
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "p"}
	ep := &dataplane.Endpoint{Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ingress: []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{id}}}}
	step := func(d *dataplane.Delta) [9]int {
		c.Update(d)
		if _, err := c.Changes(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range c.sets {
			n += len(m.sets) + m.chains.len()
		}
		return [9]int{len(c.ctx.sets), len(c.ctx.policies), len(c.ctx.groups), len(c.sets), n, len(c.refs), len(c.moved), len(c.compiled), len(c.pending)}
	}
	empty := step(dataplane.NewDelta())
	d := dataplane.NewDelta()
	d.Endpoints["cali1"] = ep
	never := dataplane.Peer{Sets: []dataplane.SetID{"s:b"}, PortSets: []dataplane.SetID{"p:c"}} // and not of this family
	d.Policies[id] = &dataplane.Policy{ID: id, Ingress: []dataplane.Rule{
		{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:a"}}, Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 1, Max: 1}, {Min: 3, Max: 3}}}},
		{Action: dataplane.Allow, Src: never, Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 2, Max: 1}}}},
	}}
	all := []dataplane.Member{
		{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Prefix: netip.MustParsePrefix("10.0.0.1/32")},
		{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Protocol: dataplane.TCP, Port: 1},
	}
	full := step(d)
	if full == empty {
		t.Fatalf("an endpoint with a policy leaves the books as they were: %v", full)
	}
	d = dataplane.NewDelta()
	d.Sets["s:a"], d.Sets["s:unused"] = &dataplane.SetDelta{Add: all}, &dataplane.SetDelta{Add: all}
	step(d)
	d = dataplane.NewDelta()
	d.Sets["s:a"], d.Sets["s:unused"] = nil, &dataplane.SetDelta{Remove: all}
	d.Endpoints["cali1"], d.Policies[id] = nil, nil
	if got := step(d); got != empty {
		t.Errorf("books are %v, want %v as at first (sets, policies, groups, members, their users, refs, moved, compiled, pending)", got, empty)
	}
}
