package felix

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

// faulty is a node that watches, with two pods and probes between them, for tests of what goes wrong.
func faulty(t *testing.T) (*world, *rules, *probes) {
	t.Helper()
	w := &world{t: t, ns: nstest.New(t), wants: wantedPolicy}
	from, to := podOf(t, w.ns, 1), podOf(t, w.ns, 2)
	w.assemble(t)
	w.watch()
	w.run()
	r, _ := driver[*rules](w.agent)
	p := probe(t, from, to)
	p.passed(w)
	return w, r, p
}

// good waits until no problem is left, and tests that what is allowed passes and nothing else has.
func (w *world) good(what string, p *probes) {
	w.t.Helper()
	w.until(what+": no problem is left", func() bool { s, _ := w.agent.Status(); return len(s.Problems) == 0 })
	p.passed(w)
	w.closed(what, p)
}

// closed tests that nothing has passed that is denied.
func (w *world) closed(what string, p *probes) {
	w.t.Helper()
	if s := p.holes(); s != "" {
		w.t.Errorf("%s: denied packets passed: %s", what, s)
	}
}

// problem waits for a problem that says all of that.
func (w *world) problem(says ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("a problem that says %q", says), func() bool {
		s, _ := w.agent.Status()
		return slices.ContainsFunc(s.Problems, func(p Problem) bool {
			return !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(p.Message, text) })
		})
	})
}

// otherPolicy has cali2 governed by another policy that means what the first one does, with other sets, whose
// further member is told apart by n.
func otherPolicy(n int) *dataplane.Delta {
	s := dataplane.NewState()
	s.Apply(wantedPolicy())
	d := dataplane.NewDelta()
	was := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	p := *s.Policies[was]
	p.ID.Name = fmt.Sprint("web", n)
	p.Ingress = slices.Clone(p.Ingress)
	for i, set := range []dataplane.SetID{"bad", "good"} {
		id := dataplane.SetID(fmt.Sprint(set, n))
		p.Ingress[i].Src = dataplane.Peer{Sets: []dataplane.SetID{id}}
		d.Sets[id] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: prefix(fmt.Sprintf("10.79.%d.1/32", n))}}}
		for m := range s.Sets[set] {
			d.Sets[id].Add = append(d.Sets[id].Add, m)
		}
		d.Sets[set] = nil
	}
	ep := *s.Endpoints["cali2"]
	ep.Ingress = []dataplane.TierPolicies{{Tier: "default", Policies: []dataplane.PolicyID{p.ID}, Default: dataplane.Deny}}
	d.Policies[was], d.Policies[p.ID], d.Endpoints["cali2"] = nil, &p, &ep
	return d
}

// Where another process has put a table of its own in our table's place, which nobody else may change, the rules
// are in iptables until it ends.
func TestTableOfAnotherProcess(t *testing.T) {
	t.Parallel()
	requireIptables(t)
	w, r, p := faulty(t)
	end := takeTables(t, w.ns)
	w.problem("table calico of IPv4 belongs to another process", "end that process", "until then iptables (auto) holds them")
	p.passed(w)
	p.holes() // before the rules were there again
	d := otherPolicy(1)
	r.Update(d)
	w.agent.Resync()
	w.until("a change is in iptables", func() bool { return strings.Contains(sh(t, w.ns, "ipset save"), "10.79.1.1") })
	p.passed(w)
	w.closed("while the table is another's", p)
	end()
	w.good("the table is ours again", p)
	if got := traces(t, w.ns); got != "nftables " {
		t.Errorf("objects of ours in %s", got)
	}
	if out := sh(t, w.ns, "nft list table ip calico"); !strings.Contains(out, "10.79.1.1") {
		t.Errorf("the change is not in nftables:\n%s", out)
	}
}

