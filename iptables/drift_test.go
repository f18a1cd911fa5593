package iptables

import (
	"context"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

// bench is a namespace with tools in it.
type bench struct {
	t  *testing.T
	ns int
	v  Variant
}

// run runs a command in the namespace and returns what it writes.
func (b *bench) run(line string) string {
	b.t.Helper()
	out, err := b.try(line, "")
	if err != nil {
		b.t.Fatalf("%s: %v", line, err)
	}
	return out
}

func (b *bench) try(line, stdin string) (string, error) {
	words := split(line)
	if words[0] == "iptables" || words[0] == "ip6tables" {
		words[0] += "-" + b.v.String()
	}
	c := command{ns: b.ns, path: find(words[0]), args: words[1:], stdin: []byte(stdin)}
	var out []byte
	err := c.run(context.Background(), func(r io.Reader) (err error) { out, err = io.ReadAll(r); return err })
	return string(out), err
}

var passing = regexp.MustCompile(`(?m)^#.*$|\[\d+:\d+\]| hashsize \d+| initval 0x[0-9a-f]+`)

// all is everything that the namespace has, in a form that can be compared.
func (b *bench) all() string {
	var out strings.Builder
	for _, line := range []string{"iptables-" + b.v.String() + "-save", "ip6tables-" + b.v.String() + "-save", "ipset -sorted save"} {
		out.WriteString(passing.ReplaceAllString(b.run(line), ""))
	}
	return out.String()
}

// noisy are objects of others, with names that nearly are ours.
func (b *bench) strangers() {
	for _, line := range []string{
		`ipset create foreign hash:ip`, `ipset add foreign 1.2.3.4`, `ipset create cali hash:ip`, `ipset create calico40x hash:net`,
		`iptables -N KUBE-FORWARD`, `iptables -N calico-mine`, `iptables -A KUBE-FORWARD -m set --match-set foreign src -j DROP`,
		`iptables -A FORWARD -m comment --comment "not cali:abc" -j KUBE-FORWARD`, `iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE`,
		`iptables -A calico-mine -j LOG --log-prefix "-j cali-x \"cali:zzz\" "`, `ip6tables -A INPUT -s 2001:db8::/32 -j DROP`,
		`ip6tables -A INPUT -m comment --comment "--comment cali:abc \"--comment cali:abc\"" -s 2001:db8:1::/48 -j DROP`,
		`iptables -t mangle -A PREROUTING -m comment --comment "x" -j MARK --set-mark 1`,
	} {
		b.run(line)
	}
}

func newBench(t *testing.T, v Variant) *bench { return &bench{t, nstest.New(t), v} }

func TestDrift(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		b.strangers()
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		right := b.all()
		for _, lines := range [][]string{
			{`iptables -F cali-FORWARD`},
			{`iptables -D FORWARD 1`},
			{`iptables -F FORWARD`, `iptables -A FORWARD -m comment --comment "not cali:abc" -j KUBE-FORWARD`},
			{`iptables -t raw -D PREROUTING 1`, `iptables -t raw -F cali-PREROUTING`, `iptables -t raw -X cali-PREROUTING`},
			{`iptables -I cali-to-wl 1 -j ACCEPT`},
			{`iptables -A cali-to-wl -j RETURN`},
			{`iptables -D cali-from-wl 1`},
			{`iptables -t nat -R cali-POSTROUTING 1 -j ACCEPT`},
			{`iptables -E cali-from-wl cali-elsewhere`},
			{`iptables -E cali-from-wl elsewhere`, `iptables -N cali-from-wl`},
			{`iptables -N cali-old`, `iptables -N cali-older`, `iptables -A cali-old -j cali-older`, `iptables -I INPUT -m comment --comment "cali:old" -j cali-old`},
			{`iptables -I FORWARD -m comment --comment "cali:old" -m comment --comment "Policy explicitly accepted packet." -j ACCEPT`},
			{`iptables -t mangle -N cali-PREROUTING`, `iptables -t mangle -A PREROUTING -m comment --comment "cali:m" -j cali-PREROUTING`},
			{`ip6tables -F cali-INPUT`},
			{`ipset del cali40s.abc 10.1.0.0/16`},
			{`ipset add cali40s.abc 10.2.0.0/16`, `ipset add cali40s.abc:a 10.2.0.1`},
			{`ipset flush cali40s.abc`, `ipset flush cali60s.abc`, `ipset flush cali40n.http:p`},
			{`ipset add cali40n.http:p 10.1.0.1,icmp:8/0`, `ipset add cali40sources 10.1.0.1,eth0`},
			{`ipset del cali40s.abc 10.1.0.0/16`, `ipset add cali40s.abc 10.1.0.0/16 nomatch`},
			{`ipset create cali40gone hash:net`, `ipset create cali60s.gone hash:ip family inet6`, `ipset create cali4t-x list:set`},
		} {
			for _, line := range lines {
				b.run(line)
			}
			d.Resync()
			mustSync(t, d)
			if strings.Contains(lines[0], "elsewhere") && len(lines) == 2 { // a chain of another's now
				b.run(`iptables -F elsewhere`)
				b.run(`iptables -X elsewhere`)
			}
			if now := b.all(); sorted(now) != sorted(right) {
				t.Errorf("after %q:\n%s", lines, difference(right, now))
			}
			quiet(t, d)
		}
		if w := d.Warnings(); len(w) > 0 {
			t.Errorf("warnings: %q", w)
		}
	})
}

