package difftest

import (
	"testing"

	"github.com/calicogo/calico/dataplane"
)

// TestCoverage holds that the packets of 2000 states meet every condition of a rule both ways.
func TestCoverage(t *testing.T) {
	g, c := NewGen(Seed(t)), Coverage{}
	for range Count(t, "DIFFTEST_COVERED", 2000) {
		s := g.State()
		for _, x := range g.Probes(s, 50) {
			c.Note(g, s, x.Packet, dataplane.Eval(s, x.Packet))
		}
	}
	t.Log("\n" + c.Table())
	for _, what := range c.Missing() {
		t.Errorf("%s: has not decided both ways; the generator makes too few packets that show it", what)
	}
}
