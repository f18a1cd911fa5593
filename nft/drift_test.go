package nft

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/nftables"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// nft runs the tool in the namespace and returns what it prints.
func nft(t testing.TB, ns int, script string) string {
	t.Helper()
	nstest.RequireTool(t, "nft")
	var out []byte
	err := netlink.Do(ns, func() (err error) {
		cmd := exec.Command("nft", "-a", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft: %v\n%s%s", err, script, out)
	}
	return string(out)
}

// handle finds the handle of the rule of a chain that has the words.
func handle(t *testing.T, ns int, chain, words string) string {
	t.Helper()
	for line := range strings.Lines(nft(t, ns, "list chain ip calico "+chain)) {
		if m := regexp.MustCompile(`# handle (\d+)`).FindStringSubmatch(line); m != nil && strings.Contains(line, words) && !strings.Contains(line, "chain "+chain) {
			return m[1]
		}
	}
	t.Fatalf("chain %s has no rule with %q", chain, words)
	return ""
}

// What others change in our table is put right, and nothing else is sent: each case names
// the messages that it takes.
func TestDrift(t *testing.T) {
	ns := nstest.New(t)
	nft(t, ns, `
		table ip other {
			set s { type ipv4_addr; elements = { 1.2.3.4 }; }
			chain cali-FORWARD { ip saddr @s counter accept comment "of another"; }
		}
		table inet calico {
			chain cali-FORWARD { counter accept; }
		}`+"\n")
	foreign := func() string {
		return nft(t, ns, "list table ip other") + nft(t, ns, "list table inet calico")
	}
	before := foreign()
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	rules := func(chain string) int { return len(d.tables[0].compiler.Program().Chains[chain].Rules) }
	anew := func(chain string) int { return 2 + rules(chain) } // found, emptied, filled
	drop := func(chain, words string) func() {
		return func() { nft(t, ns, "delete rule ip calico "+chain+" handle "+handle(t, ns, chain, words)) }
	}
	run := func(script string) func() { return func() { nft(t, ns, script) } }
	const addrs, triples = "cali4as.abc", "cali4pn.http"
	const forward, dispatch, to = "cali-FORWARD", "cali-to-wl-dispatch", "cali-tw-cali1"
	for _, c := range []struct {
		name     string
		meddle   func()
		messages int
		what     string
	}{
		{"a rule is removed", drop(forward, "ct state"), anew(forward), "chain cali-FORWARD"},
		{"a rule is inserted", run("insert rule ip calico cali-FORWARD accept"), anew(forward), "chain cali-FORWARD"},
		{"a rule is appended", run("add rule ip calico cali-tw-cali1 accept"), anew(to), "chain cali-tw-cali1"},
		{"a rule moves", func() { moveRule(t, ns, "cali-from-wl") }, anew("cali-from-wl"), "chain cali-from-wl"},
		{"a chain is emptied", run("flush chain ip calico cali-FORWARD"), anew(forward), "chain cali-FORWARD"},
		{"two chains are emptied", run("flush chain ip calico cali-FORWARD\nflush chain ip calico cali-tw-cali1"), anew(forward) + anew(to), "chain cali-FORWARD, chain cali-tw-cali1"},
		{"a chain is added", run("add chain ip calico other"), 2, "chain other"},
		{"a base chain is added", run("add chain ip calico other { type filter hook forward priority -5; policy drop; }"), 2, "chain other"},
		{"chains that need one another are added", run("add chain ip calico a\nadd chain ip calico b\nadd rule ip calico a jump b\nadd rule ip calico cali-INPUT jump a"),
			anew("cali-INPUT") + 4, "chain a, chain b, chain cali-INPUT"},
		{"a chain is given another name", run("rename chain ip calico cali-tw-cali1 other"), anew(to) + 2 + 2, "chain cali-tw-cali1, chain other, map cali-to-wl-dispatch"},
		{"a chain that rules jump to is given another name", run("rename chain ip calico cali-to-wl other"), -1, ""},
		{"the policy of a base chain changes", run("chain ip calico cali-FORWARD { policy drop; }"), 1, "policy of chain cali-FORWARD"},
		{"a base chain moves", run("delete chain ip calico cali-FORWARD\nadd chain ip calico cali-FORWARD { type filter hook forward priority 5; }"),
			1 + anew(forward), "chain cali-FORWARD"},
		{"a base chain is deleted", run("delete chain ip calico cali-FORWARD"), anew(forward), "chain cali-FORWARD"},
		{"the table sleeps", run("add table ip calico { flags dormant; }"), 1, "the table's flags"},
		{"a set is emptied", run("flush set ip calico cali40all-ipam-pools"), 1, "set cali40all-ipam-pools"},
		{"an element is removed", run("delete element ip calico cali40s.abc { 10.1.0.0/16 }"), 1, "set cali40s.abc"},
		{"an element is added", run("add element ip calico cali40s.abc { 1.2.3.0/24 }"), 1, "set cali40s.abc"},
		{"a range is added", run("add element ip calico cali40s.abc { 1.2.3.1-1.2.3.9 }"), 1, "set cali40s.abc"},
		{"an element gives way to others", run("delete element ip calico cali40s.abc { 10.1.0.0/16 }\nadd element ip calico cali40s.abc { 10.0.0.0/10 }"), 2, "set cali40s.abc"},
		{"all addresses are added", run("add element ip calico cali40s.abc { 0.0.0.0-10.0.255.255, 10.2.0.0-255.255.255.254 }"), 1, "set cali40s.abc"},
		{"a map element is removed", run("delete element ip calico cali-to-wl-dispatch { cali1 }"), 1, "map cali-to-wl-dispatch"},
		{"a map element is added", run("add element ip calico cali-to-wl-dispatch { cali2 : accept }"), 1, "map cali-to-wl-dispatch"},
		{"a map element leads elsewhere", run("delete element ip calico cali-to-wl-dispatch { cali1 }\nadd element ip calico cali-to-wl-dispatch { cali1 : goto cali-tw-cali1 }"),
			2, "map cali-to-wl-dispatch"},
		{"a map is emptied", run("flush map ip calico cali-from-wl-dispatch"), 1, "map cali-from-wl-dispatch"},
		{"a set is added", run("add set ip calico other { type ipv4_addr; flags interval; elements = { 1.1.1.1 } }"), 1, "set other"},
		{"a set and its rule are added", run("add rule ip calico cali-FORWARD ip saddr { 1.1.1.1, 2.2.2.2 } accept"), anew(forward), "chain cali-FORWARD"},
		{"a counter is added", run("add counter ip calico other\nadd rule ip calico cali-FORWARD counter name other"), anew(forward) + 1, "chain cali-FORWARD, object other"},
		{"an unnamed chain is added", run("add rule ip calico cali-FORWARD jump { accept; }"), anew(forward), "chain cali-FORWARD"},
		{"a set catches all", func() { catchAll(t, ns, d, "cali40s.abc") }, 2, "set cali40s.abc"},
		{"an address is removed", run("delete element ip calico " + member(addrs, "10.1.2.3")), 1, "set " + addrs},
		{"an address is added", run("add element ip calico " + member(addrs, "1.2.3.4")), 1, "set " + addrs},
		{"an address gives way to another", run("delete element ip calico " + member(addrs, "10.1.2.3") + "\nadd element ip calico " + member(addrs, "10.1.2.4")), 2, "set " + addrs},
		{"an address of no set is added", run("add element ip calico cali-addrs-0 { ::1 . 1.2.3.4 }"), 1, "set cali-addrs-0"},
		{"a named port is removed", run("delete element ip calico " + member(triples, "10.1.0.1 . tcp . 81")), 1, "set " + triples},
		{"a named port is added", run("add element ip calico " + member(triples, "10.1.0.1 . udp . 81")), 1, "set " + triples},
		{"a shared set is emptied", run("flush set ip calico " + kernelSet(filter.Addrs, addrs)), 1, "set " + addrs},
		{"a shared set catches all", func() { catchAll(t, ns, d, kernelSet(filter.Addrs, addrs)) }, 2, "set " + kernelSet(filter.Addrs, addrs)},
		{"a shared set is deleted", run("delete set ip calico " + unused(d)), 1, "set " + unused(d)},
		{"a map and its chain are added", run("add chain ip calico other\nadd map ip calico others { type ipv4_addr : verdict; elements = { 1.1.1.1 : jump other } }"), 3, "chain other, map others"},
		{"a set has one of its own", run("add set ip calico cali4as.abc { type ipv4_addr; elements = { 1.2.3.4 }; }"), 1, "set cali4as.abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.meddle()
			drifted, err := d.sock.drift(d.tables[0].enc, d.tables[0].compiler.Program())
			if err != nil {
				t.Fatal(err)
			}
			if c.what != "" && drifted.String() != c.what {
				t.Errorf("%q differs, want %q", drifted, c.what)
			}
			was := d.Stats()
			d.Resync()
			mustSync(t, d)
			now := d.Stats()
			if now.Repairs != was.Repairs+1 || now.Replacements != was.Replacements {
				t.Errorf("from %+v to %+v, want one repair and no replacement", was, now)
			}
			if got := now.Messages - was.Messages; got != c.messages && c.messages >= 0 {
				t.Errorf("%d messages, want %d", got, c.messages)
			}
			quiet(t, d)
		})
	}
	if after := foreign(); after != before {
		t.Errorf("tables of others are now\n%s, were\n%s", after, before)
	}
}

// kernelSet is the set of the kernel that a set of the program shares.
func kernelSet(k filter.SetKind, set string) string { return shareOf(k, numberOf(set)).name() }

// member is an element of a set of the program, as the nft tool takes it.
func member(set, rest string) string {
	k := filter.Addrs
	if strings.Contains(rest, " . ") {
		k = filter.Triples
	}
	return fmt.Sprintf("%s { %v . %s }", kernelSet(k, set), netip.AddrFrom16(numberOf(set)), rest)
}

// unused is a shared set of the kernel in which there is none of the program.
func unused(d *Driver) string {
	used := map[string]bool{}
	for name, s := range d.tables[0].compiler.Program().Sets {
		used[kernelSet(s.Kind, name)] = true
	}
	for _, s := range allShares() {
		if !used[s.name()] {
			return s.name()
		}
	}
	return ""
}

// moveRule has the first rule of a chain become its last.
func moveRule(t *testing.T, ns int, chain string) {
	c := conn(t, ns)
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	list, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	if err != nil || len(list) < 2 {
		t.Fatalf("rules of %s: %v, %v", chain, list, err)
	}
	if err := c.DelRule(list[0]); err != nil {
		t.Fatal(err)
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: list[0].Chain, Exprs: list[0].Exprs, UserData: list[0].UserData})
	flush(t, c)
}

