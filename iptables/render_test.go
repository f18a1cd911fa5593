package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
)

const testMask = 0xff // accept 1, pass 2, cut 4, scratch 8

// program is a program with a set of each kind and a map.
func program(f dataplane.Family) *filter.Program {
	p := filter.NewProgram(f)
	set := func(k filter.SetKind, elements ...filter.Element) *filter.Set {
		s := &filter.Set{Kind: k, Elements: map[filter.Element]struct{}{}}
		for _, e := range elements {
			s.Elements[e] = struct{}{}
		}
		return s
	}
	port := func(min, max uint16) filter.Element {
		return filter.Element{Ports: dataplane.PortRange{Min: min, Max: max}}
	}
	p.Sets["ports"] = set(filter.PortRanges, port(80, 80), port(90, 95))
	many := set(filter.PortRanges)
	for i := range uint16(9) {
		many.Elements[port(100*i+1, 100*i+9)] = struct{}{}
	}
	p.Sets["many"] = many
	most := set(filter.PortRanges)
	for i := range uint16(slots * (maxParts + 1)) {
		most.Elements[port(2*i+1, 2*i+1)] = struct{}{}
	}
	p.Sets["most"] = most
	p.Sets["cali-interfaces"] = set(filter.Ifaces, filter.Element{Iface: "cali1"})
	p.Sets["cali40s.x"] = set(filter.Nets)
	p.Sets["cali4ps.x"] = set(filter.Triples)
	p.Maps["cali-map"] = &filter.Map{Field: filter.OutIface, Chains: map[string]string{"cali1": "cali-a"}}
	p.Chains["cali-a"] = &filter.Chain{}
	return p
}

// rendered are the bodies for one rule in a table, after their comments, without what the chain they are in does else.
func rendered(t *testing.T, in table, f dataplane.Family, r filter.Rule) ([]string, error) {
	t.Helper()
	p := program(f)
	p.Chains["cali-test"] = &filter.Chain{Base: &filter.Base{Hook: filter.Forward, Table: filter.FilterTable}, Rules: []filter.Rule{r}}
	im, _, err := newImage(p, testMask)
	if err != nil {
		return nil, err
	}
	w := &renderer{
		family: f, randomFully: true, chainName: im.chainName,
		setName: func(name string) (string, error) { return setName(f, name, p.Sets[name].Kind, 0), nil },
	}
	bodies, err := w.rules(in, im.contents["cali-test"])
	var out []string
	for _, b := range bodies {
		if hash := hashOf(b); len(hash) != 16 {
			t.Errorf("%s: hash %q", b, hash)
		}
		_, rest, _ := strings.Cut(b, `" `)
		out = append(out, rest)
	}
	return out, err
}

func match(f filter.Field, v filter.Value) filter.Match { return filter.Match{Field: f, Value: v} }

func no(m filter.Match) filter.Match {
	m.Not = true
	return m
}

func rule(v filter.Verdict, m ...filter.Match) filter.Rule { return filter.Rule{Match: m, Verdict: v} }

func do(a ...filter.Action) filter.Rule { return filter.Rule{Actions: a} }

func prefix(s string) filter.Value { return filter.Prefix{Prefix: netip.MustParsePrefix(s)} }

