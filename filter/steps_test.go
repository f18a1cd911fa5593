package filter_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
)

// TestStepsOpenNothing holds that between two programs, whichever part of a step a packet
// meets, none passes that both deny.
func TestStepsOpenNothing(t *testing.T) {
	seed := difftest.Seed(t)
	const f = dataplane.IPv4
	g := difftest.NewGen(seed)
	state := g.State()
	c := filter.NewCompiler(f)
	c.Update(state.Delta())
	first, _ := c.Changes()
	before := filter.NewProgram(f)
	before.Apply(first)
	split, closed, open := 0, 0, 0
	for range difftest.Count(t, "FILTER_SPLITS", 600) {
		d := dataplane.NewDelta()
		for range 4 {
			state.Apply(d)
			d = g.Delta(state)
			d.Settings = nil
			c.Update(d)
		}
		state.Apply(d)
		ch, err := c.Changes()
		if err != nil {
			t.Fatal(err)
		}
		after := clone(before)
		after.Apply(ch)
		steps := ch.Steps()
		if len(steps) > 1 {
			split++
		}
		now := clone(before)
		for _, step := range steps {
			mix := clone(now)
			mix.Apply(part(g.Rand, step))
			for range 200 {
				p := g.Packet()
				if p.Family() != f || passes(before, p) || passes(after, p) {
					open++
					continue
				}
				closed++
				if passes(mix, p) {
					t.Fatalf("a packet passes on the way from one program to another that both deny: %+v\nafter\n%s", p, difftest.Describe(state))
				}
			}
			now.Apply(step)
		}
		if diff := now.Diff(after); !diff.Empty() {
			t.Fatalf("steps sum to another program: %+v", diff)
		}
		before = after
	}
	if split < 50 || closed < 1000 || open < 1000 {
		t.Errorf("%d changes of several steps, %d packets that both deny, %d others: the test says little", split, closed, open)
	}
}

func passes(p *filter.Program, x dataplane.Packet) bool {
	v := p.Trace(x).Verdict
	return v == dataplane.Accept || v == dataplane.Return
}

// part returns some of what a step changes: of a step that changes sets alone any of it, else
// the chains and maps.
func part(r *rand.Rand, step *filter.Changes) *filter.Changes {
	out := filter.NewProgram(0).Diff(filter.NewProgram(0))
	if len(step.Chains)+len(step.Maps) > 0 {
		return step
	}
	for name, sc := range step.Sets {
		some := *sc
		if !sc.New && sc.Kind != filter.Nets { // those change in one
			some.Add, some.Remove = half(r, sc.Add), half(r, sc.Remove)
		}
		if sc.New || r.IntN(2) == 0 {
			out.Sets[name] = &some
		}
	}
	return out
}

func half(r *rand.Rand, list []filter.Element) (out []filter.Element) {
	for _, e := range list {
		if r.IntN(2) == 0 {
			out = append(out, e)
		}
	}
	return out
}

func clone(p *filter.Program) *filter.Program {
	q := filter.NewProgram(p.Family)
	maps.Copy(q.Chains, p.Chains)
	for name, s := range p.Sets {
		q.Sets[name] = &filter.Set{Kind: s.Kind, Sense: s.Sense, Elements: maps.Clone(s.Elements)}
	}
	for name, m := range p.Maps {
		q.Maps[name] = &filter.Map{Field: m.Field, Chains: maps.Clone(m.Chains)}
	}
	return q
}

// A prefix gives way to those inside it, and they to it, in one transaction.
func TestOnePrefixForOthers(t *testing.T) {
	net := func(s string) filter.Element { return filter.Element{Prefix: netip.MustParsePrefix(s)} }
	wide, in, other := net("10.0.0.0/8"), net("10.1.0.0/16"), net("11.0.0.0/8")
	for _, x := range []struct {
		sense       filter.Sense
		add, remove []filter.Element
		want        int
	}{
		{filter.Opens, []filter.Element{in}, []filter.Element{wide}, 1},
		{filter.Closes, []filter.Element{in}, []filter.Element{wide}, 1},
		{filter.Opens, []filter.Element{wide}, []filter.Element{in}, 1},
		{filter.Opens, []filter.Element{other}, []filter.Element{in}, 2},
		{filter.Closes, []filter.Element{other}, []filter.Element{in}, 2},
		{filter.Neutral, []filter.Element{other}, []filter.Element{in}, 1},
	} {
		ch := &filter.Changes{Sets: map[string]*filter.SetChange{"s": {Kind: filter.Nets, Sense: x.sense, Add: x.add, Remove: x.remove}}}
		steps := ch.Steps()
		if len(steps) != x.want {
			t.Errorf("%+v: %d steps, want %d", x, len(steps), x.want)
		}
		if x.want == 2 && (len(steps[0].Sets["s"].Add) > 0) != (x.sense == filter.Closes) {
			t.Errorf("%+v: the first step is %+v", x, steps[0].Sets["s"])
		}
	}
}

