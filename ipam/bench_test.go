package ipam

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/etcd/etcdtest"
	"github.com/calicogo/calico/store/memory"
)

// BenchmarkAssignRelease measures assignments with their releases, of one node, from one
// caller and from many at once, and reports assignments per second and calls of the
// datastore for each.
func BenchmarkAssignRelease(b *testing.B) {
	b.Run("memory", func(b *testing.B) { benchmark(b, memory.New(), 1) })
	b.Run("memory-32", func(b *testing.B) { benchmark(b, memory.New(), 32) })
	b.Run("etcd", func(b *testing.B) { benchmark(b, openEtcd(b), 1) })
	b.Run("etcd-32", func(b *testing.B) { benchmark(b, openEtcd(b), 32) })
}

func openEtcd(b *testing.B) store.Store {
	s, err := etcd.Open(b.Context(), etcd.Config{Endpoints: []string{etcdtest.Start(b)}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func benchmark(b *testing.B, s store.Store, callers int) {
	calls := &counter{Store: s}
	a, p := NewAllocator(calls, "n"), testPool("p", "10.0.0.0/16", 26)
	none := 0
	configure(b, s, api.IPAMConfigurationSpec{IPCooldownSeconds: &none})
	for i := range 20 { // a node with pods
		mustAssign(b, a, ask(fmt.Sprint("pod", i), t0, p))
	}
	calls.n.Store(0)
	b.SetParallelism(callers)
	b.ReportAllocs()
	var id atomic.Int64
	work := func(more func() bool) {
		for more() {
			h := fmt.Sprint("k8s-pod-network.", id.Add(1))
			if _, err := a.Assign(context.Background(), ask(h, t0, p), nil); err != nil {
				b.Error(err)
			}
			if err := a.Release(context.Background(), h, t0); err != nil {
				b.Error(err)
			}
		}
	}
	if callers == 1 {
		work(b.Loop)
	} else {
		b.RunParallel(func(pb *testing.PB) { work(pb.Next) })
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "assignments/s")
	b.ReportMetric(float64(calls.n.Load())/float64(b.N), "calls/op")
}

type counter struct {
	store.Store
	n atomic.Int64
}

func (c *counter) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	c.n.Add(1)
	return c.Store.Commit(ctx, ops)
}

func BenchmarkBlockAssign(b *testing.B) {
	bl := testBlock("10.0.0.0/26")
	for i := range 40 {
		bl, _ = bl.assign(i, holder{fmt.Sprint("h", i), nil})
	}
	for b.Loop() {
		ord, _ := bl.next()
		if _, err := bl.assign(ord, holder{"x", nil}); err != nil {
			b.Fatal(err)
		}
	}
}