func TestRules(t *testing.T) {
	tcp := match(filter.Protocol, filter.Number(6))
	ref := func(name string, k filter.SetKind) filter.Value { return filter.SetRef{Name: name, Kind: k} }
	cali, tap := filter.Iface{Name: "cali", Prefix: true}, filter.Iface{Name: "tap", Prefix: true}
	for _, c := range []struct {
		rule filter.Rule
		want string // lines; "nothing"
	}{
		{rule(filter.Drop), "-j DROP"},
		{rule(filter.Accept), "-j ACCEPT"},
		{rule(filter.Return), "-j RETURN"},
		{rule(filter.Reject), "-j REJECT --reject-with icmp-port-unreachable"},
		{rule(filter.Reset, tcp), "-p 6 -j REJECT --reject-with tcp-reset"},
		{filter.Rule{Verdict: filter.Jump, Target: "cali-a"}, "-j cali-a"},
		{filter.Rule{Verdict: filter.Goto, Target: "cali-a"}, "-g cali-a"},
		{filter.Rule{Verdict: filter.Dispatch, Target: "cali-map"}, "-j cali-map"},
		{rule(filter.Continue), "nothing"},
		{do(filter.Count{}), "nothing"},
		{do(filter.SetMark{Mask: 3}), "-j MARK --set-xmark 0x0/0x3"},
		{do(filter.SetCtMark{Mask: 4, Value: 4}), "-j CONNMARK --set-xmark 0x4/0x4"},
		{do(filter.Notrack{}), "-j CT --notrack"},
		{do(filter.Masquerade{}), "-j MASQUERADE --random-fully"},
		{do(filter.SNAT{Addr: netip.MustParseAddr("1.2.3.4")}), "-j SNAT --to-source 1.2.3.4 --random-fully"},
		{do(filter.DNAT{Addr: netip.MustParseAddr("1.2.3.4"), Port: 80}), "-j DNAT --to-destination 1.2.3.4:80"},
		{do(filter.Log{Prefix: "a\"\\\nb"}), `-j LOG --log-level 5 --log-prefix "a\"\\?b"`},
		{do(filter.Log{Prefix: strings.Repeat("x", 70)}), `-j LOG --log-level 5 --log-prefix "` + strings.Repeat("x", 29) + `"`},
		{do(filter.Log{Rate: dataplane.Rate{Packets: 3, Per: dataplane.PerMinute, Burst: 5}}), "-m limit --limit 3/minute --limit-burst 5 -j LOG --log-level 5"},
		{do(filter.Log{Rate: dataplane.Rate{Packets: 1, Per: dataplane.PerDay, Burst: 5}}), "-m limit --limit 1/day --limit-burst 1 -j LOG --log-level 5"},
		{do(filter.Log{Rate: dataplane.Rate{Packets: 99999, Per: dataplane.PerSecond, Burst: 99999}}), "-m limit --limit 10000/second --limit-burst 10000 -j LOG --log-level 5"},

		{rule(filter.Drop, match(filter.SrcAddr, prefix("10.0.0.0/8")), no(match(filter.DstAddr, prefix("10.0.0.1/32")))), "-s 10.0.0.0/8 ! -d 10.0.0.1/32 -j DROP"},
		{rule(filter.Drop, match(filter.SrcAddr, prefix("10.0.0.0/8")), no(match(filter.SrcAddr, prefix("10.1.0.0/16")))),
			"-j MARK --set-xmark 0x0/0x8\n-s 10.1.0.0/16 -j MARK --set-xmark 0x8/0x8\n-s 10.0.0.0/8 -m mark --mark 0x0/0x8 -j DROP"},
		{rule(filter.Drop, match(filter.SrcAddr, prefix("10.0.0.0/8")), no(match(filter.SrcAddr, prefix("11.0.0.0/8")))), "-s 10.0.0.0/8 -j DROP"},
		{rule(filter.Drop, match(filter.SrcAddr, prefix("10.0.0.0/8")), no(match(filter.SrcAddr, prefix("8.0.0.0/6")))), "nothing"},
		{rule(filter.Drop, match(filter.SrcAddr, prefix("10.0.0.0/8")), match(filter.SrcAddr, prefix("10.1.0.0/16"))), "-s 10.1.0.0/16 -j DROP"},
		{rule(filter.Drop, match(filter.SrcAddr, prefix("10.0.0.0/8")), match(filter.SrcAddr, prefix("11.0.0.0/8"))), "nothing"},
		{rule(filter.Drop, no(match(filter.SrcAddr, prefix("0.0.0.0/0")))), "nothing"},
		{rule(filter.Drop, tcp, tcp, no(match(filter.Protocol, filter.Number(17)))), "-p 6 -j DROP"},
		{rule(filter.Drop, tcp, no(tcp)), "nothing"},
		{rule(filter.Drop, no(tcp)), "! -p 6 -j DROP"},
		{rule(filter.Drop, match(filter.InIface, cali), no(match(filter.OutIface, filter.Iface{Name: "eth0"}))), "-i cali+ ! -o eth0 -j DROP"},
		{rule(filter.Drop, no(match(filter.InIface, cali)), no(match(filter.InIface, tap))),
			"! -i cali+ -j MARK --set-xmark 0x0/0x8\n-i tap+ -j MARK --set-xmark 0x8/0x8\n! -i cali+ -m mark --mark 0x0/0x8 -j DROP"},
		{rule(filter.Drop, match(filter.OutIface, cali), no(match(filter.OutIface, ref("cali-interfaces", filter.Ifaces)))),
			"-o cali+ -j MARK --set-xmark 0x0/0x8\n-o cali+ -j cali-interfaces.out\n-o cali+ -m mark --mark 0x0/0x8 -j DROP"},
		{rule(filter.Drop, match(filter.InIface, ref("cali-interfaces", filter.Ifaces))),
			"-j MARK --set-xmark 0x0/0x8\n-j cali-interfaces.in.not\n-m mark --mark 0x0/0x8 -j DROP"},

		{rule(filter.Drop, tcp, match(filter.DstPort, filter.Ports{Min: 80, Max: 80})), "-p 6 -m multiport --dports 80 -j DROP"},
		{rule(filter.Drop, tcp, no(match(filter.SrcPort, filter.Ports{Min: 80, Max: 90}))), "-p 6 -m multiport ! --sports 80:90 -j DROP"},
		{rule(filter.Drop, tcp, no(match(filter.SrcPort, ref("ports", filter.PortRanges)))), "-p 6 -m multiport ! --sports 80,90:95 -j DROP"},
		{rule(filter.Drop, tcp, no(match(filter.DstPort, ref("many", filter.PortRanges)))),
			"-p 6 -m multiport ! --dports 1:9,101:109,201:209,301:309,401:409,501:509,601:609 -m multiport ! --dports 701:709,801:809 -j DROP"},
		{rule(filter.Drop, match(filter.SrcAddr, ref("cali40s.x", filter.Nets))), "-m set --match-set cali40s.x src -j DROP"},
		{rule(filter.Drop, no(match(filter.DstAddr, ref("cali40s.x", filter.Nets)))), "-m set ! --match-set cali40s.x dst -j DROP"},
		{rule(filter.Drop, tcp, no(match(filter.DstTriple, ref("cali4ps.x", filter.Triples)))),
			"-p 6 -m multiport --dports 0:65535 -m set ! --match-set cali40s.x:p dst,dst -j DROP"},
		{rule(filter.Drop, match(filter.Protocol, filter.Number(1)), no(match(filter.ICMP, filter.Type{Type: 8, Code: 1, HasCode: true}))), "-p 1 -m icmp ! --icmp-type 8/1 -j DROP"},
		{rule(filter.Drop, match(filter.Mark, filter.Bits{Mask: 3, Value: 1}), no(match(filter.CtMark, filter.Bits{Mask: 4, Value: 4}))), "-m mark --mark 0x1/0x3 -m connmark ! --mark 0x4/0x4 -j DROP"},
		{rule(filter.Drop, match(filter.ConnState, filter.Conns(1<<dataplane.ConnEstablished|1<<dataplane.ConnUntracked))), "-m conntrack --ctstate RELATED,ESTABLISHED,UNTRACKED -j DROP"},
		{rule(filter.Drop, no(match(filter.ConnState, filter.Conns(1<<dataplane.ConnInvalid)))), "-m conntrack ! --ctstate INVALID -j DROP"},
		{rule(filter.Drop, match(filter.SrcLocal, nil)), "-m addrtype --src-type LOCAL -j DROP"},
	} {
		got, err := rendered(t, filterTable, dataplane.IPv4, c.rule)
		want := strings.Split(c.want, "\n")
		if c.want == "nothing" {
			want = nil
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%+v: %v\n%s", c.rule, err, diff)
		}
	}
}

