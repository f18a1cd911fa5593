package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
)

// fuse ends a call at a step, as kill -9 of the agent does: nothing after it runs.
type fuse struct {
	mu    sync.Mutex
	at    string // the step; empty: none
	blown bool
	steps []string // all that were taken
}

func (f *fuse) step(name string) {
	f.mu.Lock()
	for n, base := 2, name; slices.Contains(f.steps, name); n++ {
		name = fmt.Sprintf("%s (%d)", base, n)
	}
	f.steps = append(f.steps, name)
	hit := f.at == name || f.blown
	f.blown = hit
	f.mu.Unlock()
	if hit {
		runtime.Goexit()
	}
}

// arm gives the server a fuse; its datastore too.
func (b *bed) arm(at string) *fuse {
	f := &fuse{at: at}
	b.srv.cfg.Step = f.step
	b.srv.cfg.Store = StepStore(b.srv.cfg.Store, f.step)
	b.srv.cfg.Allocator = ipam.NewAllocator(b.srv.cfg.Store, "n1")
	return f
}

// tryCall has the server handle a call until it ends or the fuse blows.
func (b *bed) tryCall(r *wire.Request, ns int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns))
		if err != nil {
			b.t.Error(err)
			return
		}
		defer f.Close()
		if _, err := b.srv.handle(context.Background(), r, f); err != nil {
			b.t.Errorf("%s: %v", r.Command, err)
		}
	}()
	<-done
}

// stepsOf records the steps of a call, which the agent must take each time.
func stepsOf(t *testing.T, command string) []string {
	t.Helper()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.stop()
	b.prepare()
	if command != "ADD" {
		b.tryCall(b.request("ADD", p, podArgs(p), ""), p.ns)
	}
	f := b.arm("")
	b.tryCall(b.request(command, p, podArgs(p), `,"cni.dev/valid-attachments":[]`), p.ns)
	if len(f.steps) < 4 {
		t.Fatalf("%s has only the steps %q", command, f.steps)
	}
	return f.steps
}

// whatComesNext are the ways in which the runtime goes on after the agent was killed.
var whatComesNext = map[string]func(b *bed, p pod){
	"nothing but GC": func(b *bed, p pod) {
		b.start()
		gc := b.request("GC", pod{}, "", "")
		gc.Config = json.RawMessage(`{"name":"k8s-pod-network","cniVersion":"1.1.0","cni.dev/valid-attachments":[]}`)
		b.tryCall(gc, p.ns)
	},
	"DEL": func(b *bed, p pod) {
		b.start()
		b.del(p)
	},
	"DEL to an agent that replays nothing yet": func(b *bed, p pod) {
		b.prepare()
		b.tryCall(b.request("DEL", p, podArgs(p), ""), p.ns)
		b.start()
	},
	"ADD again": func(b *bed, p pod) {
		b.start()
		b.works(p)
		b.del(p)
	},
	"ADD of the pod's next sandbox": func(b *bed, p pod) {
		b.start()
		next := b.pod(p.name, p.id+"-next")
		b.works(next)
		b.del(p)
		b.del(next)
	},
}

// works adds a pod, which must have its addresses.
func (b *bed) works(p pod) {
	b.t.Helper()
	if got := addrs(b.add(p)); len(got) != 2 {
		b.t.Errorf("addresses %v", got)
	}
	if err := b.call(b.request("CHECK", p, podArgs(p), ""), p.ns); err != nil {
		b.t.Errorf("CHECK: %v", err)
	}
}

// TestKilledAtAnyStep kills the agent between any two steps of ADD, DEL and GC.
func TestKilledAtAnyStep(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"ADD", "DEL", "GC"} {
		for i, step := range stepsOf(t, command) {
			for j, next := range slices.Sorted(maps.Keys(whatComesNext)) {
				if strings.HasPrefix(step, "object") && i%len(whatComesNext) != j {
					continue // what is in the kernel then goes with the device
				}
				t.Run(fmt.Sprintf("%s, %s, %s", command, step, next), func(t *testing.T) {
					t.Parallel()
					killed(t, command, step, next)
				})
			}
		}
	}
}