// takeTables has another process replace our tables by its own, until end.
func takeTables(t *testing.T, ns int) (end func()) {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = netlink.Do(ns, cmd.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		in.Close()
		_ = cmd.Wait() // it may say so that it was ended
	}
	t.Cleanup(stop)
	var line string
	for _, f := range []string{"ip", "ip6"} {
		line += fmt.Sprintf("add table %[1]s calico; delete table %[1]s calico; add table %[1]s calico { flags owner; }; ", f)
	}
	if _, err := io.WriteString(in, line+"\n"); err != nil {
		t.Fatal(err)
	}
	return stop
}

// Where the kernel's answers are lost, each change is in the kernel all the same, and none that was not made is
// believed to be.
func TestAnswersThatAreLost(t *testing.T) {
	w, r, p := faulty(t)
	fd := socketOf(t, w.rules.Port())
	// Notifications of all changes, its own too, take the place of the answers in the least of buffers.
	for _, o := range []struct{ level, opt, value int }{{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1}, {unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES}} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			t.Fatal(err)
		}
	}
	reads := w.rules.Stats().Reads
	for n := 1; n < 6; n++ {
		d := otherPolicy(n)
		if n > 1 {
			was := otherPolicy(n - 1)
			for id, p := range was.Policies {
				if p != nil {
					d.Policies[id] = nil
				}
			}
		}
		r.Update(d)
		w.agent.Resync()
		w.until("the change is in the kernel", func() bool {
			return strings.Contains(sh(t, w.ns, "nft list table ip calico"), fmt.Sprintf("10.79.%d.1", n))
		})
		w.good(fmt.Sprint("change ", n), p)
	}
	if n := w.rules.Stats().Reads - reads; n < 5 {
		t.Errorf("the tables were read %d times: no answer was lost", n)
	}
	want := sh(t, w.ns, "nft list ruleset")
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, unix.NFNLGRP_NFTABLES); err != nil {
		t.Fatal(err)
	}
	transactions := w.rules.Stats().Transactions
	r.Resync()
	if err := r.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if n := w.rules.Stats().Transactions - transactions; n != 0 || sh(t, w.ns, "nft list ruleset") != want {
		t.Errorf("%d transactions put right what was believed to be right", n)
	}
}

// socketOf finds this process's nfnetlink socket of that port.
func socketOf(t *testing.T, port uint32) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, f := range files {
		fd, _ := strconv.Atoi(f.Name())
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.NETLINK_NETFILTER {
			continue
		}
		if sa, err := unix.Getsockname(fd); err == nil && sa.(*unix.SockaddrNetlink).Pid == port {
			found = append(found, fd)
		}
	}
	if len(found) != 1 {
		t.Fatalf("sockets of port %d: %v", port, found)
	}
	return found[0]
}

// A chain of another's in our table that jumps to a chain of ours keeps the kernel from deleting that. It goes,
// and everything with it that should.
func TestForeignJumpInOurTable(t *testing.T) {
	t.Parallel()
	w, r, p := faulty(t)
	chain := regexp.MustCompile(`chain (cali-pi-\S+) \{`).FindStringSubmatch(sh(t, w.ns, "nft list table ip calico"))
	if chain == nil {
		t.Fatal("no chain of the policy")
	}
	for n, verdict := range []string{"jump", "goto"} {
		sh(t, w.ns, fmt.Sprintf("nft 'add chain ip calico mine; add rule ip calico mine %s %s'", verdict, chain[1]))
		d := otherPolicy(n + 1)
		if n > 0 {
			for id, p := range otherPolicy(n).Policies {
				if p != nil {
					d.Policies[id] = nil
				}
			}
		}
		r.Update(d)
		w.agent.Resync()
		w.until("the chains are gone", func() bool {
			out := sh(t, w.ns, "nft list table ip calico")
			return !strings.Contains(out, "chain mine") && !strings.Contains(out, "chain "+chain[1]+" {") && strings.Contains(out, fmt.Sprintf("10.79.%d.1", n+1))
		})
		w.good(verdict, p)
		chain = regexp.MustCompile(`chain (cali-pi-\S+) \{`).FindStringSubmatch(sh(t, w.ns, "nft list table ip calico"))
	}
}