func TestRulesOfIPv6AndOtherTables(t *testing.T) {
	icmp := []filter.Match{match(filter.Protocol, filter.Number(58)), match(filter.ICMP, filter.Type{Type: 255})}
	for _, c := range []struct {
		in   table
		f    dataplane.Family
		rule filter.Rule
		want string
	}{
		{filterTable, dataplane.IPv6, rule(filter.Reject), "-j REJECT --reject-with icmp6-port-unreachable"},
		{filterTable, dataplane.IPv6, rule(filter.Drop, icmp...), "-p 58 -m icmp6 --icmpv6-type 255 -j DROP"},
		{filterTable, dataplane.IPv6, do(filter.DNAT{Addr: netip.MustParseAddr("fd00::1"), Port: 80}), "-j DNAT --to-destination [fd00::1]:80"},
		{raw, dataplane.IPv4, rule(filter.Reject), "-j DROP"},
		{mangle, dataplane.IPv4, rule(filter.Reset, match(filter.Protocol, filter.Number(6))), "-p 6 -j DROP"},
	} {
		got, err := rendered(t, c.in, c.f, c.rule)
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%+v: got %q, %v; want %q", c.rule, got, err, c.want)
		}
	}
}

// What iptables cannot hold is an error that says what.
func TestRefused(t *testing.T) {
	for want, r := range map[string]filter.Rule{
		"ICMP type 255":        rule(filter.Drop, match(filter.ICMP, filter.Type{Type: 255})),
		`device "cali+"`:       rule(filter.Drop, match(filter.InIface, filter.Iface{Name: "cali+"})),
		`device "a b"`:         rule(filter.Drop, match(filter.InIface, filter.Iface{Name: "a b"})),
		`device "a\nCOMMIT"`:   rule(filter.Drop, match(filter.InIface, filter.Iface{Name: "a\nCOMMIT"})),
		"there is no set gone": rule(filter.Drop, match(filter.DstPort, filter.SetRef{Name: "gone", Kind: filter.PortRanges})),
	} {
		if _, err := rendered(t, filterTable, dataplane.IPv4, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	p := program(dataplane.IPv4)
	r := rule(filter.Drop, match(filter.InIface, filter.SetRef{Name: "cali-interfaces", Kind: filter.Ifaces}))
	p.Chains["cali-test"] = &filter.Chain{Rules: []filter.Rule{r}}
	if _, _, err := newImage(p, 0x7); err == nil || !strings.Contains(err.Error(), "IptablesMarkMask") {
		t.Errorf("with 3 bits of mark: %v", err)
	}
}

// What takes two targets goes to a chain that has them, and on from there as the verdict says.
func TestHelpers(t *testing.T) {
	for _, c := range []struct {
		rule      filter.Rule
		way, last string
	}{
		{filter.Rule{Actions: []filter.Action{filter.SetMark{Mask: 1, Value: 1}}, Verdict: filter.Return}, "-g", "-j MARK --set-xmark 0x1/0x1"},
		{filter.Rule{Actions: []filter.Action{filter.Log{}}, Verdict: filter.Drop}, "-g", "-j DROP"},
		{filter.Rule{Actions: []filter.Action{filter.Log{}}, Verdict: filter.Jump, Target: "cali-a"}, "-j", "-g cali-a"},
		{filter.Rule{Actions: []filter.Action{filter.Log{}}, Verdict: filter.Goto, Target: "cali-a"}, "-g", "-g cali-a"},
		{filter.Rule{Actions: []filter.Action{filter.Log{}}, Verdict: filter.Dispatch, Target: "cali-map"}, "-j", "-g cali-map"},
		{filter.Rule{Actions: []filter.Action{filter.Log{}, filter.SetMark{Mask: 1}}}, "-j", "-j MARK --set-xmark 0x0/0x1"},
	} {
		p := program(dataplane.IPv4)
		p.Chains["cali-test"] = &filter.Chain{Base: &filter.Base{Table: filter.FilterTable}, Rules: []filter.Rule{c.rule}}
		im, _, err := newImage(p, testMask)
		if err != nil {
			t.Fatal(err)
		}
		w := &renderer{chainName: im.chainName}
		at, _ := w.rules(filterTable, im.contents["cali-test"])
		helper := im.contents["cali-test"][0].Target
		in, _ := w.rules(filterTable, im.placed[filterTable][helper])
		if !strings.HasSuffix(at[0], c.way+" "+helper) || !strings.HasSuffix(in[len(in)-1], c.last) {
			t.Errorf("%+v: got %q and in it %q", c.rule, at, in)
		}
	}
}

// More ports that a packet must not have than one rule of iptables-restore can name are noted in a chain.
func TestManyPorts(t *testing.T) {
	tcp := match(filter.Protocol, filter.Number(6))
	r := rule(filter.Drop, tcp, no(match(filter.DstPort, filter.SetRef{Name: "most", Kind: filter.PortRanges})))
	got, err := rendered(t, filterTable, dataplane.IPv4, r)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %q, %v", got, err)
	}
	way, chain, _ := strings.Cut(got[1], " -j ")
	if way != "-p 6" || !strings.HasPrefix(chain, portsPrefix) || got[2] != "-p 6 -m multiport --dports 0:65535 -m mark --mark 0x0/0x8 -j DROP" {
		t.Errorf("got %q", got)
	}
	p := program(dataplane.IPv4)
	p.Chains["cali-test"] = &filter.Chain{Base: &filter.Base{Table: filter.FilterTable}, Rules: []filter.Rule{r}}
	im, _, err := newImage(p, testMask)
	if err != nil {
		t.Fatal(err)
	}
	noted := im.placed[filterTable][chain]
	if len(noted) != maxParts+1 {
		t.Fatalf("%d rules note a port, want %d", len(noted), maxParts+1)
	}
	for _, r := range noted {
		if len(r.Actions) != 1 || r.Actions[0] != (filter.SetMark{Mask: 8, Value: 8}) {
			t.Errorf("got %+v", r)
		}
	}
	// When nothing leads to the chain any more, it is forgotten.
	if _, err := im.apply(p, &filter.Changes{Chains: map[string]*filter.Chain{"cali-test": {Base: p.Chains["cali-test"].Base}}}); err != nil || im.has(chain) {
		t.Errorf("chain %s is kept, %v", chain, err)
	}
}

// A tree finds each device and no other, in chains that are short; one device more touches few of them.
func TestTree(t *testing.T) {
	p := filter.NewProgram(dataplane.IPv4)
	m := &filter.Map{Field: filter.InIface, Chains: map[string]string{}}
	p.Maps["m"] = m
	names := []string{"cali", "cali1", "cali12"}
	for i := range 1000 {
		names = append(names, "cali"+hash(fmt.Sprint(i))[:11])
	}
	for i, n := range names {
		m.Chains[n] = fmt.Sprint("chain", i)
		p.Chains[m.Chains[n]] = &filter.Chain{}
	}
	p.Chains["x"] = &filter.Chain{Base: &filter.Base{Table: filter.FilterTable}, Rules: []filter.Rule{{Verdict: filter.Dispatch, Target: "m"}}}
	im, _, err := newImage(p, testMask)
	if err != nil {
		t.Fatal(err)
	}
	chains := im.contents
	var find func(chain, device string, depth int) string
	find = func(chain, device string, depth int) string {
		for _, r := range chains[chain] {
			at := r.Match[0].Value.(filter.Iface)
			if at.Name != device && !(at.Prefix && strings.HasPrefix(device, at.Name)) {
				continue
			}
			if !strings.HasPrefix(r.Target, "m-") {
				return r.Target
			}
			if depth > 15 {
				t.Fatalf("no end for %s", device)
			}
			return find(r.Target, device, depth+1)
		}
		return ""
	}
	for n, want := range m.Chains {
		if got := find("m", n, 0); got != want {
			t.Errorf("%s: got %q, want %q", n, got, want)
		}
		if got := find("m", n+"x", 0); got != "" && m.Chains[n+"x"] != got {
			t.Errorf("%sx: got %q", n, got)
		}
	}
	m.Chains["cali-more"] = "more"
	p.Chains["more"] = &filter.Chain{}
	touched, err := im.apply(p, &filter.Changes{
		Chains: map[string]*filter.Chain{"more": p.Chains["more"]},
		Maps:   map[string]*filter.MapChange{"m": {Add: map[string]string{"cali-more": "more"}}},
	})
	if n := len(touched.old[filterTable]); err != nil || n > 3 {
		t.Errorf("one device more touches %d chains of %d, want its own and at most 2: %v", n, len(chains), err)
	}
}

// Trees that follow changes are those that are made at once of what came of these.
func TestTreesFollow(t *testing.T) {
	rng := rand.New(rand.NewPCG(difftest.Seed(t), 1))
	p := filter.NewProgram(dataplane.IPv4)
	p.Maps["m"] = &filter.Map{Field: filter.InIface, Chains: map[string]string{}}
	nets := filter.SetRef{Name: "nets", Kind: filter.IfaceNets}
	known := filter.SetRef{Name: "known", Kind: filter.Ifaces}
	for _, ref := range []filter.SetRef{nets, known} {
		p.Sets[ref.Name] = &filter.Set{Kind: ref.Kind, Elements: map[filter.Element]struct{}{}}
	}
	p.Chains["x"] = &filter.Chain{Base: &filter.Base{Table: filter.FilterTable}, Rules: []filter.Rule{
		{Verdict: filter.Dispatch, Target: "m"},
		{Match: []filter.Match{match(filter.InIfaceSrc, nets)}, Verdict: filter.Drop},
		{Match: []filter.Match{match(filter.OutIface, known)}, Verdict: filter.Drop},
		{Match: []filter.Match{no(match(filter.InIface, known))}, Verdict: filter.Drop},
	}}
	p.Chains["a"], p.Chains["b"] = &filter.Chain{}, &filter.Chain{}
	im, _, err := newImage(p, testMask)
	if err != nil {
		t.Fatal(err)
	}
	for i := range difftest.Count(t, "IPTABLES_TREES", 300) {
		ch := randomDevices(rng, p)
		if _, err := im.apply(p, ch); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		at, _, err := newImage(p, testMask)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(at.placed, im.placed) {
			t.Fatalf("step %d: %s", i, cmp.Diff(at.placed, im.placed, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })))
		}
		if len(im.contents) != len(at.contents) {
			t.Fatalf("step %d: %d chains are kept, want %d", i, len(im.contents), len(at.contents))
		}
	}
}

