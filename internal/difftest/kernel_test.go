package difftest

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/nft"
)

// TestOneVerdict holds that a packet's fate in the kernel is what Eval and Trace say, for
// random states and packets. From one state to the next the driver goes by a delta, often
// a small one, so its steps are tested too; now and then it starts anew.
func TestOneVerdict(t *testing.T) {
	g := NewGen(Seed(t))
	w := newWorld(t)
	d := newDriver(t, w)
	prev := dataplane.NewState()
	seen := map[string]int{}
	for round := range Count(t, "DIFFTEST_STATES", 300) {
		s, delta := g.next(prev)
		d.Update(delta)
		if err := d.Sync(context.Background()); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, Describe(s))
		}
		prev = s
		packets := g.freshPackets(Count(t, "DIFFTEST_PACKETS", 50))
		progs := compile(t, s)
		w.forget()
		for i, sight := range w.send(packets) {
			seen[check(t, round, s, progs, packets[i], sight)]++
			seen["logged"] += sight.logs
		}
		if round%25 == 24 {
			checkQuiet(t, d)
		}
		if round%60 == 59 {
			d.Close()
			d, prev = newDriver(t, w), dataplane.NewState()
		}
	}
	t.Log(seen)
	for _, what := range []string{"fwd accept", "fwd drop", "inp accept", "inp drop", "out accept", "out drop", "masquerade", "logged"} {
		if seen[what] == 0 {
			t.Errorf("no packet was of the kind %q: the test says nothing of it", what)
		}
	}
}

// next returns the state that comes after prev, which it may change, and the way there.
func (g *Gen) next(prev *dataplane.State) (*dataplane.State, *dataplane.Delta) {
	if len(prev.Endpoints) == 0 || g.odds(3) {
		s := g.State()
		return s, Between(prev, s)
	}
	d := g.Delta(prev)
	prev.Apply(d)
	return prev, d
}

func compile(t *testing.T, s *dataplane.State) map[dataplane.Family]*filter.Program {
	t.Helper()
	progs := map[dataplane.Family]*filter.Program{}
	for _, f := range dataplane.Families {
		prog, err := filter.Compile(s, f)
		if err != nil {
			t.Fatal(err)
		}
		progs[f] = prog
	}
	return progs
}

func newDriver(t *testing.T, w *world) *nft.Driver {
	t.Helper()
	d, err := nft.New(w.node, nft.Config{LogGroup: ruleGroup})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// checkQuiet holds that the kernel's table, read back, is what the driver believes.
func checkQuiet(t *testing.T, d *nft.Driver) {
	t.Helper()
	before := d.Stats()
	d.Resync()
	if err := d.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after := d.Stats(); after.Transactions != before.Transactions || after.Reads != before.Reads+2 {
		t.Fatalf("Sync after Resync: from %+v to %+v, want two reads and nothing written", before, after)
	}
}

// freshPackets returns n packets of which none belongs to the flow of another.
func (g *Gen) freshPackets(n int) []dataplane.Packet {
	type flow struct {
		proto dataplane.Protocol
		a, b  netip.Addr
	}
	used := map[flow]bool{}
	var out []dataplane.Packet
	for len(out) < n {
		p := g.Packet()
		if !p.Protocol.HasPorts() && p.Protocol != p.Family().ICMP() {
			f := flow{p.Protocol, p.Src, p.Dst}
			translated := flow{p.Protocol, NodeAddr(p.Family()), p.Dst}
			if used[f] || used[flow{f.proto, f.b, f.a}] {
				continue
			}
			used[f], used[translated] = true, true
		}
		out = append(out, p)
	}
	return out
}

// check holds the three verdicts equal and returns what kind of packet it was.
func check(t *testing.T, round int, s *dataplane.State, progs map[dataplane.Family]*filter.Program, p dataplane.Packet, seen sight) string {
	t.Helper()
	want, trace := dataplane.Eval(s, p), progs[p.Family()].Trace(p)
	hook := "fwd"
	switch {
	case p.In == "":
		hook = "out"
	case p.Out == "":
		hook = "inp"
	}
	if _, ok := seen.at[logIn]; !ok && p.In != "" {
		t.Fatalf("round %d: the packet did not arrive: %+v", round, p)
	}
	_, passed := seen.at[hook]
	pass := want.Verdict == dataplane.Accept || want.Verdict == dataplane.Return
	nat, why := checkNAT(s, p, want, seen)
	if trace.Verdict != want.Verdict || trace.Masquerade != want.Masquerade || passed != pass || why != "" ||
		len(trace.Logs) != seen.logs || Logs(want) != seen.logs {
		t.Fatalf("round %d: packet %+v\nEval   %v, masquerade %v (%s) %+v\nTrace  %v, masquerade %v %v\nkernel passed %v, seen %v %s\n%s",
			round, p, want.Verdict, want.Masquerade, want.Reason, want.Steps, trace.Verdict, trace.Masquerade, trace.Path, passed, seen, why, Describe(s))
	}
	switch {
	case nat:
		return "masquerade"
	case pass:
		return hook + " accept"
	}
	return hook + " drop"
}

// checkNAT compares the source with which the packet left.
func checkNAT(s *dataplane.State, p dataplane.Packet, want dataplane.Trace, seen sight) (nat bool, why string) {
	src, left := seen.at[logPost]
	if !left || p.Out == "" { // of a packet for the node it is the answer
		return false, ""
	}
	own := src == NodeAddr(p.Family()) || src == TunnelAddr(p.Family())
	switch {
	case want.Masquerade && !own:
		return true, fmt.Sprintf("left with source %v, want one of the node's", src)
	case !want.Masquerade && src != p.Src:
		return false, fmt.Sprintf("left with source %v, want %v", src, p.Src)
	}
	return want.Masquerade, ""
}