// Rules of others that use a chain and a set of ours keep the kernel from deleting these. They are named, and
// nothing waits for it.
func TestForeignUseOfIptables(t *testing.T) {
	requireIptables(t)
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			w, r, p := faulty(t)
			w.t = t
			choose(r, dataplane.Iptables, variant)
			w.agent.Resync(DriverRules)
			w.until("the switch", func() bool { return strings.HasPrefix(traces(t, w.ns), "ip") })
			w.good("the switch", p)
			tool := "iptables-" + variant
			rule := regexp.MustCompile(`-A (cali-pi-\S+) .*--match-set (cali\S+) src`).FindStringSubmatch(sh(t, w.ns, tool+"-save"))
			if rule == nil {
				t.Fatalf("no rule of the policy in\n%s", sh(t, w.ns, tool+"-save"))
			}
			chain, set := rule[1], rule[2]
			sh(t, w.ns, fmt.Sprintf("%[1]s -N MINE; %[1]s -A MINE -j %[2]s; %[1]s -A MINE -m set --match-set %[3]s src -j RETURN", tool, chain, set))
			r.Update(otherPolicy(1))
			w.agent.Resync()
			w.until("the new policy is in the kernel", func() bool { return strings.Contains(sh(t, w.ns, "ipset save"), "10.79.1.1") })
			r.Resync()
			w.agent.Resync()
			w.problem("MINE", chain)
			w.problem("MINE", set)
			p.passed(w)
			w.closed("with a use of another's", p)
			if s, _ := w.agent.Status(); s.Stuck != nil {
				t.Errorf("stuck: %v", s.Stuck)
			}
			sh(t, w.ns, fmt.Sprintf("%[1]s -F MINE; %[1]s -X MINE", tool))
			r.Resync()
			w.agent.Resync()
			w.until("chain and set are gone", func() bool {
				out := sh(t, w.ns, tool+"-save; ipset list -n")
				return !strings.Contains(out, chain+" ") && !strings.Contains(out, set+"\n")
			})
			w.good("it is gone", p)
		})
	}
}

// Rules of others that use what a backend leaves behind keep it from being removed. It denies nothing that the
// other backend allows, pods that come later too, and is named.
func TestForeignUseAfterASwitch(t *testing.T) {
	requireIptables(t)
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			w, r, p := faulty(t)
			w.t = t
			choose(r, dataplane.Iptables, variant)
			w.agent.Resync()
			w.until("the switch", func() bool { return r.Backend() == dataplane.Iptables })
			w.good("the switch", p)
			tool := "iptables-" + variant
			rule := regexp.MustCompile(`-A (cali-pi-\S+) .*--match-set (cali\S+) src`).FindStringSubmatch(sh(t, w.ns, tool+"-save"))
			if rule == nil {
				t.Fatal("no rule of the policy")
			}
			sh(t, w.ns, fmt.Sprintf("%[1]s -N MINE; %[1]s -A MINE -j %[2]s; %[1]s -A MINE -m set --match-set %[3]s src -j RETURN", tool, rule[1], rule[2]))
			choose(r, dataplane.NFTables, "")
			w.agent.Resync()
			w.until("the switch back", func() bool { return r.Backend() == dataplane.NFTables })
			w.problem("what iptables has left denies nothing", "MINE", rule[2])
			pod := podOf(t, w.ns, 3)
			d := dataplane.NewDelta()
			ep := *wantedPolicy().Endpoints["cali1"]
			ep.Interface, ep.Addrs = "cali3", []netip.Addr{netip.AddrFrom4([4]byte{10, 65, 0, 3})}
			d.Endpoints["cali3"] = &ep
			r.Update(d)
			w.agent.Resync()
			w.until("the new pod's rules", func() bool { return strings.Contains(sh(t, w.ns, "nft list table ip calico"), "cali-fw-cali3") })
			p.first(w, pod, ofOthers+3)
			w.closed("with what is left", p)
			sh(t, w.ns, fmt.Sprintf("%[1]s -F MINE; %[1]s -X MINE", tool))
			w.agent.Resync(DriverRules)
			w.good("it is gone", p)
			if got := traces(t, w.ns); got != "nftables " {
				t.Errorf("objects of ours in %s", got)
			}
		})
	}
}

