package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

func sample() *dataplane.State { return difftest.Sample(dataplane.NFTables) }

func newDriver(t *testing.T, ns int) *Driver {
	t.Helper()
	d, err := New(ns, Config{LogGroup: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func mustSync(t *testing.T, d *Driver) {
	t.Helper()
	if err := d.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// quiet holds that the kernel has what d believes: reading it back writes nothing.
func quiet(t *testing.T, d *Driver) {
	t.Helper()
	before := d.Stats()
	d.Resync()
	mustSync(t, d)
	before.Reads += 2
	if after := d.Stats(); after != before {
		t.Fatalf("Sync after Resync: %+v, want %+v", after, before)
	}
}

func TestSecondSyncWritesNothing(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	if got := d.Stats(); got.Replacements != 2 || got.Transactions != 4 {
		t.Fatalf("first Sync: %+v, want 2 tables put in place", got)
	}
	quiet(t, d)
	mustSync(t, d)
	d.Update(sample().Delta())
	mustSync(t, d)
	if n := d.Stats().Transactions; n != 4 {
		t.Errorf("the same state again: %d transactions, want none more than the first 4", n)
	}
	again := newDriver(t, ns)
	again.Update(sample().Delta())
	mustSync(t, again)
	if s := again.Stats(); s.Transactions != 0 || s.Reads != 2 {
		t.Errorf("another Driver's first Sync: %+v, want 2 reads and no transaction", s)
	}
}

// Random small changes, one transaction each, leave the kernel with what a fresh start
// would: prefixes that cover each other come and go, sets and chains too.
func TestChangesInTheKernel(t *testing.T) {
	seed := difftest.Seed(t)
	g := difftest.NewGen(seed)
	d := newDriver(t, nstest.New(t))
	s := dataplane.NewState()
	for i := range difftest.Count(t, "NFT_STEPS", 300) {
		delta := g.Delta(s)
		d.Update(delta)
		s.Apply(delta)
		if err := d.Sync(context.Background()); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if i%5 == 0 {
			quiet(t, d)
		}
	}
	if n := d.Stats().Replacements; n != 2 {
		t.Errorf("%d tables were replaced whole, want the first 2 only", n)
	}
}

// A change that meets a table that others changed fails whole, and the next Sync puts
// all right.
func TestDriftBeforeAChange(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	c := conn(t, ns)
	c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4})
	flush(t, c)
	delta := dataplane.NewDelta()
	delta.Endpoints["cali1"] = nil
	d.Update(delta)
	if err := d.Sync(context.Background()); err == nil {
		t.Fatal("no error of a change to a table that is gone")
	}
	mustSync(t, d)
	quiet(t, d)
}

func TestForeignTablesStay(t *testing.T) {
	ns := nstest.New(t)
	c := conn(t, ns)
	other := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyIPv4})
	twin := c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}) // our name, another family
	for _, table := range []*nftables.Table{other, twin} {
		ch := c.AddChain(&nftables.Chain{Name: "cali-FORWARD", Table: table})
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: []expr.Any{&expr.Counter{}}})
	}
	flush(t, c)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	quiet(t, d)
	for _, table := range []*nftables.Table{other, twin} {
		rules, err := c.GetRules(table, &nftables.Chain{Name: "cali-FORWARD", Table: table})
		if err != nil || len(rules) != 1 {
			t.Errorf("table %s of family %d: %d rules, %v; want the one that was there", table.Name, table.Family, len(rules), err)
		}
	}
}

