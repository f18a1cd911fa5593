package node

import "testing"

// TestTrimmer: memory is given back once work is over, and not for a little of it.
func TestTrimmer(t *testing.T) {
	const mb = 1 << 20
	var tr trimmer
	for i, s := range []struct {
		allocated, live uint64
		want            bool
	}{
		{100 * mb, 20 * mb, false}, // a snapshot
		{300 * mb, 50 * mb, false}, // goes on
		{300*mb + 1000, 80 * mb, true},
		{300*mb + 2000, 80 * mb, false}, // there is nothing to gain
		{310 * mb, 80 * mb, false},
		{310 * mb, 80 * mb, false}, // less than a quarter of what lives
		{319 * mb, 80 * mb, false},
		{321 * mb, 80 * mb, false}, // work goes on
		{321 * mb, 80 * mb, true},
		{322 * mb, 1 * mb, false},
		{322 * mb, 1 * mb, false}, // less than is worth it
		{324 * mb, 1 * mb, false},
		{324 * mb, 1 * mb, true},
	} {
		if got := tr.due(s.allocated, s.live); got != s.want {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}