// catchAll has a set match every address, which the nft tool cannot.
func catchAll(t *testing.T, ns int, d *Driver, set string) {
	sock, err := openSocket(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.close()
	family := d.tables[0].enc.afFamily()
	element := appendAttr(nil, unix.NFTA_SET_ELEM_FLAGS, []byte{0, 0, 0, 2})
	data := appendAttr([]byte{family, unix.NFNETLINK_V0, 0, 0}, unix.NFTA_SET_ELEM_LIST_TABLE, []byte(tableName+"\x00"))
	data = appendAttr(data, unix.NFTA_SET_ELEM_LIST_SET, append([]byte(set), 0))
	data = appendAttr(data, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS, appendAttr(nil, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, element))
	kind := mdl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM)
	if err := sock.transact([]mdl.Message{{Header: mdl.Header{Type: kind, Flags: mdl.Request | mdl.Create}, Data: data}}); err != nil {
		t.Fatal(err)
	}
}

// What cannot be mended under the rules that use it is replaced whole.
func TestReplacedWhole(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	for name, script := range map[string]string{
		"the table is deleted":            "delete table ip calico",
		"all tables are deleted":          "flush ruleset",
		"a set is of another type":        "flush chain ip calico cali-nat-POSTROUTING\ndelete set ip calico cali40all-ipam-pools\nadd set ip calico cali40all-ipam-pools { type ipv4_addr; flags timeout; }",
		"a shared set is of another type": "delete set ip calico " + unused(d) + "\nadd set ip calico " + unused(d) + " { type ipv4_addr; }",
		"a base chain is no longer":       "delete chain ip calico cali-FORWARD\nadd chain ip calico cali-FORWARD",
	} {
		t.Run(name, func(t *testing.T) {
			nft(t, ns, script)
			was := d.Stats()
			d.Resync()
			mustSync(t, d)
			if now := d.Stats(); now.Replacements == was.Replacements || now.Repairs != was.Repairs {
				t.Errorf("from %+v to %+v, want replacements alone", was, now)
			}
			quiet(t, d)
		})
	}
}