// Whoever keeps changing tables of their own keeps the kernel from telling us ours whole: it
// is put in place all the same.
func TestRestlessNeighbour(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	s := sample()
	for i := range 600 {
		ep := *s.Endpoints["cali1"]
		ep.Interface = dataplane.Interface(fmt.Sprint("cali1", i))
		s.Endpoints[ep.Interface] = &ep
	}
	d.Update(s.Delta())
	mustSync(t, d)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- restless(ns, stop) }()
	for range 3 {
		d.Resync()
		if err := d.Sync(context.Background()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	quiet(t, d)
}

// restless adds a table and removes it, until it is told to stop.
func restless(ns int, stop chan struct{}) error {
	sock, err := openSocket(ns)
	if err != nil {
		return err
	}
	defer sock.close()
	var msgs []mdl.Message
	for _, kind := range []uint16{unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE} {
		msgs = append(msgs, mdl.Message{
			Header: mdl.Header{Type: mdl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: mdl.Request | mdl.Create},
			Data:   append([]byte{unix.NFPROTO_IPV4, unix.NFNETLINK_V0, 0, 0}, nameAttr(unix.NFTA_TABLE_NAME, "restless")...),
		})
	}
	for err == nil {
		select {
		case <-stop:
			return nil
		default:
			err = sock.transact(msgs)
		}
	}
	return err
}

// Sets larger than one message holds arrive whole, and go whole.
func TestLargeSets(t *testing.T) {
	const n = 6000
	d := newDriver(t, nstest.New(t))
	s := sample()
	for i := range n {
		a4 := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		a6 := netip.MustParseAddr(fmt.Sprintf("fd01::%x", i))
		for _, a := range []netip.Addr{a4, a6} {
			s.Sets["s:abc"][dataplane.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
			s.Sets["n:http"][dataplane.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: dataplane.TCP, Port: 80}] = struct{}{}
		}
	}
	d.Update(s.Delta())
	mustSync(t, d)
	quiet(t, d)
	before := d.Stats().Messages
	delta := dataplane.NewDelta()
	delta.Sets["s:abc"] = &dataplane.SetDelta{Remove: []dataplane.Member{{Prefix: netip.MustParsePrefix("20.0.1.7/32")}}}
	d.Update(delta)
	mustSync(t, d)
	if got := d.Stats().Messages - before; got != 1 {
		t.Errorf("one member less: %d messages, want 1", got)
	}
	delta.Sets["s:abc"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: netip.MustParsePrefix("20.0.0.0/8")}, {Prefix: netip.MustParsePrefix("fd01::/16")}}}
	d.Update(delta)
	mustSync(t, d)
	quiet(t, d)
	delta.Sets["s:abc"] = nil
	d.Update(delta)
	mustSync(t, d)
	quiet(t, d)
}

// Intervals at the edges of the address and port space, one beside the other.
func TestEdges(t *testing.T) {
	d := newDriver(t, nstest.New(t))
	s := sample()
	d.Update(s.Delta())
	mustSync(t, d)
	step := func(add, remove []string) {
		t.Helper()
		sd := &dataplane.SetDelta{}
		for _, p := range add {
			sd.Add = append(sd.Add, dataplane.Member{Prefix: netip.MustParsePrefix(p)})
		}
		for _, p := range remove {
			sd.Remove = append(sd.Remove, dataplane.Member{Prefix: netip.MustParsePrefix(p)})
		}
		delta := dataplane.NewDelta()
		delta.Sets["s:abc"] = sd
		d.Update(delta)
		mustSync(t, d)
		quiet(t, d)
	}
	step([]string{"0.0.0.0/0", "::/0"}, nil)
	step([]string{"128.0.0.0/1", "8000::/1"}, []string{"0.0.0.0/0", "::/0"})
	step([]string{"0.0.0.0/1", "::/1"}, nil)
	step([]string{"0.0.0.0/32", "::/128"}, []string{"128.0.0.0/1", "0.0.0.0/1", "::/1", "8000::/1"})
	step([]string{"255.255.255.254/32", "0.0.0.1/32"}, nil)
	step(nil, []string{"255.255.255.255/32", "0.0.0.0/32"})
	step([]string{"255.255.255.255/32"}, []string{"255.255.255.254/32"})
}

