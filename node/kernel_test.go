package node

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSwarmIsFlushedWhenQuietAndAtLastAlthoughItIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		s := swarm{flush: func() { at = append(at, time.Since(start)) }}
		s.add(time.Now())
		time.Sleep(time.Second) // quiet
		synctest.Wait()
		if len(at) != 1 || at[0] != settle {
			t.Fatalf("flushed at %v, want once at %v", at, settle)
		}
		time.Sleep(5 * time.Second)
		at, start = nil, time.Now()
		for time.Since(start) < 10*time.Second { // never quiet
			s.add(time.Now())
			time.Sleep(settle / 4)
		}
		synctest.Wait()
		if len(at) < 4 || at[0] > patience {
			t.Errorf("flushed at %v, want every %v at least", at, patience)
		}
	})
}
