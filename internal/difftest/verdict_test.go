package difftest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// TestOneVerdict holds that a packet's fate in the kernel is what Eval and Trace say, for
// random states and packets, whichever backend holds the rules. From one state to the next the
// drivers go by a delta, often a small one, so their steps are tested too; now and then they start
// anew.
func TestOneVerdict(t *testing.T) {
	seed := Seed(t)
	h := newHearing(t, seed)
	states := Count(t, "DIFFTEST_STATES", 300)
	for h.round < states {
		if err := h.next(Count(t, "DIFFTEST_PACKETS", 50)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d, %s\n%s\n%s", seed, h.count(), h.table(), h.cover.Table())
	h.sufficient()
	if states >= 2000 {
		for _, what := range h.cover.Unseen() {
			t.Errorf("%s: has decided nothing in %d states", what, states)
		}
	}
}

// TestSoak does so for as many minutes as the environment's SOAK_MINUTES says, with a fresh seed
// every 1000 states.
func TestSoak(t *testing.T) {
	minutes := Count(t, "SOAK_MINUTES", 0)
	if minutes == 0 {
		t.Skip("SOAK_MINUTES is not set")
	}
	h := newHearing(t, Seed(t))
	begin, told := time.Now(), time.Now()
	for time.Since(begin) < time.Duration(minutes)*time.Minute {
		if err := h.next(Count(t, "DIFFTEST_PACKETS", 50)); err != nil {
			t.Fatal(err)
		}
		if h.round >= 1000 {
			h.again(uint64(time.Now().UnixNano()))
		}
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%v: %s, now seed %d\n", time.Since(begin).Round(time.Second), h.count(), h.seed)
		}
	}
	fmt.Fprintf(os.Stderr, "%s\n%s\n%s", h.count(), h.table(), h.cover.Table())
	h.sufficient()
}

// hearing is a test of all judges.
type hearing struct {
	t       *testing.T
	seed    uint64
	g       *Gen
	other   *Gen // for what is counted, so that it does not change what is sent
	court   *court
	state   *dataplane.State
	round   int // since the seed was new
	cover   Coverage
	kinds   map[string]int
	packets map[string]int // by judge
	states  map[string]int
}

func newHearing(t *testing.T, seed uint64) *hearing {
	h := &hearing{
		t: t, court: newCourt(t), cover: Coverage{},
		kinds: map[string]int{}, packets: map[string]int{}, states: map[string]int{},
	}
	h.again(seed)
	return h
}

// again begins anew with another seed.
func (h *hearing) again(seed uint64) {
	h.seed, h.g, h.other, h.round, h.state = seed, NewGen(seed), NewGen(seed+1), 0, dataplane.NewState()
}

// next judges n packets in each of the next states, of which there is one for each judge's turn.
func (h *hearing) next(n int) error {
	var trials []*trial
	for range h.court.turns() {
		x := &trial{round: h.round, delta: h.g.Step(&h.state), anew: h.round%60 == 0, quiet: h.round%25 < h.court.turns()}
		x.state = clone(h.state)
		x.probes = h.g.Probes(h.state, n)
		trials = append(trials, x)
		h.round++
	}
	findings, err := h.court.hear(trials)
	if err != nil {
		return fmt.Errorf("seed %d, %w", h.seed, err)
	}
	verdicts := map[*trial][]finding{}
	for _, f := range findings {
		verdicts[f.trial] = append(verdicts[f.trial], f)
		h.states[f.by.name]++
		h.packets[f.by.name] += n
	}
	for _, x := range trials {
		if err := h.judge(x, verdicts[x]); err != nil {
			return fmt.Errorf("seed %d, round %d: %w\n%s", h.seed, x.round, err, Describe(x.state))
		}
	}
	return nil
}

// judge holds all verdicts of a trial equal.
func (h *hearing) judge(x *trial, findings []finding) error {
	progs, err := compile(x.state)
	if err != nil {
		return err
	}
	for i := range x.probes {
		p := &x.probes[i]
		want, trace := dataplane.Eval(x.state, p.Packet), progs[p.Family()].Trace(p.Packet)
		h.kinds[kind(p, want)]++
		h.cover.Note(h.other, x.state, p.Packet, want)
		if trace.Verdict != want.Verdict || trace.Masquerade != want.Masquerade || len(trace.Logs) != Logs(want) {
			return disagree("filter.Trace", "it ends otherwise", p, want, trace)
		}
		for _, f := range findings {
			if why := objection(x.state, p, want, &f.sights[i]); why != "" {
				return disagree(f.by.name, fmt.Sprintf("%s; seen %+v", why, f.sights[i]), p, want, trace)
			}
		}
	}
	return nil
}

func disagree(who, why string, x *Probe, want dataplane.Trace, trace filter.Result) error {
	flow := "none"
	if x.Flow != nil {
		flow = fmt.Sprintf("%+v", *x.Flow)
	}
	return fmt.Errorf("%s does not agree: %s\npacket %+v, flow %s\nEval   %v, masquerade %v (%s) %+v\nTrace  %v, masquerade %v %v",
		who, why, x.Packet, flow, want.Verdict, want.Masquerade, want.Reason, want.Steps, trace.Verdict, trace.Masquerade, trace.Path)
}

func compile(s *dataplane.State) (map[dataplane.Family]*filter.Program, error) {
	progs := map[dataplane.Family]*filter.Program{}
	for _, f := range dataplane.Families {
		prog, err := filter.Compile(s, f)
		if err != nil {
			return nil, err
		}
		progs[f] = prog
	}
	return progs, nil
}

func (h *hearing) count() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(h.states)) {
		out = append(out, fmt.Sprintf("%s: %d packets in %d states", name, h.packets[name], h.states[name]))
	}
	return strings.Join(out, ", ")
}

func (h *hearing) table() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h.kinds)) {
		fmt.Fprintf(&b, "%-40s %9d\n", name, h.kinds[name])
	}
	return b.String()
}

// sufficient holds that packets of every kind were among them.
func (h *hearing) sufficient() {
	for _, what := range []string{
		"fwd accept", "fwd drop", "fwd reject", "fwd accept, masquerade", "fwd accept, established", "fwd reset, established, cut", "fwd reset, new, cut",
		"fwd drop, established, cut", "inp accept", "inp return", "inp drop", "inp reject", "inp accept, established", "inp reset, established, cut",
		"out accept", "out return", "out drop", "out reject",
	} {
		if h.kinds[what] == 0 {
			h.t.Errorf("no packet was of the kind %q: the test says nothing of it", what)
		}
	}
}

// clone returns a copy that stays as it is while s changes.
func clone(s *dataplane.State) *dataplane.State {
	out := dataplane.NewState()
	out.Apply(s.Delta())
	return out
}
