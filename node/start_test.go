package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPaced: however often it is called, a paced step takes a tenth of the time or so, and
// one that took long, for the datastore was slow, does not rest for long.
func TestPaced(t *testing.T) {
	failed := errors.New("failed")
	for took, most := range map[time.Duration]int{20 * time.Millisecond: 50, 5 * time.Second: 2} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			steps := 0
			step := paced(func(context.Context) error { steps++; time.Sleep(took); return failed })
			for ctx.Err() == nil {
				if err := step(ctx); err != failed {
					t.Errorf("%v, want the step's error", err)
				}
			}
			if steps > most || steps < most*9/10 {
				t.Errorf("%d steps of %v in 10s, want about %d", steps, took, most)
			}
		})
	}
}