// sorted is a dump without regard to the order of chains, which says nothing.
func sorted(dump string) string {
	var rules, rest []string
	for _, line := range strings.Split(dump, "\n") {
		if strings.HasPrefix(line, "-A") {
			rules = append(rules, line)
		} else {
			rest = append(rest, line)
		}
	}
	return strings.Join(stable(rules), "\n") + strings.Join(stable(rest), "\n")
}

// difference lists what only one of two dumps has.
func difference(a, b string) string {
	count := map[string]int{}
	for _, line := range strings.Split(a, "\n") {
		count[line]--
	}
	for _, line := range strings.Split(b, "\n") {
		count[line]++
	}
	var out strings.Builder
	for line, n := range count {
		if n != 0 {
			out.WriteString(map[bool]string{true: "+ ", false: "- "}[n > 0] + line + "\n")
		}
	}
	return out.String()
}

// A set of another type, under rules that use it, gives way.
func TestSetOfAnotherType(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		b.run(`ipset create cali40s.abc hash:ip,port`)
		b.run(`ipset create cali40s.abc:a hash:net timeout 100`)
		b.run(`iptables -N cali-old`)
		b.run(`iptables -A cali-old -m set --match-set cali40s.abc src,src -j DROP`)
		b.run(`ipset create cali40sources hash:net,iface maxelem 1`)
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		d.Resync()
		mustSync(t, d) // it goes back to the names that have become free
		quiet(t, d)
		if kinds := b.run(`ipset save cali40s.abc`); !strings.Contains(kinds, "hash:net family") {
			t.Errorf("got %s", kinds)
		}
	})
}

// Rules of others that use what is ours are named, and stop nothing.
func TestForeignReferences(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		b.run(`iptables -A OUTPUT -j cali-tw-cali1`)
		b.run(`iptables -A OUTPUT -m set --match-set cali40n.http:p dst,dst -j DROP`)
		gone := dataplane.NewDelta()
		gone.Endpoints["cali1"] = nil
		d.Update(gone)
		if err := d.Sync(context.Background()); err != nil {
			mustSync(t, d) // it has read what is the matter
		}
		d.Resync()
		mustSync(t, d)
		w := strings.Join(d.Warnings(), "\n")
		for _, want := range []string{"-j cali-tw-cali1", "leads to our chain cali-tw-cali1", "asks our set cali40n.http:p"} {
			if !strings.Contains(w, want) {
				t.Errorf("warnings %q lack %q", w, want)
			}
		}
		b.run(`iptables -F OUTPUT`)
		until(t, "what nobody uses has gone", func() bool { // nf_tables lets go of sets a moment later
			d.Resync()
			mustSync(t, d)
			all := b.all()
			return !strings.Contains(all, "tw-cali1") && !strings.Contains(all, "n.http")
		})
		if w := d.Warnings(); len(w) > 0 {
			t.Errorf("warnings: %q", w)
		}
	})
}

