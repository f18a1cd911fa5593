package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
	"github.com/calicogo/calico/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return memory.New() })
}

func TestNowDatesNewObjects(t *testing.T) {
	s := memory.New()
	when := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	s.Now = func() time.Time { return when }
	o := storetest.Policy("ns", "p", "")
	storetest.MustCommit(t, s, store.Put(o))
	if got := o.CreationTimestamp.Time; !got.Equal(when) {
		t.Errorf("creationTimestamp is %v, want %v", got, when)
	}
}

// An ended context is said at once, before anything is handed on.
func TestEndedContext(t *testing.T) {
	s := memory.New()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Watch().Run(ctx, func(u store.Update) { t.Errorf("Update %v", u) }); err != context.Canceled {
		t.Errorf("Run gives %v, want context.Canceled", err)
	}
	if _, err := s.Commit(ctx, []store.Op{store.Put(storetest.Policy("ns", "p", ""))}); err != context.Canceled {
		t.Errorf("Commit gives %v, want context.Canceled", err)
	}
}
