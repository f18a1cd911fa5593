package filter_test

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
)

// anyConn gives some packets another state, a fragment, or a link-local source, which a
// kernel is not asked about.
func anyConn(g *difftest.Gen, p dataplane.Packet) dataplane.Packet {
	if g.IntN(4) == 0 {
		p.Conn = difftest.Of(g, dataplane.ConnEstablished, dataplane.ConnInvalid, dataplane.ConnUntracked)
	}
	p.Fragment = g.IntN(10) == 0
	if p.Family() == dataplane.IPv6 && g.IntN(8) == 0 {
		p.Src = difftest.LinkLocal(g)
	}
	return p
}

func TestTraceIsEval(t *testing.T) {
	g := difftest.NewGen(difftest.Seed(t))
	seen := map[dataplane.Verdict]int{}
	for range difftest.Count(t, "FILTER_STATES", 250) {
		s := g.State()
		progs := map[dataplane.Family]*filter.Program{}
		for _, f := range dataplane.Families {
			prog, err := filter.Compile(s, f)
			if err != nil {
				t.Fatal(err)
			}
			progs[f] = prog
		}
		for range 60 {
			p := anyConn(g, g.Packet())
			want, got := dataplane.Eval(s, p), progs[p.Family()].Trace(p)
			if want.Verdict != got.Verdict || want.Masquerade != got.Masquerade {
				t.Fatalf("packet %+v\nEval  %+v\nTrace %+v\n%s", p, want, got, difftest.Describe(s))
			}
			if n := difftest.Logs(want); n != len(got.Logs) {
				t.Fatalf("packet %+v: logged %d times, want %d\n%s", p, len(got.Logs), n, difftest.Describe(s))
			}
			seen[want.Verdict]++
		}
	}
	for _, v := range []dataplane.Verdict{dataplane.Accept, dataplane.Drop, dataplane.Reject, dataplane.Return} {
		if seen[v] < 100 {
			t.Errorf("only %d packets end in %v: the test says little of it", seen[v], v)
		}
	}
}

