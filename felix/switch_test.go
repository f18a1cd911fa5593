package felix

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

func requireIptables(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"iptables-nft-save", "iptables-legacy-save", "ipset"} {
		nstest.RequireTool(t, tool)
	}
}

func ofIptables(variant string) choice {
	c := choice{dataplane.Iptables, dataplane.DefaultSettings().Iptables}
	c.iptables.Variant = variant
	return c
}

// syncAll syncs until nothing is left to do.
func syncAll(t *testing.T, r *rules) error {
	for {
		if err := r.Sync(t.Context()); err != nil || !r.More() {
			return err
		}
	}
}

// choose has the settings ask for a backend.
func choose(r *rules, b dataplane.Backend, variant string) {
	s := dataplane.DefaultSettings()
	s.Backend, s.Iptables.Variant = b, variant
	d := dataplane.NewDelta()
	d.Settings = &s
	r.Update(d)
}

// traces are the objects of ours in a namespace, by whose they are.
func traces(t *testing.T, ns int) (s string) {
	t.Helper()
	for name, script := range map[string]string{
		"nftables": "nft list tables", "iptables-nft": "iptables-nft-save; ip6tables-nft-save", "iptables-legacy": "iptables-legacy-save; ip6tables-legacy-save", "ipset": "ipset list -n",
	} {
		var out []byte
		err := netlink.Do(ns, func() (err error) {
			out, err = exec.Command("sh", "-ec", script+" 2>/dev/null").Output()
			return err
		})
		if err != nil {
			t.Fatal(name, err)
		}
		if strings.Contains(string(out), "cali") {
			s += name + " "
		}
	}
	return s
}

// From one backend to the other and back under a stream of packets: what both states allow passes, and
// nothing else does.
func TestSwitchUnderProbes(t *testing.T) {
	t.Parallel()
	requireIptables(t)
	w := &world{t: t, ns: nstest.New(t), wants: wantedPolicy}
	from, to := podOf(t, w.ns, 1), podOf(t, w.ns, 2)
	w.assemble(t)
	w.run()
	sh(t, w.ns, "nft 'add table ip other; add chain ip other c; add rule ip other c counter accept'; iptables-nft -N MINE; iptables-nft -A FORWARD -j MINE; ipset create mine hash:ip")
	r, _ := driver[*rules](w.agent)
	p := probe(t, from, to)
	first := p.passed(w)
	for _, c := range []struct {
		backend dataplane.Backend
		variant string
		traces  []string
	}{
		{dataplane.Iptables, "nft", []string{"iptables-nft", "ipset"}},
		{dataplane.Iptables, "legacy", []string{"iptables-legacy", "ipset"}},
		{dataplane.NFTables, "", []string{"nftables"}},
		{dataplane.Iptables, "legacy", []string{"iptables-legacy", "ipset"}},
		{dataplane.Iptables, "nft", []string{"iptables-nft", "ipset"}},
		{dataplane.NFTables, "", []string{"nftables"}},
	} {
		choose(r, c.backend, c.variant)

		w.agent.Resync(DriverRules)
		w.until("the switch", func() bool {
			s, _ := w.agent.Status()
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(s.Problems) == 0 && r.is == r.want && r.swept
		})
		last := p.passed(w)
		if n := p.lost(first, last-1); n > 0 {
			t.Errorf("to %v %s: %d of %d allowed packets were lost", c.backend, c.variant, n, last-first)
		}
		first = last
		if s := p.holes(); s != "" {
			t.Errorf("to %v %s: denied packets passed: %s", c.backend, c.variant, s)
		}
		got := traces(t, w.ns)
		if len(strings.Fields(got)) != len(c.traces) {
			t.Errorf("to %v %s: objects of ours in %s", c.backend, c.variant, got)
		}
		for _, want := range c.traces {
			if !strings.Contains(got, want) {
				t.Errorf("to %v %s: objects of ours in %s, and not in %s", c.backend, c.variant, got, want)
			}
		}
	}
	if out := sh(t, w.ns, "nft list table ip other; iptables-nft-save; ipset list -n"); !strings.Contains(out, "counter") || !strings.Contains(out, "-j MINE") || !strings.Contains(out, "mine") {
		t.Errorf("what is not ours was changed:\n%s", out)
	}
}

// An agent that dies between two backends leaves both in force; the next one cleans up after it.
func TestSwitchThatWasInterrupted(t *testing.T) {
	t.Parallel()
	requireIptables(t)
	ns := nstest.New(t)
	start := func(b dataplane.Backend) *rules {
		r := kernelRules(ns)
		t.Cleanup(r.Close)
		r.Update(wantedPolicy())
		choose(r, b, "auto")
		return r
	}
	sync := func(r *rules) {
		t.Helper()
		if err := syncAll(t, r); err != nil {
			t.Fatal(err)
		}
	}
	sync(start(dataplane.NFTables))
	died := start(dataplane.Iptables)
	died.swept = true // it holds the rules, and dies before it sweeps
	b, err := died.bring(t.Context(), died.want)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if got := traces(t, ns); len(strings.Fields(got)) != 3 {
		t.Fatalf("objects of ours in %s, want both backends", got)
	}
	sync(start(dataplane.NFTables))
	if got := traces(t, ns); got != "nftables " {
		t.Errorf("objects of ours in %s, want nftables alone", got)
	}
	if b, err = died.bring(t.Context(), died.want); err != nil {
		t.Fatal(err)
	}
	b.Close()
	sync(start(dataplane.Iptables))
	if got := traces(t, ns); len(strings.Fields(got)) != 2 || strings.Contains(got, "nftables") {
		t.Errorf("objects of ours in %s, want iptables alone", got)
	}
}

// failing is a backend that fails when it has taken in what there is to do.
type failing struct{ backend }

