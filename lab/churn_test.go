package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicogo/calico/lab"
	"github.com/calicogo/calico/lab/labtest"
)

// TestPolicyChurn probes all pairs of a few pods, a thousand times a second, while policies
// change at random, agents are killed in the midst of changes, and the rules move from one
// backend to another. Of each probe it is known whether it had to be denied or allowed: by the
// policies that were in force from its sending to its arrival. With LAB_LONG there are 500
// changes and more; LAB_SEED repeats a run.
func TestPolicyChurn(t *testing.T) {
	t.Parallel()
	for _, backend := range policyBackends {
		requireBackend(t, backend)
	}
	seed := churnSeed(t)
	t.Logf("LAB_SEED=%d", seed)
	c := newChurn(t, seed)
	changes := 50
	if os.Getenv("LAB_LONG") != "" {
		changes = 500
	}
	udp, tcp := c.probe(t, true), c.probe(t, false)
	began := time.Now()
	for i := 0; c.done.policies < changes || os.Getenv("LAB_LONG") != "" && time.Since(began) < longTime(t); i++ {
		c.change(t, i)
	}
	c.judge(t, "UDP", udp.end(t))
	c.judge(t, "TCP", tcp.end(t))
	t.Logf("%v; %v", c.done, c.counts)
	for _, kind := range slices.Sorted(maps.Keys(c.lost)) {
		t.Logf("%d of the lost were sent at a change of %s", c.lost[kind], kind)
	}
	if c.counts.denied < changes || c.counts.allowed < changes {
		t.Errorf("too few probes say anything: %v", c.counts)
	}
}

func churnSeed(t *testing.T) uint64 {
	text := os.Getenv("LAB_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("LAB_SEED=%s: want a number", text)
	}
	return seed
}

// churn is a lab whose policies change.
type churn struct {
	*labtest.Lab
	random  *rand.Rand
	backend string // that holds the rules
	book    rulebook
	node    map[string]string // of each pod
	flows   []flow
	epochs  []epoch
	done    churnDone
	counts  churnCounts
	lost    map[string]int // allowed probes, by what changed when they were sent
}

// epoch is the time of one state of the rulebook.
type epoch struct {
	written, held  int64 // just before it was written, and just after every node had it
	leaves, enters map[flow]bool
	shuts          map[flow]bool // who is denied while it begins, see [rulebook.opens]
	kind, what     string        // of the change by which it began, in short and in full
}

type churnDone struct{ policies, switches, kills int }

func (d churnDone) String() string {
	return fmt.Sprintf("%d policy changes, %d switches of the backend, %d agents killed", d.policies, d.switches, d.kills)
}

type churnCounts struct{ denied, allowed, either, lost int }

func (c churnCounts) String() string {
	return fmt.Sprintf("%d probes had to be denied, %d allowed, %d were sent while both was right; %d allowed ones were lost",
		c.denied, c.allowed, c.either, c.lost)
}

func newChurn(t *testing.T, seed uint64) *churn {
	c := &churn{Lab: labtest.New(t), backend: policyBackends[0], random: rand.New(rand.NewPCG(seed, 4)), node: map[string]string{}, lost: map[string]int{}}
	c.book = rulebook{pods: []string{"a", "b", "c", "d"}, addrs: map[string][2]string{}, policies: map[string]bookPolicy{}, sets: map[string][]string{}}
	c.Must(t, "up", "--nodes", "2", "--pool6", "fd00:10:10::/48", "--backend", c.backend)
	for i, pod := range c.book.pods {
		c.node[pod] = fmt.Sprintf("node%d", 1+i/2)
		said := c.Must(t, "run", pod, "--node", c.node[pod], "-l", "name="+pod)
		_, list, _ := strings.Cut(strings.TrimRight(said, "]\n"), "[")
		c.book.addrs[pod] = [2]string(strings.Fields(list))
	}
	for _, from := range c.book.pods {
		for _, to := range c.book.pods {
			if from != to {
				for _, protocol := range []string{"TCP", "UDP"} {
					c.flows = append(c.flows, flow{from, to, protocol, 4}, flow{from, to, protocol, 6})
				}
			}
		}
	}
	objects := c.book.tierText()
	for _, set := range []string{"s0", "s1"} {
		c.book.sets[set] = c.book.some(c.random)
		objects += "---\n" + c.book.setText(set)
	}
	c.write(t, "apply", objects, "the start")
	return c
}

