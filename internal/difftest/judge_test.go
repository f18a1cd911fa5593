package difftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/nft"
)

// driver is a backend.
type driver interface {
	dataplane.Driver
	Compilers() []*filter.Compiler
	Adopt([]*filter.Compiler)
	Clean(context.Context) error
	Close()
}

// backends are those that can be judges.
var backends = []backend{{
	name: "nft", quick: true,
	open:  func(ns int) (driver, error) { return nft.New(ns, nft.Config{LogGroup: ruleGroup}) },
	quiet: quietNFT, meddle: meddleNFT, repaired: repairedNFT,
}}

type backend struct {
	name     string
	quick    bool
	open     func(ns int) (driver, error)
	quiet    func(driver) error            // reads back, and returns an error if the kernel is not as the driver believes
	meddle   func(int, driver, *Gen) error // changes what the kernel has, so that it lets nothing more pass
	repaired func(driver) bool             // enough, for a test
}

func quietNFT(d driver) error {
	stats := d.(*nft.Driver).Stats
	before := stats()
	d.Resync()
	if err := d.Sync(context.Background()); err != nil {
		return err
	}
	if after := stats(); after.Transactions != before.Transactions || after.Reads != before.Reads+2 {
		return fmt.Errorf("sync after Resync: from %+v to %+v, want two reads and nothing written", before, after)
	}
	return nil
}

// judge is a kernel's namespace with one backend's rules in it.
type judge struct {
	backend
	w *world
	d driver
}

func newJudge(t *testing.T, b backend) *judge {
	t.Helper()
	j := &judge{backend: b, w: newWorld(t)}
	t.Cleanup(func() {
		if j.d != nil {
			j.d.Close()
		}
	})
	return j
}

// anew has another driver go on from what the kernel has, which it is told nothing of.
func (j *judge) anew() (err error) {
	if j.d != nil {
		j.d.Close()
	}
	j.d, err = j.open(j.w.node)
	return err
}

// ask brings the kernel to the state, and sends the packets.
func (j *judge) ask(probes []Probe) ([]sight, error) {
	if err := j.d.Sync(context.Background()); err != nil {
		return nil, err
	}
	if err := j.w.forget(); err != nil {
		return nil, err
	}
	return j.w.send(probes)
}

// court are judges who are told the same.
type court struct{ judges []*judge }

// benches is how many worlds each backend has that is slow. They take turns: one Sync of iptables is
// several processes and waits for the kernel.
const benches = 3

// newCourt returns all judges there are.
func newCourt(t *testing.T) *court {
	c := &court{}
	for i := range benches {
		for _, b := range backends {
			if !b.quick || i == 0 {
				c.judges = append(c.judges, newJudge(t, b))
			}
		}
	}
	return c
}

// turns is after how many rounds it is each judge's turn again.
func (c *court) turns() (n int) {
	for _, j := range c.judges {
		if !j.quick {
			n++
		}
	}
	return max(n, 1)
}

// trial is one state and the packets to be judged in it.
type trial struct {
	round  int
	state  *dataplane.State
	delta  *dataplane.Delta // the way there from the trial before
	probes []Probe
	anew   bool // drivers begin anew, and know nothing of what the kernel has
	quiet  bool // what the kernel has is read back
}

// finding is what one judge has seen in a trial.
type finding struct {
	*trial
	by     *judge
	sights []sight
}

// hear has all judges work off the trials, side by side. In each trial those of the slow are asked
// whose turn it is.
func (c *court) hear(trials []*trial) (out []finding, err error) {
	found, errs := make([][]finding, len(c.judges)), make([]error, len(c.judges))
	var wg sync.WaitGroup
	slow := 0
	for i, j := range c.judges {
		turn := slow
		if !j.quick {
			slow++
		}
		wg.Go(func() { found[i], errs[i] = j.hear(trials, turn, c.turns()) })
	}
	wg.Wait()
	return slices.Concat(found...), errors.Join(errs...)
}