func (f failing) Sync(context.Context) error {
	for _, c := range f.Compilers() {
		if err := c.Settle(); err != nil {
			return err
		}
	}
	return errors.New("iptables-restore: no such thing")
}

// A backend that cannot be brought up leaves the other one in force and up to date.
func TestBackendThatDoesNotWork(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	r := kernelRules(ns)
	t.Cleanup(r.Close)
	open := r.open
	r.open = func(c choice) (backend, error) {
		b, err := open(c)
		if c.backend == dataplane.Iptables && err == nil {
			b = failing{b}
		}
		return b, err
	}
	r.swept = true
	r.Update(wantedPolicy())
	if err := r.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	choose(r, dataplane.Iptables, "auto")
	d := dataplane.NewDelta()
	d.Sets["good"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: prefix("10.77.8.8/32")}}}
	r.Update(d)
	err := r.Sync(context.Background())
	res := resultOf(err)
	if err == nil || !res.whole() || !strings.Contains(err.Error(), "install iptables") || !strings.Contains(err.Error(), "until then nftables holds them") {
		t.Errorf("whole %v: %v", res.whole(), err)
	}
	if out := sh(t, ns, "nft list table ip calico"); !strings.Contains(out, "10.77.8.8") {
		t.Errorf("what the other backend took in is lost:\n%s", out)
	}
	d = dataplane.NewDelta()
	d.Sets["good"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: prefix("10.77.9.9/32")}}}
	r.Update(d)
	if err := r.Sync(context.Background()); err == nil || !resultOf(err).whole() {
		t.Errorf("whole %v: %v", resultOf(err).whole(), err)
	}
	if out := sh(t, ns, "nft list table ip calico"); !strings.Contains(out, "10.77.9.9") {
		t.Errorf("the backend in use is not kept up to date:\n%s", out)
	}
	if got := traces(t, ns); got != "nftables " {
		t.Errorf("objects of ours in %s", got)
	}
	r.open = open // it was installed
	r.tries = backoff{}
	if err := r.Sync(context.Background()); err != nil || r.Backend() != dataplane.Iptables {
		t.Errorf("%v is in use: %v", r.Backend(), err)
	}
}

// One policy that the kernel does not take denies what it governs; everything else goes on.
func TestPolicyThatTheKernelRefuses(t *testing.T) {
	for _, c := range []struct {
		choice
		dump string
	}{{choice{}, "nft list table ip calico"}, {ofIptables("nft"), "ipset save"}, {ofIptables("legacy"), "ipset save"}} {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			if c.backend == dataplane.Iptables {
				requireIptables(t)
			}
			w, r, p := faulty(t)
			choose(r, c.backend, c.iptables.Variant)
			w.agent.Resync()
			w.until("the backend", func() bool { return r.Backend() == c.backend })
			w.good("the backend", p)
			refusedPolicy(w, r, p)
			if out := sh(t, w.ns, c.dump); !strings.Contains(out, "10.77.9.9") {
				t.Error("a change that came with the bad policy is not in the kernel")
			}
		})
	}
}

func refusedPolicy(w *world, r *rules, p *probes) {
	web := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	good := wantedPolicy().Policies[web]
	bad := *good
	var notIn dataplane.Peer
	for i := range 100 { // of which each takes two expressions, or five words; the kernel takes 128 of those, iptables 255 of these
		notIn.NotSets = append(notIn.NotSets, dataplane.SetID(fmt.Sprint("none", i)))
	}
	bad.Ingress = append([]dataplane.Rule{{Action: dataplane.Allow, Src: notIn}}, good.Ingress...)
	d := dataplane.NewDelta()
	d.Policies[web] = &bad
	d.Sets["good"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: prefix("10.77.9.9/32")}}}
	r.Update(d)
	w.agent.Resync(DriverRules)
	w.until("the policy is left out", func() bool {
		s, _ := w.agent.Status()
		return s.Stuck == nil && len(s.Problems) == 1 && strings.Contains(s.Problems[0].Message, "NetworkPolicy(default/web) cannot be held in the kernel")
	})
	p.mu.Lock()
	sent := p.sent + 1
	p.mu.Unlock()
	w.until("more is sent", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.sent > sent+50 })
	p.mu.Lock()
	if p.last > sent {
		w.t.Errorf("what the policy allows passes, though it is left out: %d after %d", p.last, sent)
	}
	p.mu.Unlock()
	again := dataplane.NewDelta()
	again.Policies[web] = good
	w.do(func() { r.Update(again) }) // which tells the driver of flows
	w.until("the policy is good again", func() bool { s, _ := w.agent.Status(); return len(s.Problems) == 0 })
	w.good("the policy is good again", p)
}

// A chain of others that drops by its policy is named, and left as it is.
func TestForeignChainThatDrops(t *testing.T) {
	t.Parallel()
	w := &world{t: t, ns: nstest.New(t), wants: wantedPolicy}
	podOf(t, w.ns, 1)
	podOf(t, w.ns, 2)
	sh(t, w.ns, "nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 5; policy drop; }; add chain inet fw i { type filter hook input priority 5; policy drop; }'")
	w.assemble(t)
	w.begin(w.agent.Run)
	w.agent.Update(store.Update{Revision: 1, InSync: true})
	w.until("the chain is named", func() bool {
		s, _ := w.agent.Status()
		return s.Revision == 1 && len(s.Problems) == 1 && strings.Contains(s.Problems[0].Message, "chain f of table inet fw (priority 5) drops")
	})
	sh(t, w.ns, "nft 'add chain inet fw f { policy accept; }'")
	w.agent.Resync(DriverRules)
	w.until("it is forgotten", func() bool { s, _ := w.agent.Status(); return len(s.Problems) == 0 })
}