// probe begins to probe every pair, 500 times a second in all.
func (c *churn) probe(t *testing.T, udp bool) *churnProbes {
	args := []string{"probe", "-o", "json", "--rate", fmt.Sprint(500.0 / 24), "--udp=" + strconv.FormatBool(udp)}
	for _, f := range c.flows {
		if f.protocol == "TCP" && f.family == 4 { // once a pair
			args = append(args, f.from, f.to+":80")
		}
	}
	p := &churnProbes{cmd: c.Command(context.WithoutCancel(t.Context()), args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

type churnProbes struct {
	cmd         *exec.Cmd
	out, stderr bytes.Buffer
}

// end ends the probing. That probes were lost is what is to be judged, and no error.
func (p *churnProbes) end(t *testing.T) []lab.ProbeResult {
	p.cmd.Process.Signal(os.Interrupt)
	p.cmd.Wait()
	var results []lab.ProbeResult
	if err := json.Unmarshal(p.out.Bytes(), &results); err != nil || results == nil {
		t.Fatalf("probe: %v: %.200s%s", err, p.out.Bytes(), p.stderr.Bytes())
	}
	if strings.Contains(p.stderr.String(), "captures missed") {
		t.Errorf("%s", p.stderr.Bytes())
	}
	return results
}

// change changes something at random, and returns when it is in force.
func (c *churn) change(t *testing.T, i int) {
	t.Helper()
	var kill []string
	if c.random.IntN(12) == 0 {
		kill = []string{fmt.Sprintf("node%d", 1+c.random.IntN(2))}
		c.done.kills++
	}
	if len(policyBackends) > 1 && c.random.IntN(12) == 0 {
		backend := policyBackends[c.random.IntN(len(policyBackends))]
		c.done.switches++
		c.book.were = c.book.sets
		what := fmt.Sprintf("change %d: from %s to %s, killed %v", i, c.backend, backend, kill)
		c.backend = backend
		c.run(t, "the backend to "+backend, what, "", kill, append([]string{"configure"}, backendFlags[backend]...)...)
		return
	}
	c.done.policies++
	verb, objects := c.book.change(c.random)
	c.write(t, verb, objects, fmt.Sprintf("change %d, %s, killed %v: %s\n%s", i, c.backend, kill, verb, objects), kill...)
}

// backendFlags are arguments of configure.
var backendFlags = map[string][]string{
	lab.BackendNFT:            {"nftablesMode=Enabled"},
	lab.BackendIptables:       {"nftablesMode=Disabled", "iptablesBackend=NFT"},
	lab.BackendIptablesLegacy: {"nftablesMode=Disabled", "iptablesBackend=Legacy"},
}

func (c *churn) write(t *testing.T, verb, objects, what string, kill ...string) {
	t.Helper()
	kind := "a policy"
	for of, name := range map[string]string{"kind: NetworkSet": "a set", "kind: Tier": "the tier"} {
		if strings.Contains(objects, of) {
			kind = name
		}
	}
	c.run(t, kind+" on "+c.backend, what, objects, kill, verb, "-f", "-")
}

// run runs a command that changes the state to that of the book, and kills agents meanwhile.
func (c *churn) run(t *testing.T, kind, what, stdin string, kill []string, args ...string) {
	t.Helper()
	if len(kill) > 0 {
		kind += " with an agent killed"
	}
	e := epoch{kind: kind, leaves: map[flow]bool{}, enters: map[flow]bool{}, shuts: map[flow]bool{}, what: what}
	for _, f := range c.flows {
		e.leaves[f], e.enters[f] = c.book.leaves(f), c.book.enters(f)
		leaves, enters := c.book.opens(f)
		e.shuts[f] = !leaves || !enters
	}
	cmd := c.Command(t.Context(), args...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &said, &said
	e.written = now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, node := range kill {
		if r := c.Run(t, "node", "kill", node); r.Code != 0 && !strings.Contains(r.Stderr, "about to be started again") {
			t.Fatalf("kill %s: %s", node, r.Stderr)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", what, err, said.Bytes())
	}
	e.held = now()
	c.epochs = append(c.epochs, e)
}

// between are the epochs that may have been in force at some moment of a time.
func (c *churn) between(from, to int64) []epoch {
	var all []epoch
	for i, e := range c.epochs {
		if e.written <= to && (i+1 == len(c.epochs) || c.epochs[i+1].held >= from) {
			all = append(all, e)
		}
	}
	return all
}

// flight is how long a packet that did not arrive may have been on its way, in nanoseconds.
const flight = int64(300 * time.Millisecond)

// judge holds every probe against what was in force.
func (c *churn) judge(t *testing.T, protocol string, results []lab.ProbeResult) {
	t.Helper()
	for _, r := range results {
		f := c.flowOf(protocol, r)
		wrong := 0
		for _, p := range r.Probes {
			seen := p.Seen
			if !p.Arrived {
				seen = p.Sent + flight
			}
			epochs := c.between(p.Sent, seen)
			must := c.must(f, epochs)
			c.counts.add(must)
			bad := must == "Deny" && (p.Arrived || p.Answered)
			if must == "Allow" && p.Lost && c.must(f, c.between(p.Sent, p.Sent+flight)) == "Allow" {
				bad = !shut(f, epochs)
				c.counts.lost++
				c.lost[c.changeAt(p.Sent)]++
			}
			if bad {
				wrong++
				c.blame(t, f, p, epochs, must, wrong == 1)
			}
		}
		if wrong > 0 {
			t.Errorf("%v: %d of %d probes went wrong", f, wrong, len(r.Probes))
		}
	}
}

// changeAt is the kind of the last change that had begun at a time.
func (c *churn) changeAt(at int64) string {
	begun := c.between(at, at)
	e := begun[len(begun)-1]
	if e.held < at {
		return e.kind + ", after it"
	}
	return e.kind
}

func (c *churnCounts) add(must string) {
	switch must {
	case "Deny":
		c.denied++
	case "Allow":
		c.allowed++
	default:
		c.either++
	}
}

// must is what must become of a flow that is opened while those are in force: nothing is said
// where they differ. Two nodes do not change at one moment: a flow may meet the old state at
// one and the new one at the other.
func (c *churn) must(f flow, epochs []epoch) string {
	var leaves, enters, passes, all [2]bool // whether in one of them it is denied, allowed
	index := map[bool]int{true: 1}
	for _, e := range epochs {
		leaves[index[e.leaves[f]]] = true
		enters[index[e.enters[f]]] = true
		passes[index[e.leaves[f] && e.enters[f]]] = true
	}
	all = passes
	if c.node[f.from] != c.node[f.to] {
		all = [2]bool{leaves[0] || enters[0], leaves[1] && enters[1]}
	}
	switch {
	case all[0] && !all[1]:
		return "Deny"
	case all[1] && !all[0]:
		return "Allow"
	}
	return ""
}

// shut tells whether one of the epochs may have begun meanwhile in which f is denied as it
// begins.
func shut(f flow, epochs []epoch) bool {
	return slices.ContainsFunc(epochs[1:], func(e epoch) bool { return e.shuts[f] })
}

func (c *churn) blame(t *testing.T, f flow, p lab.Probe, epochs []epoch, must string, whole bool) {
	t.Helper()
	var b strings.Builder
	for _, e := range epochs {
		if !whole { // the first line says enough
			e.what, _, _ = strings.Cut(e.what, "\n")
		}
		fmt.Fprintf(&b, "written %v and held %v after the sending, leaves %v, enters %v: %s\n",
			time.Duration(e.written-p.Sent), time.Duration(e.held-p.Sent), e.leaves[f], e.enters[f], e.what)
	}
	t.Errorf("%v: %+v, seen after %v, and had to be: %s. In force:\n%s", f, p, time.Duration(p.Seen-p.Sent), must, b.String())
}

// flowOf reads the flow of a result: its target is "b:80 (ADDRESS)".
func (c *churn) flowOf(protocol string, r lab.ProbeResult) flow {
	to, addr, _ := strings.Cut(r.To, " ")
	f := flow{r.From, strings.TrimSuffix(to, ":80"), protocol, 4}
	if strings.Contains(addr, ":") {
		f.family = 6
	}
	return f
}