// A step that fails leaves what was, in the sets and in all tables.
func TestFailureLeavesWhatWas(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		s := sample()
		d.Update(s.Delta())
		mustSync(t, d)
		v4 := func() string {
			return passing.ReplaceAllString(b.run("iptables-"+v.String()+"-save"), "") + b.run("ipset list -n")
		}
		v4only := dataplane.NewDelta()
		v4only.Settings = &s.Settings
		v4only.Settings.IPv6 = false
		d.Update(v4only)
		mustSync(t, d)
		was := v4()
		for name, spoil := range map[string]func(*dataplane.Delta){
			"a rule": func(c *dataplane.Delta) { c.Policies[difftest.Web()].Ingress[1].ICMP = &dataplane.ICMP{Type: 255} },
			"a device": func(c *dataplane.Delta) {
				c.Endpoints[`c"\+`] = &dataplane.Endpoint{Interface: `c"\+`, Addrs: s.Endpoints["cali1"].Addrs}
			},
		} {
			c := dataplane.NewDelta()
			c.Policies[difftest.Web()] = &dataplane.Policy{ID: difftest.Web(), Ingress: []dataplane.Rule{
				{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:new"}}}, {Action: dataplane.Deny},
			}}
			c.Sets["s:new"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}
			spoil(c)
			d.Update(c)
			for range 2 {
				if err := d.Sync(context.Background()); err == nil {
					t.Errorf("%s: no error", name)
				}
				if now := v4(); sorted(now) != sorted(was) {
					t.Errorf("%s:\n%s", name, difference(was, now))
				}
			}
			back := dataplane.NewDelta()
			back.Endpoints[`c"\+`] = nil
			back.Policies[difftest.Web()] = s.Policies[difftest.Web()]
			d.Update(back)
			mustSync(t, d)
		}
	})
}

// An edit that fails in a table takes back what the tables before it took, and the sets.
func TestTakenBack(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		b.strangers()
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		was := b.all()
		f := d.families[0]
		good := &tableEdit{table: raw, chains: []edit{
			{name: "cali-new", has: true, new: []string{"-j DROP"}},
			{name: "cali-PREROUTING", had: true, has: true, old: b.bodies("raw", "cali-PREROUTING"), new: []string{"-j cali-new"}},
		}, remove: []jump{{"PREROUTING", commented(" -j cali-PREROUTING"), 1}}}
		for _, bad := range []*tableEdit{
			{table: nat, chains: []edit{{name: "cali-x", has: true, new: []string{"-j cali-nowhere"}}}},
			{table: mangle, chains: []edit{{name: "cali-x", has: true, new: []string{"-j REJECT"}}}},
		} {
			err := d.restoreAll(f, []*tableEdit{good, bad})
			if err == nil || !strings.Contains(err.Error(), bad.table.String()) {
				t.Errorf("error %v, want one that names table %s", err, bad.table)
			}
			if now := b.all(); sorted(now) != sorted(was) {
				t.Errorf("not taken back:\n%s", difference(was, now))
			}
		}
		var e setEdit
		e.make("cali40fresh", 1, dataplane.IPv4, 10, nil)
		e.line("add cali40s.abc 10.7.0.0/16\n", "del cali40s.abc 10.7.0.0/16\n")
		e.line("del cali40s.abc 10.1.0.0/16\n", "add cali40s.abc 10.1.0.0/16\n")
		e.line("add cali40s.abc nonsense\n", "")
		if err := d.restoreSets(d.families[0], &e); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("error %v, want one that names the line", err)
		}
		if now := b.all(); sorted(now) != sorted(was) {
			t.Errorf("sets not taken back:\n%s", difference(was, now))
		}
		quiet(t, d)
	})
}

// bodies are the rules of a chain as they are saved.
func (b *bench) bodies(table, chain string) (out []string) {
	for _, line := range strings.Split(b.run("iptables-"+b.v.String()+"-save -t "+table), "\n") {
		if body, ok := strings.CutPrefix(line, "-A "+chain+" "); ok {
			out = append(out, body)
		}
	}
	return out
}