// randomDevices has some devices of few letters come and go.
func randomDevices(rng *rand.Rand, p *filter.Program) *filter.Changes {
	mc := &filter.MapChange{Field: filter.InIface, Add: map[string]string{}, Remove: map[string]string{}}
	known, nets := &filter.SetChange{Kind: filter.Ifaces}, &filter.SetChange{Kind: filter.IfaceNets}
	for range rng.IntN(5) * rng.IntN(5) {
		var name []byte
		for range 1 + rng.IntN(6) {
			name = append(name, "abc"[rng.IntN(3)])
		}
		dev := "cali" + string(name)
		if was, ok := p.Maps["m"].Chains[dev]; ok {
			if mc.Add[dev] == "" {
				mc.Remove[dev] = was
			}
			delete(mc.Add, dev)
			delete(p.Maps["m"].Chains, dev)
		} else {
			mc.Add[dev] = []string{"a", "b"}[rng.IntN(2)]
			p.Maps["m"].Chains[dev] = mc.Add[dev]
		}
		flip(known, p.Sets["known"], filter.Element{Iface: dev})
		for range rng.IntN(3) {
			net := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(4))}), 16)
			flip(nets, p.Sets["nets"], filter.Element{Iface: dev, Prefix: net})
		}
	}
	return &filter.Changes{Maps: map[string]*filter.MapChange{"m": mc}, Sets: map[string]*filter.SetChange{"known": known, "nets": nets}}
}

