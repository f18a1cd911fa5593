package node

import (
	"sync"
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