// A pod that comes while the rules go from one backend to another has its rules, and they are right, when
// [Agent.Programmed] says so.
func TestPodThatComesInMidSwitch(t *testing.T) {
	t.Parallel()
	requireIptables(t)
	w, r, p := faulty(t)
	all := &api.Profile{Meta: api.Named(api.KindProfile, "", "all")}
	all.Spec.Ingress, all.Spec.Egress = []api.Rule{{Action: api.Allow}}, []api.Rule{{Action: api.Allow}}
	w.agent.Update(store.Update{Revision: 2, InSync: true, Events: []store.Event{{Key: store.KeyOf(all), Object: all}}})
	for i, c := range []choice{ofIptables("nft"), {}, ofIptables("legacy"), ofIptables("nft"), {}} {
		n := 3 + i
		pod := podOf(t, w.ns, n)
		at := attachment(fmt.Sprint("c", n), fmt.Sprint("cali", n), fmt.Sprintf("10.65.0.%d", n))
		at.Endpoint.Spec.Profiles = []string{"all"}
		choose(r, c.backend, c.iptables.Variant)
		w.agent.Resync()
		w.agent.SetAttachment(at.ID, at)
		if err := w.agent.Programmed(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if r.Backend() != c.backend {
			t.Errorf("%v is in use, want %v", r.Backend(), c)
		}
		p.first(w, pod, uint32(ofOthers+n))
	}
	w.good("all pods", p)
}

// first has the first packets of a pod go to a port that a policy denies, and then to one that it allows, which must come.
func (p *probes) first(w *world, pod int, number uint32) {
	w.t.Helper()
	err := netlink.Do(pod, func() error {
		for _, port := range []int{portDenied, portAllowed} {
			if err := sendProbe(port, number); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.until("the first packet of a new pod comes", func() bool { return p.lost(number, number) == 0 })
}

// maskedEnv has this test run in a process of its own, with mounts of its own.
const maskedEnv = "CALICO_TEST_MASKED"

// Without the programs of iptables the rules are in nftables whatever the settings ask for, and go to iptables when
// the programs are there.
func TestWithoutIptables(t *testing.T) {
	requireIptables(t)
	if os.Getenv(maskedEnv) == "" {
		t.Parallel()
		nstest.RequireRoot(t)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestWithoutIptables$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), maskedEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	unmask := mask(t, "iptables*", "ip6tables*", "xtables*", "ipset*")
	w, r, p := faulty(t)
	choose(r, dataplane.Iptables, "auto")
	w.agent.Resync()
	w.problem("iptables (auto) cannot hold the rules", "install iptables and ipset", "until then nftables holds them")
	r.Update(otherPolicy(1))
	w.agent.Resync()
	w.until("a change is in nftables", func() bool { return strings.Contains(sh(t, w.ns, "nft list table ip calico"), "10.79.1.1") })
	if s, _ := w.agent.Status(); s.Stuck != nil {
		t.Errorf("stuck: %v", s.Stuck)
	}
	p.passed(w)
	w.closed("without iptables", p)
	unmask()
	w.agent.Resync(DriverRules)
	w.good("with iptables", p)
	if r.Backend() != dataplane.Iptables {
		t.Errorf("%v is in use", r.Backend())
	}
}

// mask hides programs from this process, which has mounts of its own, until unmask.
func mask(t *testing.T, patterns ...string) (unmask func()) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	var hidden []string
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin") {
		for _, pattern := range patterns {
			paths, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, path := range paths {
				if st, err := os.Stat(path); err != nil || st.Mode()&0o111 == 0 {
					continue // hidden by another name
				}
				if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
					t.Fatal(path, err)
				}
				hidden = append(hidden, path)
			}
		}
	}
	return func() {
		for _, path := range hidden {
			if err := unix.Unmount(path, 0); err != nil {
				t.Error(path, err)
			}
		}
	}
}