func killed(t *testing.T, command, step, next string) {
	b := newBed(t)
	p := b.pod("web", "c1")
	b.stop()
	b.prepare()
	if command != "ADD" {
		b.tryCall(b.request("ADD", p, podArgs(p), ""), p.ns)
	}
	f := b.arm(step)
	b.tryCall(b.request(command, p, podArgs(p), `,"cni.dev/valid-attachments":[]`), p.ns)
	if !f.blown {
		t.Fatalf("%s has no step %q", command, step)
	}
	whatComesNext[next](b, p)
	b.nothingLeft()
	b.noAddressHeld()
}

// noAddressHeld fails the test if a block has an address in use.
func (b *bed) noAddressHeld() {
	b.t.Helper()
	list, _, err := b.store.List(b.t.Context(), api.KindIPAMBlock.Name, "")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, o := range list {
		if hs, err := ipam.HoldingsOf(o.(*api.IPAMBlock), "n1"); err != nil || len(hs) > 0 {
			b.t.Errorf("in use: %v, %v", hs, err)
		}
	}
}

// late is a datastore whose commit of a pod arrives when it is told to.
type late struct {
	store.Store
	mu  sync.Mutex
	ops []store.Op
}

func (l *late) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	put := slices.ContainsFunc(ops, func(op store.Op) bool { return op.Key.Kind == api.KindWorkloadEndpoint.Name && op.Object != nil })
	l.mu.Lock()
	hold := put && l.ops == nil
	if hold {
		for _, op := range ops {
			op.Object = api.Clone(op.Object)
			l.ops = append(l.ops, op)
		}
	}
	l.mu.Unlock()
	if !hold {
		return l.Store.Commit(ctx, ops)
	}
	<-ctx.Done() // the caller goes away
	return 0, ctx.Err()
}

func (l *late) sent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ops != nil
}

// TestACommitInFlightWhenTheAddIsGivenUp lets the commit arrive after the release.
func TestACommitInFlightWhenTheAddIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			b := newBed(t)
			first := b.pod("first", "c0") // so that the node has blocks
			b.add(first)
			b.del(first)
			b.stop()
			b.prepare()
			l := &late{Store: b.store}
			b.srv.cfg.Store, b.srv.cfg.Allocator = l, ipam.NewAllocator(l, "n1")
			p := b.pod("web", "c1")
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			r, err := ParseRequest(b.request("ADD", p, podArgs(p), ""))
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(dup(t, p.ns)), "pod")
			defer f.Close()
			if restart { // killed before it can take anything back
				b.srv.cfg.Step = (&fuse{at: "record says releasing"}).step
			}
			go func() {
				defer close(done)
				_, err := b.srv.add(ctx, r, f)
				done <- err
			}()
			b.wait("the commit is sent", l.sent)
			cancel()
			if err := <-done; err == nil && !restart {
				t.Error("the ADD succeeds")
			}
			if restart {
				b.start()
			}
			b.wait("the record is gone", func() bool { return len(b.recs.All()) == 0 })
			if _, err := b.store.Commit(t.Context(), l.ops); err == nil {
				t.Error("the commit that came late is taken")
			}
			b.nothingLeft()
			b.noAddressHeld()
			if !restart {
				b.start()
			}
			b.works(p)
			b.del(p)
			b.nothingLeft()
		})
	}
}

// TestADelWithoutRecordTakesWhatTheEndpointNames has the records lost under a pod.
func TestADelWithoutRecordTakesWhatTheEndpointNames(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	b.stop()
	b.loseRecords()
	b.start()
	b.del(p)
	b.nothingLeft()
}

// loseRecords removes the directory, as a new disk does.
func (b *bed) loseRecords() {
	b.t.Helper()
	if err := os.RemoveAll(filepath.Join(b.dir, "records")); err != nil {
		b.t.Fatal(err)
	}
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