// A repair that the kernel does not take gives way to a new table.
func TestRefusedRepair(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	nft(t, ns, "flush chain ip calico cali-FORWARD")
	// The read says that there is a chain where there is none: as after a read that others disturbed.
	drifted, err := d.sock.drift(d.tables[0].enc, d.tables[0].compiler.Program())
	if err != nil {
		t.Fatal(err)
	}
	drifted.changes.Chains["cali-none"] = nil
	err = d.mend(d.tables[0], drifted)
	if err == nil || !strings.Contains(err.Error(), "cali-none") {
		t.Fatalf("error %v, want one that names cali-none", err)
	}
	d.tables[0].refused = true
	d.Resync()
	mustSync(t, d)
	if got := d.Stats().Replacements; got != 3 {
		t.Errorf("%d replacements, want 3", got)
	}
	quiet(t, d)
}

// Another program, as of an older version, becomes ours without being replaced.
func TestOlderProgram(t *testing.T) {
	ns := nstest.New(t)
	old := newDriver(t, ns)
	s := sample()
	delta := s.Delta()
	settings := dataplane.DefaultSettings()
	settings.AllowVXLANFromPod = true
	delta.Settings = &settings
	old.Update(delta)
	ep := *s.Endpoints["cali1"]
	ep.Interface = "cali2"
	more := dataplane.NewDelta()
	more.Endpoints["cali2"] = &ep
	more.Sets["s:abc"] = &dataplane.SetDelta{Remove: []dataplane.Member{{Prefix: ep.Sources[0]}}}
	old.Update(more)
	mustSync(t, old)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	if got := d.Stats(); got.Replacements != 0 || got.Repairs != 2 {
		t.Errorf("%+v, want 2 repairs and no replacement", got)
	}
	quiet(t, d)
}