func TestClean(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		b.strangers()
		was := b.all()
		d := newDriver(t, b.ns, v)
		if err := d.Clean(context.Background()); err != nil {
			t.Fatal(err)
		}
		if s := d.Stats(); s.Restores+s.SetRuns != 0 {
			t.Errorf("where there is nothing: %+v", s)
		}
		d.Update(sample().Delta())
		mustSync(t, d)
		if err := newDriver(t, b.ns, Auto).Clean(context.Background()); err != nil {
			t.Fatal(err)
		}
		if now := sorted(b.all()); !strings.Contains(now, sorted(was)[:0]) || sortedTables(now) != sortedTables(sorted(was)) {
			t.Errorf("after Clean:\n%s", difference(was, b.all()))
		}
		d.Resync()
		mustSync(t, d)
		quiet(t, d)
	})
}

// sortedTables leaves out the built-in chains, which come with the first use of a table.
func sortedTables(dump string) string {
	var out []string
	for _, line := range strings.Split(dump, "\n") {
		if line != "" && line != "COMMIT" && line[0] != '*' && !strings.HasSuffix(line, " ACCEPT ") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// The chains of the variant that is left go when the other holds.
func TestChangeOfVariant(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		other := newDriver(t, b.ns, map[Variant]Variant{Legacy: NFT, NFT: Legacy}[v])
		other.Adopt(d.Compilers())
		mustSync(t, other)
		if left := b.run("iptables-" + v.String() + "-save"); strings.Contains(left, "cali") {
			t.Errorf("left in %v:\n%s", v, left)
		}
		quiet(t, other)
	})
}

// Auto takes the variant that holds other people's rules, and makes no tables of the other.
func TestAuto(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		b.run(`iptables -t mangle -N KUBE-KUBELET-CANARY`)
		d := newDriver(t, b.ns, Auto)
		d.Update(sample().Delta())
		mustSync(t, d)
		if d.Variant() != v {
			t.Errorf("it uses %v, want %v", d.Variant(), v)
		}
		if names := d.procNet("ip_tables_names"); v == NFT && len(names) > 0 {
			t.Errorf("there are tables of ip_tables: %q", names)
		}
	})
}

// A jump that others have displaced is put back, but not again and again.
func TestDisplacedJump(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		now := time.Unix(1000, 0)
		d.now = func() time.Time { return now }
		d.Update(sample().Delta())
		mustSync(t, d)
		at := func() string {
			d.Resync()
			mustSync(t, d)
			return strings.Split(b.run(`iptables -S FORWARD`), "\n")[1]
		}
		b.run(`iptables -I FORWARD -s 192.0.2.1 -j ACCEPT`)
		if first := at(); !strings.Contains(first, "cali-FORWARD") {
			t.Errorf("first is %s", first)
		}
		b.run(`iptables -I FORWARD -s 192.0.2.2 -j ACCEPT`)
		if first := at(); strings.Contains(first, "cali-FORWARD") {
			t.Errorf("it was put back at once again")
		}
		now = now.Add(firstPause)
		if first := at(); !strings.Contains(first, "cali-FORWARD") {
			t.Errorf("first is %s", first)
		}
		late, err := New(b.ns, Config{Variant: v, Append: true})
		if err != nil {
			t.Fatal(err)
		}
		b.run(`iptables -I FORWARD -s 192.0.2.3 -j ACCEPT`)
		late.Adopt(d.Compilers())
		mustSync(t, late)
		if first := strings.Split(b.run(`iptables -S FORWARD`), "\n")[1]; strings.Contains(first, "cali-FORWARD") {
			t.Errorf("with Append, it was put first")
		}
	})
}

// A set that outgrows its size is made larger.
func TestSetGrows(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d, err := New(b.ns, Config{Variant: v, MaxSetSize: 8})
		if err != nil {
			t.Fatal(err)
		}
		d.Update(sample().Delta())
		mustSync(t, d)
		was := d.Stats().Restores
		grow := &dataplane.SetDelta{}
		for i := range 40 {
			grow.Add = append(grow.Add, dataplane.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 3, byte(i), 1}), 32)})
		}
		c := dataplane.NewDelta()
		c.Sets["s:abc"] = grow
		d.Update(c)
		mustSync(t, d)
		if got := d.Stats().Restores; got != was {
			t.Errorf("rules were written")
		}
		quiet(t, d)
		if all := b.run("ipset list -n"); strings.Contains(all, "cali4t") {
			t.Errorf("left: %s", all)
		}
	})
}

func stable(lines []string) []string { return slices.Sorted(slices.Values(lines)) }