// The kernel takes every kind of match, action and verdict, and gives it back.
func TestEveryEncoding(t *testing.T) {
	ns := nstest.New(t)
	for _, f := range dataplane.Families {
		p := everything(f)
		enc := newEncoder(f, 1)
		s, err := openSocket(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		b := newBatch(enc)
		b.clearTable()
		b.apply(filter.NewProgram(f).Diff(p))
		msgs, err := b.messages()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.transact(msgs); err != nil {
			t.Fatal(b.explain(err))
		}
		d, err := s.drift(enc, p)
		if err != nil {
			t.Fatal(err)
		}
		if !d.none() {
			t.Errorf("%v: the kernel gives back otherwise: %v", f, d)
		}
	}
}

func everything(f dataplane.Family) *filter.Program {
	a := difftest.PodAddr(0, f)
	tcp := filter.Match{Field: filter.Protocol, Value: filter.Number(dataplane.TCP)}
	p := filter.NewProgram(f)
	one := func(e filter.Element) map[filter.Element]struct{} { return map[filter.Element]struct{}{e: {}} }
	host := netip.PrefixFrom(a, a.BitLen())
	p.Sets["cali-n"] = &filter.Set{Kind: filter.Nets, Elements: one(filter.Element{Prefix: host})}
	p.Sets["cali-p"] = &filter.Set{Kind: filter.PortRanges, Elements: one(filter.Element{Ports: dataplane.PortRange{Min: 1, Max: 65535}})}
	p.Sets["cali-a"] = &filter.Set{Kind: filter.Addrs, Elements: one(filter.Element{Prefix: host})}
	p.Sets["cali-t"] = &filter.Set{Kind: filter.Triples, Elements: one(filter.Element{Prefix: host, Protocol: 6, Ports: dataplane.PortRange{Min: 80, Max: 80}})}
	p.Sets["cali-i"] = &filter.Set{Kind: filter.Ifaces, Elements: one(filter.Element{Iface: "cali123456789ab"})}
	p.Sets["cali-ia"] = &filter.Set{Kind: filter.IfaceAddrs, Elements: one(filter.Element{Iface: "cali0", Prefix: host})}
	p.Sets["cali-in"] = &filter.Set{Kind: filter.IfaceNets, Elements: one(filter.Element{Iface: "cali0", Prefix: host})}
	p.Maps["cali-m"] = &filter.Map{Field: filter.InIface, Chains: map[string]string{"cali0": "cali-leaf"}}
	var rules []filter.Rule
	for _, m := range []filter.Match{
		{Field: filter.SrcAddr, Value: filter.Prefix{Prefix: host}},
		{Field: filter.DstAddr, Value: filter.Prefix{Prefix: netip.PrefixFrom(a, 13)}},
		{Field: filter.SrcAddr, Value: filter.SetRef{Name: "cali-n", Kind: filter.Nets}},
		{Field: filter.SrcAddr, Value: filter.SetRef{Name: "cali-a", Kind: filter.Addrs}},
		{Field: filter.DstAddr, Value: filter.SetRef{Name: "cali-a", Kind: filter.Addrs}},
		{Field: filter.SrcPort, Value: filter.Ports{Min: 80, Max: 80}},
		{Field: filter.DstPort, Value: filter.Ports{Min: 80, Max: 90}},
		{Field: filter.DstPort, Value: filter.SetRef{Name: "cali-p", Kind: filter.PortRanges}},
		{Field: filter.ICMP, Value: filter.Type{Type: 8}},
		{Field: filter.ICMP, Value: filter.Type{Type: 8, Code: 1, HasCode: true}},
		{Field: filter.SrcTriple, Value: filter.SetRef{Name: "cali-t", Kind: filter.Triples}},
		{Field: filter.DstTriple, Value: filter.SetRef{Name: "cali-t", Kind: filter.Triples}},
		{Field: filter.InIface, Value: filter.Iface{Name: "cali", Prefix: true}},
		{Field: filter.OutIface, Value: filter.Iface{Name: "cali123456789ab"}},
		{Field: filter.InIface, Value: filter.SetRef{Name: "cali-i", Kind: filter.Ifaces}},
		{Field: filter.InIfaceSrc, Value: filter.SetRef{Name: "cali-ia", Kind: filter.IfaceAddrs}},
		{Field: filter.InIfaceSrc, Value: filter.SetRef{Name: "cali-in", Kind: filter.IfaceNets}},
		{Field: filter.Mark, Value: filter.Bits{Mask: 3, Value: 1}},
		{Field: filter.ConnState, Value: filter.Conns(1<<dataplane.ConnNew | 1<<dataplane.ConnUntracked)},
		{Field: filter.SrcLocal},
	} {
		inverse := m
		inverse.Not = true
		rules = append(rules, filter.Rule{Match: []filter.Match{tcp, m}}, filter.Rule{Match: []filter.Match{tcp, inverse}})
	}
	for _, x := range []filter.Action{
		filter.Log{Prefix: "x: "}, filter.Count{}, filter.SetMark{Mask: 2, Value: 2}, filter.SetCtMark{Mask: 2, Value: 0},
	} {
		rules = append(rules, filter.Rule{Actions: []filter.Action{x}})
	}
	rules = append(rules, filter.Rule{Verdict: filter.Jump, Target: "cali-leaf"}, filter.Rule{Match: []filter.Match{tcp}, Verdict: filter.Goto, Target: "cali-leaf"},
		filter.Rule{Verdict: filter.Dispatch, Target: "cali-m"})
	p.Chains["cali-base"] = &filter.Chain{Base: &filter.Base{Hook: filter.Forward, Table: filter.FilterTable, Priority: 1}, Rules: rules}
	var leaf []filter.Rule
	for _, v := range []filter.Verdict{filter.Return, filter.Drop, filter.Reject, filter.Accept} {
		leaf = append(leaf, filter.Rule{Verdict: v})
	}
	p.Chains["cali-leaf"] = &filter.Chain{Rules: leaf}
	act := func(a ...filter.Action) []filter.Rule { return []filter.Rule{{Match: []filter.Match{tcp}, Actions: a}} }
	p.Chains["cali-raw"] = &filter.Chain{Base: &filter.Base{Hook: filter.Prerouting, Table: filter.RawTable, Priority: -299}, Rules: act(filter.Notrack{})}
	p.Chains["cali-snat"] = &filter.Chain{
		Base:  &filter.Base{Hook: filter.Postrouting, Table: filter.NATTable, Priority: 99},
		Rules: append(act(filter.SNAT{Addr: a}), act(filter.Masquerade{})...),
	}
	p.Chains["cali-dnat"] = &filter.Chain{
		Base:  &filter.Base{Hook: filter.Prerouting, Table: filter.NATTable, Priority: -101},
		Rules: append(act(filter.DNAT{Addr: a, Port: 80}), act(filter.DNAT{Addr: a})...),
	}
	return p
}

// A refused transaction changes nothing, and the error names the object.
func TestRefusal(t *testing.T) {
	d := newDriver(t, nstest.New(t))
	d.Update(sample().Delta())
	mustSync(t, d)
	for want, ch := range map[string]*filter.Changes{
		"add rule 1 of chain cali-x: no such file or directory": {Chains: map[string]*filter.Chain{"cali-x": {Rules: []filter.Rule{
			{Verdict: filter.Drop}, {Verdict: filter.Jump, Target: "cali-nowhere"}, {Verdict: filter.Drop},
		}}}},
		"remove from set cali40all-ipam-pools: no such file or directory": {Sets: map[string]*filter.SetChange{"cali40all-ipam-pools": {
			Kind: filter.Nets, Remove: []filter.Element{{Prefix: netip.MustParsePrefix("9.9.9.9/32")}},
		}}},
		"delete set cali40nothing: no such file or directory": {Sets: map[string]*filter.SetChange{"cali40nothing": {Kind: filter.Nets, Gone: true}}},
	} {
		ch.Maps = map[string]*filter.MapChange{}
		b := newBatch(d.tables[0].enc)
		b.apply(ch)
		err := d.transact(b)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	quiet(t, d)
}

// Of many sets that share one of the kernel's, the one is named of which an element is refused.
func TestRefusedElementOfASharedSet(t *testing.T) {
	d := newDriver(t, nstest.New(t))
	d.Update(sample().Delta())
	mustSync(t, d)
	var names []string // of sets that share one
	for i := 0; len(names) < 4; i++ {
		if name := fmt.Sprint("cali4aset", i); shareOf(filter.Addrs, numberOf(name)).i == 3 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	element := func(i int) filter.Element {
		return filter.Element{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 32)}
	}
	for _, size := range []int{1, 2000} { // one message, and several
		for culprit := range names {
			add, remove := &filter.Changes{Sets: map[string]*filter.SetChange{}}, &filter.Changes{Sets: map[string]*filter.SetChange{}}
			for i, name := range names {
				all := make([]filter.Element, size)
				for j := range all {
					all[j] = element(j)
				}
				add.Sets[name] = &filter.SetChange{Kind: filter.Addrs, Add: all}
				remove.Sets[name] = &filter.SetChange{Kind: filter.Addrs, Remove: all}
				if i == culprit {
					remove.Sets[name] = &filter.SetChange{Kind: filter.Addrs, Remove: append([]filter.Element{element(60000)}, all...)}
				}
			}
			var r *filter.Refused
			if err := apply(d, add, remove); !errors.As(err, &r) || r.Object != names[culprit] {
				t.Errorf("%d elements: error %v of %+v, want it to name %s", size, err, r, names[culprit])
			}
			d.Resync()
			mustSync(t, d)
			quiet(t, d)
		}
	}
}

// apply sends changes, each in a transaction.
func apply(d *Driver, all ...*filter.Changes) error {
	for _, ch := range all {
		b := newBatch(d.tables[0].enc)
		b.apply(ch)
		if err := d.transact(b); err != nil {
			return err
		}
	}
	return nil
}

func TestMissingModuleIsNamed(t *testing.T) {
	rule := filter.Rule{
		Match:   []filter.Match{{Field: filter.Protocol, Value: filter.Number(6)}, {Field: filter.SrcLocal}},
		Actions: []filter.Action{filter.Masquerade{}},
	}
	got := lacks(unix.ENOENT, newEncoder(dataplane.IPv6, 0), label{kind: "rule", rule: &rule})
	if want := "; the kernel may lack a module that the rule needs: [nft_fib_ipv6 nft_masq]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Settings that cannot be held change nothing in the kernel.
func TestBadSettings(t *testing.T) {
	d := newDriver(t, nstest.New(t))
	d.Update(sample().Delta())
	mustSync(t, d)
	bad := dataplane.DefaultSettings()
	bad.MarkMask = 1
	delta := dataplane.NewDelta()
	delta.Settings = &bad
	d.Update(delta)
	err := d.Sync(context.Background())
	if err == nil || !strings.Contains(err.Error(), "NftablesMarkMask 0x1") {
		t.Errorf("error %v, want one that names NftablesMarkMask 0x1", err)
	}
	good := dataplane.DefaultSettings()
	delta.Settings = &good
	d.Update(delta)
	mustSync(t, d)
	quiet(t, d)
	if n := d.Stats().Transactions; n != 4 {
		t.Errorf("%d transactions, want the first 4 only", n)
	}
}

func BenchmarkThousandEndpoints(b *testing.B) {
	g := difftest.NewGen(1)
	s := g.State()
	s.Settings = dataplane.DefaultSettings()
	for i := range 1000 {
		ep := g.Endpoint(0)
		ep.Interface = difftest.Iface(i)
		ep.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)})}
		s.Endpoints[ep.Interface] = ep
	}
	ns := nstest.New(b)
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			d, err := New(ns, Config{LogGroup: 1})
			if err != nil {
				b.Fatal(err)
			}
			d.Update(s.Delta())
			c, _ := nftables.New(nftables.WithNetNSFd(ns))
			c.FlushRuleset()
			_ = c.Flush()
			if err := d.Sync(context.Background()); err != nil {
				b.Fatal(err)
			}
			d.Close()
		}
	})
	b.Run("one", func(b *testing.B) {
		d, err := New(ns, Config{LogGroup: 1})
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		d.Update(s.Delta())
		if err := d.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			delta := dataplane.NewDelta()
			delta.Endpoints[difftest.Iface(7)] = g.Endpoint(7)
			d.Update(delta)
			if err := d.Sync(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
