package felix

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/reconcile"
	"github.com/calicogo/calico/store"
)

// kernel stands for a driver's part of the kernel: it holds what it was synced to.
type kernel struct {
	mu      sync.Mutex
	want    *dataplane.State
	have    map[dataplane.Interface]bool
	syncs   int
	resyncs int
	fail    error
	gate    chan struct{} // if there is one, Sync waits for it
}

func newKernel() *kernel {
	return &kernel{want: dataplane.NewState(), have: map[dataplane.Interface]bool{}}
}

func (k *kernel) Update(d *dataplane.Delta) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.want.Apply(d)
}

func (k *kernel) Sync(context.Context) error {
	k.mu.Lock()
	gate := k.gate
	k.mu.Unlock()
	if gate != nil {
		<-gate
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.syncs++
	if k.fail != nil {
		return k.fail
	}
	k.have = map[dataplane.Interface]bool{}
	for i := range k.want.Endpoints {
		k.have[i] = true
	}
	return nil
}

func (k *kernel) Resync() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resyncs++
}

func (k *kernel) setFail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

func (k *kernel) setGate(c chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gate = c
}

func (k *kernel) settings() dataplane.Settings {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.want.Settings
}

func (k *kernel) counts() (syncs, resyncs, have int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.syncs, k.resyncs, len(k.have)
}

func attachment(id, iface, addr string) *dataplane.Attachment {
	w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, "default", "n1-k8s-"+id+"-eth0")}
	w.Spec.Node = "n1"
	return &dataplane.Attachment{
		ID: dataplane.AttachmentID{ContainerID: id, IfName: "eth0"}, Interface: dataplane.Interface(iface),
		Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Endpoint: w,
	}
}

// run runs an agent with a rules and a routes kernel inside a bubble of fake time.
func run(t *testing.T, f func(t *testing.T, a *Agent, rules, routes *kernel)) {
	synctest.Test(t, func(t *testing.T) {
		rules, routes := newKernel(), newKernel()
		a := New(Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Drivers: []Driver{{DriverRules, rules}, {DriverRoutes, routes}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		f(t, a, rules, routes)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the agent ended with %v", err)
		}
	})
}

func TestNothingIsWrittenBeforeTheSnapshotIsWhole(t *testing.T) {
	run(t, func(t *testing.T, a *Agent, rules, _ *kernel) {
		at := attachment("c1", "cali1", "10.0.0.1")
		a.SetAttachment(at.ID, at)
		a.Update(store.Update{Revision: 4})
		synctest.Wait()
		if syncs, _, _ := rules.counts(); syncs != 0 {
			t.Errorf("%d syncs before the snapshot was whole", syncs)
		}
		if s, _ := a.Status(); s.InSync || s.Revision != 0 {
			t.Errorf("status %+v", s)
		}
		a.Update(store.Update{Revision: 5, InSync: true})
		synctest.Wait()
		if _, _, have := rules.counts(); have != 1 {
			t.Errorf("%d endpoints in the kernel, want 1", have)
		}
		if s, _ := a.Status(); !s.InSync || s.Revision != 5 {
			t.Errorf("status %+v", s)
		}
		a.SetAttachment(at.ID, nil)
		synctest.Wait()
		if _, _, have := rules.counts(); have != 0 {
			t.Errorf("%d endpoints in the kernel after the record was removed", have)
		}
	})
}

func TestProgrammedWaitsForTheKernel(t *testing.T) {
	run(t, func(t *testing.T, a *Agent, rules, routes *kernel) {
		rules.setFail(errors.New("table is full"))
		a.Update(store.Update{Revision: 5, InSync: true})
		at := attachment("c1", "cali1", "10.0.0.1")
		a.SetAttachment(at.ID, at)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Programmed(ctx, at); err == nil || !strings.Contains(err.Error(), "table is full") {
			t.Errorf("got %v, want the driver's reason", err)
		}
		if s, _ := a.Status(); s.Revision != 0 {
			t.Errorf("revision %d is said to be in the kernel", s.Revision)
		}
		rules.setFail(nil)
		if err := a.Programmed(t.Context(), at); err != nil { // the loop tries again by itself
			t.Error(err)
		}
		if s, _ := a.Status(); s.Revision != 5 || len(s.Problems) != 0 {
			t.Errorf("status %+v", s)
		}

		// Another pod's route that fails does not hold this one up; its own does.
		other := netip.MustParsePrefix("10.0.0.9/32")
		routes.setFail(reconcile.KeyErrors[netip.Prefix]{other: errors.New("no gateway")}.Err())
		a.Update(store.Update{Revision: 6, InSync: true})
		if err := a.Programmed(t.Context(), at); err != nil {
			t.Error(err)
		}
		if s, _ := a.Status(); s.Revision != 6 || len(s.Problems) != 1 {
			t.Errorf("status %+v", s)
		}
		routes.setFail(reconcile.KeyErrors[netip.Prefix]{netip.MustParsePrefix("10.0.0.1/32"): errors.New("no such device")}.Err())
		a.Update(store.Update{Revision: 7, InSync: true})
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Programmed(ctx, at); err == nil || !strings.Contains(err.Error(), "no such device") {
			t.Errorf("got %v, want the route's reason", err)
		}
	})
}

func TestReplacedDeviceHasItsRoutesReadBack(t *testing.T) {
	run(t, func(t *testing.T, a *Agent, rules, routes *kernel) {
		old, now := attachment("c1", "cali1", "10.0.0.1"), attachment("c2", "cali1", "10.0.0.1")
		a.Update(store.Update{Revision: 5, InSync: true})
		a.SetAttachment(old.ID, old)
		synctest.Wait()
		_, before, _ := routes.counts()
		replace := func(old, now *dataplane.Attachment) {
			gate := make(chan struct{}) // what comes in while the agent is busy is one input
			routes.setGate(gate)
			a.Resync()
			synctest.Wait()
			a.SetAttachment(old.ID, nil)
			a.SetAttachment(now.ID, now)
			routes.setGate(nil)
			close(gate)
			synctest.Wait()
		}
		replace(old, now)
		if _, after, _ := routes.counts(); after != before+1 {
			t.Errorf("%d read-backs of routes, want one", after-before)
		}
		replace(now, now) // the same sandbox anew
		if _, after, _ := routes.counts(); after != before+2 {
			t.Errorf("%d read-backs of routes, want another", after-before)
		}
		a.Resync(DriverRoutes)
		synctest.Wait()
		if _, n, _ := rules.counts(); n != 0 {
			t.Errorf("rules were read back %d times, nobody asked", n)
		}
	})
}