func TestChangesSumToCompile(t *testing.T) {
	seed := difftest.Seed(t)
	for _, f := range dataplane.Families {
		g := difftest.NewGen(seed)
		state, sum := dataplane.NewState(), filter.NewProgram(f)
		c := filter.NewCompiler(f)
		for i := range difftest.Count(t, "FILTER_STEPS", 400) {
			d := g.Delta(state)
			c.Update(d)
			state.Apply(d)
			if g.IntN(3) == 0 {
				continue // several changes at once
			}
			ch, err := c.Changes()
			if err != nil {
				t.Fatal(err)
			}
			checkDisjoint(t, sum, ch)
			sum.Apply(ch)
			want, err := filter.Compile(state, f)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(want, sum) { // cmp.Diff is 20 times slower
				diff := cmp.Diff(want, sum, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
				t.Fatalf("step %d, %v: sum of changes differs from Compile (-want +got):\n%s", i, f, diff)
			}
			if !reflect.DeepEqual(want, c.Program()) {
				t.Fatalf("step %d, %v: Program is not what its changes sum to", i, f)
			}
			if ch, _ := c.Changes(); !ch.Empty() {
				t.Fatalf("step %d, %v: Changes again gives %+v, want nothing", i, f, ch)
			}
		}
	}
}

// checkDisjoint holds that changes say nothing that is so already.
func checkDisjoint(t *testing.T, p *filter.Program, ch *filter.Changes) {
	t.Helper()
	for name, sc := range ch.Sets {
		have := map[filter.Element]struct{}{}
		if p.Sets[name] != nil {
			have = p.Sets[name].Elements
		}
		for _, e := range sc.Add {
			if _, ok := have[e]; ok {
				t.Fatalf("set %s: %v is added again", name, e)
			}
		}
		for _, e := range sc.Remove {
			if _, ok := have[e]; !ok {
				t.Fatalf("set %s: %v is removed, but is not there", name, e)
			}
		}
		if sc.New == (p.Sets[name] != nil) {
			t.Fatalf("set %s: New is %v", name, sc.New)
		}
		if sc.Gone && (len(sc.Remove) != len(have) || len(sc.Add) > 0) {
			t.Fatalf("set %s goes: %d elements are removed and %d added, want the %d that were in it removed", name, len(sc.Remove), len(sc.Add), len(have))
		}
	}
	for name, chain := range ch.Chains {
		if chain == nil && p.Chains[name] == nil {
			t.Fatalf("chain %s is removed, but is not there", name)
		}
	}
}

// A change of one policy is one chain, and one of a set one element, however many
// endpoints there are.
func TestChangesAreProportional(t *testing.T) {
	s := dataplane.NewState()
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "p0"}
	g := difftest.NewGen(1)
	for i := range 1000 {
		ep := g.Endpoint(0)
		ep.Interface = difftest.Iface(i)
		ep.Ingress = []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{id}}}
		s.Endpoints[ep.Interface] = ep
	}
	set := func(p dataplane.Protocol) *dataplane.Policy {
		return &dataplane.Policy{ID: id, Ingress: []dataplane.Rule{{Action: dataplane.Allow, Protocol: p, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:a"}}}}}
	}
	s.Policies[id] = set(dataplane.TCP)
	other := dataplane.PolicyID{Kind: "Profile", Name: "p"}
	s.Policies[other] = &dataplane.Policy{ID: other, Ingress: []dataplane.Rule{{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:b"}}}}}
	s.Endpoints[difftest.Iface(0)].Profiles = []dataplane.PolicyID{other}
	c := filter.NewCompiler(dataplane.IPv4)
	c.Update(s.Delta())
	if _, err := c.Changes(); err != nil {
		t.Fatal(err)
	}
	d := dataplane.NewDelta()
	d.Policies[id] = set(dataplane.UDP)
	c.Update(d)
	ch, _ := c.Changes()
	if len(ch.Chains) != 1 || len(ch.Sets)+len(ch.Maps) != 0 {
		t.Errorf("a policy's change touches chains %v, %d sets, %d maps; want one chain", slices.Collect(maps.Keys(ch.Chains)), len(ch.Sets), len(ch.Maps))
	}
	for _, step := range []struct {
		member string
		chains int
	}{{"10.0.0.1/32", 0}, {"10.0.0.0/8", 1}, {"11.0.0.0/8", 0}, {"10.0.0.2/32", 0}} {
		d = dataplane.NewDelta()
		d.Sets["s:a"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: difftest.Prefix(step.member)}}}
		c.Update(d)
		ch, _ = c.Changes()
		if len(ch.Chains) != step.chains || len(ch.Maps) != 0 || len(ch.Sets) != 1 {
			t.Errorf("%s is added: %+v; want one set, %d chains", step.member, ch, step.chains)
		}
		for _, sc := range ch.Sets {
			if len(sc.Add) != 1 || len(sc.Remove) != 0 {
				t.Errorf("%s is added: %+v; want one element", step.member, sc)
			}
		}
	}
}

func TestSettingsThatCannotBeHeld(t *testing.T) {
	for name, change := range map[string]func(*dataplane.Settings){
		"no mark":          func(s *dataplane.Settings) { s.MarkMask = 0 },
		"one mark":         func(s *dataplane.Settings) { s.MarkMask = 0x100 },
		"no prefix":        func(s *dataplane.Settings) { s.InterfacePrefixes = nil },
		"empty prefix":     func(s *dataplane.Settings) { s.InterfacePrefixes = []string{"cali", ""} },
		"no address":       func(s *dataplane.Settings) { s.NATOutgoingAddr = "here" },
		"prefix too long":  func(s *dataplane.Settings) { s.InterfacePrefixes = []string{"calicalicalicali"} },
		"long log prefix":  func(s *dataplane.Settings) { s.LogPrefix = strings.Repeat("x", 126) },
		"prefix with path": func(s *dataplane.Settings) { s.InterfacePrefixes = []string{"a/b"} },
	} {
		s := dataplane.NewState()
		change(&s.Settings)
		if _, err := filter.Compile(s, dataplane.IPv4); err == nil {
			t.Errorf("%s: no error", name)
		}
		c := filter.NewCompiler(dataplane.IPv4)
		c.Update(s.Delta())
		if _, err := c.Changes(); err == nil {
			t.Errorf("%s: no error of the Compiler", name)
		}
		if len(c.Program().Chains) != 0 {
			t.Errorf("%s: the Compiler's program changed", name)
		}
	}
}

// A node of one family has next to nothing in the other's table, and a change of an
// endpoint or policy nothing to do there.
func TestFamilyOfNoAddress(t *testing.T) {
	s := dataplane.NewState()
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "p0"}
	s.Policies[id] = &dataplane.Policy{ID: id, Ingress: []dataplane.Rule{{Action: dataplane.Allow}}}
	for i := range 20 {
		s.Endpoints[difftest.Iface(i)] = &dataplane.Endpoint{
			Interface: difftest.Iface(i), Addrs: []netip.Addr{difftest.PodAddr(i, dataplane.IPv4)},
			Ingress: []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{id}}},
		}
	}
	c := filter.NewCompiler(dataplane.IPv6)
	c.Update(s.Delta())
	if _, err := c.Changes(); err != nil {
		t.Fatal(err)
	}
	for name := range c.Program().Chains {
		if strings.HasPrefix(name, "cali-tw-") || strings.HasPrefix(name, "cali-pi-") || strings.HasPrefix(name, "cali-gi-") {
			t.Errorf("chain %s in the table of a family that no pod has", name)
		}
	}
	d := dataplane.NewDelta()
	ep := *s.Endpoints["cali3"]
	ep.Ingress = nil
	d.Endpoints["cali3"], d.Policies[id] = &ep, nil
	c.Update(d)
	if ch, _ := c.Changes(); !ch.Empty() {
		t.Errorf("changes %+v, want none", ch)
	}
}

