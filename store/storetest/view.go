package storetest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// View is what a Source has said so far: the sum of its Updates. It checks on the way
// that revisions never shrink and that "in sync" is never taken back.
type View struct {
	t    testing.TB
	mu   sync.Mutex
	cond *sync.Cond

	objects map[store.Key]api.Object
	updates []store.Update
	revised store.Revision // newest revision of an Update
	inSync  bool
	broken  string // how the Source broke its contract
	overdue bool
}

// Follow runs src until the test ends.
func Follow(t testing.TB, src store.Source) *View {
	v := &View{t: t, objects: map[store.Key]api.Object{}}
	v.cond = sync.NewCond(&v.mu)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := src.Run(ctx, v.take); ctx.Err() == nil {
			v.fail("Run returned early: " + err.Error())
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if v.broken != "" {
			t.Error(v.broken)
		}
	})
	return v
}

func (v *View) take(u store.Update) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case u.Revision < v.revised:
		v.broken = "the revision of the Source went back"
	case v.inSync && !u.InSync:
		v.broken = "the Source was in sync and is no longer"
	}
	v.revised, v.inSync = u.Revision, u.InSync
	v.updates = append(v.updates, u)
	for _, e := range u.Events {
		if e.Object == nil {
			delete(v.objects, e.Key)
		} else {
			v.objects[e.Key] = e.Object
		}
	}
	v.cond.Broadcast()
}

func (v *View) fail(why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken = why
	v.cond.Broadcast()
}

// At waits until the view is in sync at rev or later and returns its contents.
func (v *View) At(rev store.Revision) map[store.Key]api.Object {
	v.t.Helper()
	v.Wait("to reach the revision", func([]store.Update) bool { return v.inSync && v.revised >= rev })
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.objects)
}

// Wait waits until ok, which is called with the Updates so far, in order.
func (v *View) Wait(what string, ok func([]store.Update) bool) {
	v.t.Helper()
	timer := time.AfterFunc(Timeout, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.overdue = true
		v.cond.Broadcast()
	})
	defer timer.Stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	for !ok(v.updates) {
		if v.broken != "" || v.overdue {
			v.t.Fatalf("waited for the Source %s: %s (overdue: %v); it is at %d, in sync: %v", what, v.broken, v.overdue, v.revised, v.inSync)
		}
		v.cond.Wait()
	}
}

// Updates returns what the Source has said so far.
func (v *View) Updates() []store.Update {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.updates)
}

// CheckSame waits for the view to reach the store's present revision and compares it
// with what List gives of kinds. Nobody may write meanwhile.
func (v *View) CheckSame(s store.Store, kinds ...string) {
	v.t.Helper()
	want, rev := Contents(v.t, s, kinds...)
	if diff := cmp.Diff(want, v.At(rev)); diff != "" {
		v.t.Errorf("the sum of the Updates is not what the store holds; -store +view\n%s", diff)
	}
}

// Contents returns what List gives of kinds, and the newest revision it gives.
func Contents(t testing.TB, s store.Store, kinds ...string) (map[store.Key]api.Object, store.Revision) {
	t.Helper()
	all, newest := map[store.Key]api.Object{}, store.Revision(0)
	for _, kind := range kinds {
		objects, rev, err := s.List(Context(t), kind, "")
		if err != nil {
			t.Fatalf("List of %s: %v", kind, err)
		}
		for _, o := range objects {
			all[store.KeyOf(o)] = o
		}
		newest = max(newest, rev)
	}
	return all, newest
}
