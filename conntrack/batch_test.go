package conntrack

import (
	"testing"
	"time"
)

// A pass beside a loop whose turns are long takes few of them, and one beside a quick loop holds it up for little.
func TestBatchesGrowBesideALongTurn(t *testing.T) {
	n, turns, judged := batchFlows, 0, 0
	for judged < 20_000 {
		judged += n
		turns++
		n = nextBatch(n, 30*time.Millisecond, time.Duration(n)*10*time.Microsecond)
	}
	if turns > 25 || n != mostFlows {
		t.Errorf("20000 flows take %d of the loop's turns, %d at the end, want at most 25, and %d", turns, n, mostFlows)
	}
	if n = nextBatch(n, 0, time.Millisecond); n != batchFlows {
		t.Errorf("%d flows are judged together beside a quick loop, want %d", n, batchFlows)
	}
}
