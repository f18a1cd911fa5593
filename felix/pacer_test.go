package felix

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSwarmIsFlushedWhenQuietAndAtLastAlthoughItIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		s := swarm{flush: func() {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
		}}
		s.add(time.Now())
		time.Sleep(time.Second) // quiet
		synctest.Wait()
		if len(at) != 1 || at[0] != settle {
			t.Fatalf("flushed at %v, want once at %v", at, settle)
		}
		time.Sleep(5 * time.Second)
		mu.Lock()
		at, start = nil, time.Now()
		mu.Unlock()
		for time.Since(start) < 10*time.Second { // never quiet
			s.add(time.Now())
			time.Sleep(settle / 4)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(at) < 4 || at[0] > patience {
			t.Errorf("flushed at %v, want every %v at least", at, patience)
		}
	})
}

// The first change is answered at once; one who goes on is answered ever more rarely, and
// is forgotten after a while.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers, calmed atomic.Int32
		p := &pacer{answer: func() { answers.Add(1) }, quiet: func() { calmed.Add(1) }}
		defer p.stop()
		if p.change() {
			t.Error("one change is no habit")
		}
		synctest.Wait()
		if answers.Load() != 1 {
			t.Fatalf("%d answers to the first change, want one at once", answers.Load())
		}
		time.Sleep(2 * calm)
		if calmed.Load() != 0 {
			t.Error("calm was told of one change")
		}
		answers.Store(0)
		keeps := false
		for range 6000 { // a minute
			keeps = p.change()
			time.Sleep(10 * time.Millisecond)
		}
		if n := answers.Load(); n < 20 || n > 45 || !keeps {
			t.Errorf("%d answers in a minute of changes, want one every %v in the end; habit %v", n, longPause, keeps)
		}
		time.Sleep(2 * calm)
		if calmed.Load() != 1 {
			t.Errorf("calm was told %d times, want once", calmed.Load())
		}
		answers.Store(0)
		p.change()
		synctest.Wait()
		if answers.Load() != 1 {
			t.Error("after a calm time the first change is not answered at once")
		}
	})
}