// flip has an element come or go.
func flip(sc *filter.SetChange, s *filter.Set, e filter.Element) {
	list, other := &sc.Add, &sc.Remove
	if _, ok := s.Elements[e]; ok {
		list, other = other, list
		delete(s.Elements, e)
	} else {
		s.Elements[e] = struct{}{}
	}
	if at := slices.Index(*other, e); at >= 0 {
		*other = slices.Delete(*other, at, at+1)
		return
	}
	*list = append(*list, e)
}

func TestSetLines(t *testing.T) {
	net := func(s string) filter.Element { return filter.Element{Prefix: netip.MustParsePrefix(s)} }
	var e setEdit
	e.change("s", filter.Nets, []filter.Element{net("0.0.0.0/1"), net("10.0.0.0/8")}, []filter.Element{net("0.0.0.0/0")})
	if got, want := string(e.input()), "add s 10.0.0.0/8\ndel s 128.0.0.0/1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(e.back()), "add s 128.0.0.0/1\ndel s 10.0.0.0/8\n"; got != want {
		t.Errorf("back: got %q, want %q", got, want)
	}
	for _, c := range []struct {
		kind filter.SetKind
		e    filter.Element
		want string
	}{
		{filter.Addrs, net("0.0.0.0/32"), "0.0.0.0"},
		{filter.Nets, net("fd00::/64"), "fd00::/64"},
		{filter.IfaceAddrs, filter.Element{Iface: "cali1", Prefix: netip.MustParsePrefix("10.0.0.1/32")}, "10.0.0.1,cali1"},
		{filter.Triples, filter.Element{Protocol: 136, Ports: dataplane.PortRange{Min: 80, Max: 80}, Prefix: netip.MustParsePrefix("fd00::1/128")}, "fd00::1,udplite:80"},
	} {
		if got := members(c.kind, c.e); len(got) != 1 || got[0] != c.want {
			t.Errorf("%v: got %q, want %q", c.e, got, c.want)
		}
		if back, ok := parseMember(c.kind, c.want); !ok || back != c.e {
			t.Errorf("%s: read as %v, %v", c.want, back, ok)
		}
	}
}