// Many networks of which none contains another, and one that contains them all.
func TestManyNetworks(t *testing.T) {
	const n = 20000
	s := dataplane.NewState()
	prof := dataplane.PolicyID{Kind: "Profile", Name: "p"}
	s.Endpoints["cali0"] = &dataplane.Endpoint{
		Interface: "cali0", Addrs: []netip.Addr{difftest.PodAddr(0, dataplane.IPv4)}, Profiles: []dataplane.PolicyID{prof},
	}
	s.Policies[prof] = &dataplane.Policy{ID: prof, Ingress: []dataplane.Rule{
		{Action: dataplane.Deny, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:a"}}},
	}}
	c := filter.NewCompiler(dataplane.IPv4)
	c.Update(s.Delta())
	step := func(sd *dataplane.SetDelta) (add, remove int) {
		d := dataplane.NewDelta()
		d.Sets["s:a"] = sd
		c.Update(d)
		ch, err := c.Changes()
		if err != nil {
			t.Fatal(err)
		}
		for name, sc := range ch.Sets {
			if !sc.New && strings.HasSuffix(name, "s.a/deny") {
				add, remove = len(sc.Add), len(sc.Remove)
			}
		}
		return add, remove
	}
	many := &dataplane.SetDelta{}
	for i := range n {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)
		many.Add = append(many.Add, dataplane.Member{Prefix: p})
	}
	step(&dataplane.SetDelta{Add: []dataplane.Member{{Prefix: difftest.Prefix("1.0.0.0/8")}}})
	if add, remove := step(many); add != n || remove != 0 {
		t.Errorf("%d networks: %d added, %d removed", n, add, remove)
	}
	all := []dataplane.Member{{Prefix: difftest.Prefix("20.0.0.0/8")}}
	if add, remove := step(&dataplane.SetDelta{Add: all}); add != 1 || remove != n {
		t.Errorf("the one around them: %d added, %d removed", add, remove)
	}
	if add, remove := step(&dataplane.SetDelta{Remove: all}); add != n || remove != 1 {
		t.Errorf("without it: %d added, %d removed", add, remove)
	}
}

// A rule that becomes several logs once, whichever of them fit.
func TestLogsOnce(t *testing.T) {
	s := dataplane.NewState()
	prof := dataplane.PolicyID{Kind: "Profile", Name: "p"}
	a := difftest.PodAddr(0, dataplane.IPv4)
	s.Endpoints["cali0"] = &dataplane.Endpoint{Interface: "cali0", Addrs: []netip.Addr{a}, Profiles: []dataplane.PolicyID{prof}}
	s.Policies[prof] = &dataplane.Policy{ID: prof, Ingress: []dataplane.Rule{{
		Action: dataplane.Log,
		Dst:    dataplane.Peer{Ports: []dataplane.PortRange{{Min: 80, Max: 80}}, PortSets: []dataplane.SetID{"p:a", "p:b"}},
	}}}
	s.Sets["p:b"] = dataplane.Members{{Prefix: netip.PrefixFrom(a, 32), Protocol: dataplane.TCP, Port: 80}: {}}
	s.Sets["p:a"] = s.Sets["p:b"]
	prog, err := filter.Compile(s, dataplane.IPv4)
	if err != nil {
		t.Fatal(err)
	}
	p := dataplane.Packet{In: "eth0", Out: "cali0", Src: netip.MustParseAddr("8.8.8.8"), Dst: a, Protocol: dataplane.TCP, SrcPort: 9, DstPort: 80}
	if got := prog.Trace(p).Logs; len(got) != 1 {
		t.Errorf("logged %d times, want once", len(got))
	}
}
