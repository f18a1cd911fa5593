package watch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoopRetriesWithGrowingPausesAndStopsWhenItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var at []time.Duration
		start := time.Now()
		l := Loop{Bell: NewBell(), MinRetry: time.Second, MaxRetry: 8 * time.Second, Step: func(context.Context) error {
			at = append(at, time.Since(start))
			if len(at) < 8 {
				return errors.New("not yet")
			}
			return nil
		}}
		l.Bell.Ring()
		l.Bell.Ring() // one ring
		if err := l.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if len(at) != 8 {
			t.Fatalf("%d steps, want 8: %v", len(at), at)
		}
		for i, limit := range []time.Duration{1, 2, 4, 8, 8, 8, 8} {
			limit *= time.Second
			if pause := at[i+1] - at[i]; pause < limit/2 || pause > limit {
				t.Errorf("pause %d is %v, want between %v and %v", i, pause, limit/2, limit)
			}
		}
	})
}

func TestLoopResyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		resyncs, steps := 0, 0
		l := Loop{Bell: NewBell(), Interval: time.Minute, Resync: func() { resyncs++ },
			Step: func(context.Context) error { steps++; return nil }}
		_ = l.Run(ctx)
		if resyncs != 10 || steps != 10 {
			t.Errorf("%d resyncs and %d steps in ten minutes, want 10 each", resyncs, steps)
		}
	})
}