// Names are no longer than the kernel takes, and different.
func TestNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"cali40s.abc", "cali4as.abc", "cali4ps.abc", "cali40s.abc/deny", "cali4as.abc/deny", "cali-nets-01234567890123456789", "cali-sources", "cali40h." + hash("x"), "cali4ah." + hash("x")} {
		kind := map[byte]filter.SetKind{'0': filter.Nets, 'a': filter.Addrs, 'p': filter.Triples}[name[5]]
		for attempt := range 3 {
			got := setName(dataplane.IPv4, name, kind, attempt)
			if len(got) > 31 || !isOurSet(got) || seen[got] != "" {
				t.Errorf("%s: %s (%d bytes), also of %q", name, got, len(got), seen[got])
			}
			seen[got] = name
			if temp := tempName(got); len(temp) > 31 || !isOurSet(temp) || seen[temp] != "" {
				t.Errorf("%s: temporary name %s", got, temp)
			}
		}
	}
	if got := chainName("cali-" + strings.Repeat("x", 40)); len(got) != 28 {
		t.Errorf("chain %s", got)
	}
}

func TestVersions(t *testing.T) {
	for s, want := range map[string]string{
		"iptables-restore v1.8.9 (nf_tables)": "nft 1.8.9", "iptables v1.8.4 (legacy)": "legacy 1.8.4",
		"iptables-restore v1.6.1": "legacy 1.6.1", "no idea": "auto 0.0.0",
	} {
		v, a, b, c := parseVersion(s)
		if got := fmt.Sprintf("%v %d.%d.%d", v, a, b, c); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
}

// Whatever the tools write, reading it does not panic, and takes others' objects for others'.
func FuzzParse(f *testing.F) {
	f.Add("*filter\n:FORWARD ACCEPT [0:0]\n:cali-x - [0:0]\n-A FORWARD -m comment --comment \"cali:abc\" -j cali-x\n-A cali-x -g\n-A FORWARD -j cali-y -m set --match-set\nCOMMIT\n# Table `nat' is incompatible, use 'nft' tool.\n")
	f.Add("create cali40x hash:net family inet hashsize 1 maxelem\nadd cali40x 10.0.0.0/8 nomatch\nadd other 1\ncreate\nadd\n")
	f.Add("*raw\n-A\n-A \n:\n-A cali-x --comment \"cali:\n")
	f.Fuzz(func(t *testing.T, s string) {
		h := &held{}
		for i := range h.tables {
			h.tables[i] = heldTable{chains: map[string][]string{}, length: map[string]int{}}
		}
		if err := h.parse(strings.NewReader(s)); err == nil {
			for in := range tables {
				h.tables[in].removal(in).input()
			}
			warnings("iptables", h, nil)
		}
		sets := map[string]*heldSet{}
		if err := parseSets(strings.NewReader(s), sets); err != nil {
			return
		}
		for name, set := range sets {
			if !isOurSet(name) {
				t.Errorf("it takes %q for ours", name)
			}
			for _, k := range []filter.SetKind{filter.Nets, filter.Triples, filter.IfaceAddrs} {
				compareSet(name, &filter.Set{Kind: k}, set, &setEdit{})
			}
		}
	})
}
