package watch

import (
	"context"
	"math/rand/v2"
	"time"
)

// Bell wakes one waiter. Rings that come before it wakes are one ring.
type Bell chan struct{}

// NewBell returns a silent bell.
func NewBell() Bell { return make(Bell, 1) }

// Ring wakes the waiter, now or when it next waits. It never blocks.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// Loop runs a step when its bell rings, again with growing pauses while the step fails,
// and with everything read anew at an interval. It is the only place where that is
// written.
type Loop struct {
	Bell   Bell
	Step   func(context.Context) error
	Resync func() // called before the step once an interval; may be nil

	Interval time.Duration // between resyncs; 0: never
	MinRetry time.Duration // first pause after a failure; 0: 100 ms
	MaxRetry time.Duration // longest pause; 0: 10 s
}

// Run runs the loop until ctx ends; it returns ctx's error.
func (l *Loop) Run(ctx context.Context) error {
	var resync <-chan time.Time
	if l.Interval > 0 {
		t := time.NewTicker(l.Interval)
		defer t.Stop()
		resync = t.C
	}
	var pause time.Duration
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.Bell:
		case <-retry:
		case <-resync:
			if l.Resync != nil {
				l.Resync()
			}
		}
		retry = nil
		if err := l.Step(ctx); err == nil {
			pause = 0
		} else if ctx.Err() == nil {
			pause = l.longer(pause)
			retry = time.After(pause/2 + rand.N(pause/2+1))
		}
	}
}

func (l *Loop) longer(pause time.Duration) time.Duration {
	first, last := l.MinRetry, l.MaxRetry
	if first == 0 {
		first = 100 * time.Millisecond
	}
	if last == 0 {
		last = 10 * time.Second
	}
	return min(max(2*pause, first), last)
}