func conn(t *testing.T, ns int) *nftables.Conn {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func flush(t *testing.T, c *nftables.Conn) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A process that ends between a change and its transaction, or while there is none, leaves a new set to the next
// one: it must be full before there are rules that ask it, or they deny whom old and new rules allow. One
// that the kernel's rules ask is filled after the new ones are in force: the old ones let pass by it
// who may be denied now.
func TestSetsOfNewRulesComeBeforeThem(t *testing.T) {
	ns := nstest.New(t)
	before := newDriver(t, ns)
	state := sample()
	state.Sets["s:asked"] = dataplane.Members{}
	web := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	allow := func(set dataplane.SetID) dataplane.Rule {
		return dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{set}}}
	}
	rules := state.Policies[web].Ingress
	state.Policies[web] = &dataplane.Policy{ID: web, Ingress: append(rules[:len(rules):len(rules)], allow("s:asked"))}
	before.Update(state.Delta())
	mustSync(t, before)

	state.Sets["s:asked"], state.Sets["s:new"] = difftest.Members("10.1.0.2/32"), difftest.Members("10.1.0.3/32")
	state.Policies[web] = &dataplane.Policy{ID: web, Ingress: append(rules[:len(rules):len(rules)], allow("s:asked"), allow("s:new"))}
	after := newDriver(t, ns)
	after.Update(state.Delta())
	ipv4 := after.tables[0]
	if err := ipv4.compiler.Settle(); err != nil {
		t.Fatal(err)
	}
	drift, err := after.sock.drift(ipv4.enc, ipv4.compiler.Program())
	if err != nil {
		t.Fatal(err)
	}
	steps := drift.changes.Steps()
	where := map[string]int{}
	for i, step := range steps {
		for name, sc := range step.Sets {
			if len(sc.Add) > 0 {
				where[name] = i
			}
		}
	}
	if at, ok := where["cali4as.new"]; !ok || at != 0 {
		t.Errorf("the new set is filled in step %d of %d, want the first: %v", at, len(steps), where)
	}
	if at, ok := where["cali4as.asked"]; !ok || at != len(steps)-1 || at == 0 {
		t.Errorf("the set that rules ask is filled in step %d of %d, want the last: %v", at, len(steps), where)
	}
	mustSync(t, after)
	quiet(t, after)
}
