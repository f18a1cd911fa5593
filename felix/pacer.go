package felix

import (
	"sync"
	"time"
)

// How fast the agent answers others who change its tables. The first time it does so at once;
// whoever goes on is answered after growing pauses, so that a read-back of many sets, which
// takes a good part of a second, is not all that the agent does.
const (
	firstPause = 20 * time.Millisecond
	longPause  = 2 * time.Second
	restless   = 500 * time.Millisecond // a pause from which on there is a problem to tell of
	calm       = 10 * time.Second       // without changes: all is forgotten
)

// pacer calls answer for changes, at once for the first and then with growing pauses, and
// quiet when there have been none for a while after it was restless. Both are called by
// goroutines of its own. It is safe for concurrent use.
type pacer struct {
	answer func()
	quiet  func()

	mu     sync.Mutex
	pause  time.Duration // before the next answer
	timer  *time.Timer   // of the next answer; nil: none is due
	calmed *time.Timer
}

// change notes a change and tells whether they keep coming.
func (p *pacer) change() (keeps bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calmed == nil {
		p.calmed = time.AfterFunc(calm, p.calm)
	} else {
		p.calmed.Reset(calm)
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(p.pause, p.due)
		p.pause = min(max(2*p.pause, firstPause), longPause)
	}
	return p.pause > restless
}

func (p *pacer) due() {
	p.mu.Lock()
	p.timer = nil
	p.mu.Unlock()
	p.answer()
}

func (p *pacer) calm() {
	p.mu.Lock()
	was := p.pause
	p.pause = 0
	p.mu.Unlock()
	if was > restless {
		p.quiet()
	}
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range []*time.Timer{p.timer, p.calmed} {
		if t != nil {
			t.Stop()
		}
	}
}

// Changes of links, routes and neighbours come in swarms: a device takes many with it. They
// are answered once they have been quiet for settle, or after patience if they never are.
const (
	settle   = 200 * time.Millisecond
	patience = 2 * time.Second
)

// swarm calls flush once for many events. add is called by one goroutine.
type swarm struct {
	flush func()
	timer *time.Timer
	until time.Time // the first event not yet flushed waits no longer than this
}

func (s *swarm) add(now time.Time) {
	if now.After(s.until) {
		s.until = now.Add(patience)
	}
	s.stop()
	s.timer = time.AfterFunc(min(settle, s.until.Sub(now)), s.flush)
}

func (s *swarm) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