// Only the last step, and only where it opens what stands, waits for packets that are under way.
func TestWhichStepOpens(t *testing.T) {
	e := []filter.Element{{Prefix: netip.MustParsePrefix("10.0.0.1/32")}}
	for name, x := range map[string]struct {
		change filter.SetChange
		want   bool
	}{
		"more open":       {filter.SetChange{Sense: filter.Opens, Add: e}, true},
		"fewer open":      {filter.SetChange{Sense: filter.Opens, Remove: e}, false},
		"more close":      {filter.SetChange{Sense: filter.Closes, Add: e}, false},
		"fewer close":     {filter.SetChange{Sense: filter.Closes, Remove: e}, true},
		"new":             {filter.SetChange{Sense: filter.Opens, New: true, Add: e}, false},
		"one that opened": {filter.SetChange{Sense: filter.Opens, Gone: true, Remove: e}, false},
		"one that closed": {filter.SetChange{Sense: filter.Closes, Gone: true, Remove: e}, true},
	} {
		x.change.Kind = filter.Addrs
		ch := &filter.Changes{Sets: map[string]*filter.SetChange{"s": &x.change}, Chains: map[string]*filter.Chain{"c": {}}}
		steps := ch.Steps()
		for i, s := range steps {
			if want := x.want && i == len(steps)-1; s.Opens() != want {
				t.Errorf("%s: step %d opens is %v, want %v", name, i, s.Opens(), want)
			}
		}
	}
}

// What a packet may meet half of are the chains that were there; not what nothing led to, and not
// those of an endpoint that goes.
func TestStanding(t *testing.T) {
	p, q := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "p"}, dataplane.PolicyID{Kind: "NetworkPolicy", Name: "q"}
	c := filter.NewCompiler(dataplane.IPv4)
	standing := func(f func(d *dataplane.Delta)) []string {
		t.Helper()
		d := dataplane.NewDelta()
		f(d)
		c.Update(d)
		ch, err := c.Changes()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, step := range ch.Steps() {
			names = append(names, step.Standing()...)
		}
		slices.Sort(names)
		for i, n := range names {
			names[i], _, _ = strings.Cut(strings.TrimPrefix(n, "cali-"), "-")
		}
		return names
	}
	endpoint := func(name dataplane.Interface, by ...dataplane.PolicyID) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) {
			tiers := []dataplane.TierPolicies{{Tier: "t", Policies: by}}
			d.Endpoints[name] = &dataplane.Endpoint{Interface: name, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ingress: tiers, Egress: tiers}
		}
	}
	rules := func(a dataplane.Action, n int) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) {
			r := slices.Repeat([]dataplane.Rule{{Action: a}}, n)
			d.Policies[p] = &dataplane.Policy{ID: p, Ingress: r, Egress: r[:1]}
		}
	}
	for _, x := range []struct {
		what   string
		change func(*dataplane.Delta)
		want   []string
	}{
		{"all is new", func(*dataplane.Delta) {}, nil},
		{"a policy that governs nothing", rules(dataplane.Allow, 1), nil},
		{"the first endpoint", endpoint("cali1", p), nil},
		{"another like it", endpoint("cali2", p), nil},
		{"a policy's ingress", rules(dataplane.Allow, 2), []string{"pi"}},
		{"both of its directions", rules(dataplane.Deny, 2), []string{"pi", "po"}},
		{"an endpoint is governed by others", endpoint("cali2", q), []string{"fw", "tw"}},
		{"the last one is", endpoint("cali1", q), []string{"fw", "gi", "go", "pi", "po", "tw"}},
		{"one goes of several", func(d *dataplane.Delta) { d.Endpoints["cali2"] = nil }, nil},
		{"the last goes", func(d *dataplane.Delta) { d.Endpoints["cali1"] = nil }, []string{"gi", "go", "pi", "po"}},
		{"tunnels", func(d *dataplane.Delta) {
			d.Tunnels["vxlan.calico"] = &dataplane.Tunnel{Encap: dataplane.VXLAN, Family: dataplane.IPv4, Addr: netip.MustParseAddr("10.0.0.64"), Port: 4789}
		}, []string{"base chains", "base chains"}},
	} {
		if got := standing(x.change); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v stand, want %v", x.what, got, x.want)
		}
	}
}
