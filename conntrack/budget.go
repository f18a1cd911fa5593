package conntrack

import "time"

// What passes may cost, so that changes without end do not have the kernel list its flows without end.
const (
	share   = 6                      // one part in so many of a processor, in the long run
	saved   = 100 * time.Millisecond // of a processor: what may be spent at once after a quiet time
	patient = 5 * time.Second        // no pass waits longer
	urgent  = 700 * time.Millisecond // what may deny is over by then, counted from the end of the pass before
)

// budget is the processor's time that passes may spend. It grows as time goes by.
type budget struct {
	spare time.Duration // less than nothing: it is to be made up for first
	at    time.Time     // of spare: when the last pass ended
	last  time.Duration // that the last pass took
}

// spent says that a pass has ended which took so long, and so much of a processor.
func (b *budget) spent(now time.Time, took, cost time.Duration) {
	b.spare = b.left(now) - cost
	b.at, b.last = now, took
}

func (b *budget) left(now time.Time) time.Duration {
	if b.at.IsZero() {
		return saved
	}
	return min(saved, b.spare+now.Sub(b.at)/share)
}

// wait is how long the next pass has to wait. Where it may deny a flow that lives, and would take as long as the last one, it
// comes in time, whatever it costs; yet half of the time there is none.
func (b *budget) wait(now time.Time, denies bool) time.Duration {
	most := patient
	if denies {
		most = max(urgent-2*b.last, b.last)
	}
	return max(0, min(-share*b.left(now), most-now.Sub(b.at)))
}