func (j *judge) hear(trials []*trial, turn, turns int) (out []finding, err error) {
	for _, x := range trials {
		if x.anew {
			if err := j.anew(); err != nil {
				return out, err
			}
			j.d.Update(x.state.Delta())
		} else {
			j.d.Update(x.delta)
		}
		if !j.quick && x.round%turns != turn {
			continue
		}
		sights, err := j.ask(x.probes)
		if err == nil && x.quiet {
			err = j.quiet(j.d)
		}
		if err != nil {
			return out, fmt.Errorf("round %d: %s: %w\n%s", x.round, j.name, err, Describe(x.state))
		}
		out = append(out, finding{x, j, sights})
	}
	return out, nil
}

// objection says in what a packet's fate in the kernel was another than Eval's; empty: in nothing.
func objection(s *dataplane.State, x *Probe, want dataplane.Trace, seen *sight) string {
	begin, here := seenIn, pass(&x.Packet)
	if x.In == "" {
		begin = seenSent
	}
	first, came := seen.at[begin]
	now, passed := seen.at[here]
	if !came {
		return "the packet did not arrive"
	}
	if want := passes(want); passed != want {
		return fmt.Sprintf("it passes: %v, want %v", passed, want)
	}
	if mask := s.Settings.MarkMask; passed && (first.mark^now.mark)&^mask != 0 {
		return fmt.Sprintf("the mark came as %#x and went as %#x: bits beyond the mask %#x changed", first.mark, now.mark, mask)
	}
	if why := wrongLogs(s, want, seen.logs); why != "" {
		return why
	}
	if why := wrongAnswer(x, want, seen.told); why != "" {
		return why
	}
	return wrongSource(x, want, seen)
}

func wrongLogs(s *dataplane.State, want dataplane.Trace, logs []logged) string {
	n := Logs(want)
	if len(logs) > n || len(logs) < n && s.Settings.LogRate == (dataplane.Rate{}) {
		return fmt.Sprintf("it is logged %d times, want %d", len(logs), n)
	}
	right := logged{cmp.Or(s.Settings.LogGroup, ruleGroup), s.Settings.LogPrefix + ": "}
	other := func(l logged) bool { return l != right }
	if i := slices.IndexFunc(logs, other); i >= 0 {
		return fmt.Sprintf("it is logged as %+v, want %+v", logs[i], right)
	}
	return ""
}

// wrongAnswer looks at how the sender was told. That of a spoofed source is not where the packet
// came from, and may be out of reach; the node itself is told in another way.
func wrongAnswer(x *Probe, want dataplane.Trace, told string) string {
	how := map[dataplane.Verdict]string{dataplane.Drop: "", dataplane.Reject: "icmp", dataplane.Reset: "reset"}
	must, denied := how[want.Verdict]
	if !denied || told == must || x.In == "" || device(x.Src) != x.In || must == "icmp" && !refusable(x) {
		return ""
	}
	return fmt.Sprintf("its sender is told by %q, want %q", told, must)
}

// refusable tells whether ICMP is sent in answer: it is not to what answers itself, nor where the
// kernel cannot check the packet.
func refusable(x *Probe) bool {
	return x.Ports() || x.ICMP() && x.Conn == dataplane.ConnNew
}

// wrongSource compares the source with which the packet left. Of a packet for the node what leaves
// is the answer; a flow that was made before is not translated.
func wrongSource(x *Probe, want dataplane.Trace, seen *sight) string {
	left, ok := seen.at[seenPost]
	if !ok || x.Out == "" || x.Flow != nil {
		return ""
	}
	switch own := isNode(left.src); {
	case want.Masquerade && !own:
		return fmt.Sprintf("it left with source %v, want one of the node's", left.src)
	case !want.Masquerade && left.src != x.Src:
		return fmt.Sprintf("it left with source %v, want %v", left.src, x.Src)
	}
	return ""
}

// kind names what became of a packet, to be counted.
func kind(x *Probe, want dataplane.Trace) string {
	out := pass(&x.Packet) + " " + want.Verdict.String()
	if strings.Contains(want.Reason, "established") || x.Cut {
		out += ", " + x.Conn.String()
	}
	if x.Cut {
		out += ", cut"
	}
	if want.Masquerade && x.Flow == nil {
		out += ", masquerade"
	}
	return out
}
