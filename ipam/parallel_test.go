package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/etcd/etcdtest"
	"github.com/calicogo/calico/store/memory"
)

// TestParallelMemory and TestParallelEtcd let the agents of several nodes, one of them
// with a twin, assign and release side by side in pools that are too small for them, on
// a datastore that loses answers, and hold that no address is ever had by two.
func TestParallelMemory(t *testing.T) {
	parallel(t, memory.New(), 40)
}

func TestParallelEtcd(t *testing.T) {
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{etcdtest.Start(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	parallel(t, s, 25)
}

// loser loses answers: sometimes a commit is made and the caller's context ends before it
// hears of it, or it hears only that the datastore is unavailable, and the commit may be
// made a while after that.
type loser struct {
	store.Store
	mu   sync.Mutex
	rng  *rand.Rand
	late *sync.WaitGroup // commits that are still to be made
}

type cancelKey struct{}

// promptKey is of contexts whose commits are made at once or never.
type promptKey struct{}

func (l *loser) roll(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.IntN(n)
}

func (l *loser) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	fate := l.roll(60)
	if fate == 0 {
		return 0, fmt.Errorf("%w: lost before", store.ErrUnavailable)
	}
	if fate == 3 && ctx.Value(promptKey{}) == nil {
		l.delay(ops)
		return 0, fmt.Errorf("%w: lost on the way", store.ErrUnavailable)
	}
	rev, err := l.Store.Commit(ctx, ops)
	switch cancel, _ := ctx.Value(cancelKey{}).(context.CancelFunc); {
	case fate == 1:
		return 0, fmt.Errorf("%w: lost after", store.ErrUnavailable)
	case fate == 2 && cancel != nil:
		cancel()
		return 0, ctx.Err()
	}
	return rev, err
}

// delay makes a commit when others have been made.
func (l *loser) delay(ops []store.Op) {
	sent := slices.Clone(ops)
	for i := range sent {
		if sent[i].Object != nil {
			sent[i].Object = api.Clone(sent[i].Object)
		}
	}
	pause := time.Duration(l.roll(3000)) * time.Microsecond
	l.late.Go(func() {
		time.Sleep(pause)
		_, _ = l.Store.Commit(context.Background(), sent)
	})
}

// world is what the workers of a parallel test share.
type world struct {
	t     *testing.T
	store store.Store
	pools []*api.IPPool
	clock atomic.Int64 // seconds
	mu    sync.Mutex
	held  map[netip.Addr]string // what was answered and not yet given up, by handle
	stats map[string]int
}

func (w *world) now() time.Time { return t0.Add(time.Duration(w.clock.Add(1)) * time.Second / 4) }

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats[what]++
}

// got notes that the handle was told that it has addrs.
func (w *world) got(handle string, addrs []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		if h, ok := w.held[a]; ok && h != handle {
			w.t.Errorf("%v is given to %s and to %s", a, h, handle)
		}
		w.held[a] = handle
	}
}

func (w *world) gaveUp(handle string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, h := range w.held {
		if h == handle {
			delete(w.held, a)
		}
	}
}

// parallel runs the property test on s, each worker making the given number of steps.
func parallel(t *testing.T, s store.Store, steps int) {
	r := rng(t)
	w := &world{t: t, store: s, held: map[netip.Addr]string{}, stats: map[string]int{}}
	rest := 5
	configure(t, s, api.IPAMConfigurationSpec{IPCooldownSeconds: &rest})
	w.pools = []*api.IPPool{
		testPool("p", "10.0.0.0/27", 30), testPool("p-other-size", "10.0.0.0/27", 29),
		testPool("six", "fd00::/123", 126),
	}
	var agents []*Allocator
	var late sync.WaitGroup
	for _, node := range []string{"a", "a", "b", "c"} {
		agents = append(agents, NewAllocator(&loser{Store: s, rng: rand.New(rand.NewPCG(r.Uint64(), 2)), late: &late}, node))
	}
	var wg sync.WaitGroup
	for i := range 3 * len(agents) {
		k := &worker{world: w, name: fmt.Sprint("w", i), agent: agents[i%len(agents)], agents: agents,
			rng: rand.New(rand.NewPCG(r.Uint64(), 3))}
		wg.Go(func() { k.run(steps) })
	}
	wg.Wait()
	late.Wait()
	t.Logf("%v", w.stats)
	if w.stats["assigned"] == 0 || w.stats["full"] == 0 || w.stats["unknown"] == 0 {
		t.Errorf("%v: the test has not tried what it is for", w.stats)
	}
	for _, node := range []string{"a", "b", "c"} { // the next agents clean up
		a := NewAllocator(s, node)
		if _, err := a.ReleaseEmptyBlocks(t.Context(), w.now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
	}
	checkClean(t, s)
}

// worker plays the pods of one node, one after the other.
type worker struct {
	*world
	name   string
	agent  *Allocator
	agents []*Allocator
	rng    *rand.Rand
	mine   []string // handles
	n      int
}

func (k *worker) run(steps int) {
	for range steps {
		switch d := k.rng.IntN(20); {
		case d < 10:
			k.assign()
		case d < 17 && len(k.mine) > 0:
			k.release(k.rng.IntN(len(k.mine)))
		case d == 17 && len(k.mine) > 0:
			k.assignAgain(k.mine[k.rng.IntN(len(k.mine))])
		case d == 18:
			_, _ = k.agent.ReleaseEmptyBlocks(k.context(), k.now())
		default:
			k.look()
		}
	}
	for len(k.mine) > 0 {
		k.release(0)
	}
}

// context returns one that the datastore may end.
func (k *worker) context() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	return context.WithValue(ctx, cancelKey{}, cancel)
}

func (k *worker) request(handle string) Request {
	r := ask(handle, k.now(), k.pools...)
	if k.rng.IntN(3) == 0 {
		slices.Reverse(r.Pools)
	}
	if k.rng.IntN(2) == 0 {
		r.Families = []dataplane.Family{dataplane.IPv4, dataplane.IPv6}
	}
	if k.rng.IntN(10) == 0 {
		r.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(k.rng.IntN(32))})}
	}
	return r
}

func (k *worker) assign() {
	k.n++
	r := k.request(fmt.Sprint(k.name, "-", k.n))
	k.mine = append(k.mine, r.Handle) // from now on it may hold something
	for range 5 {
		addrs, err := k.agent.Assign(k.context(), r, nil)
		switch {
		case err == nil:
			k.got(r.Handle, addrs)
			k.count("assigned")
			return
		case errors.Is(err, ErrPoolFull) || errors.Is(err, ErrTaken):
			k.count("full")
			return
		case errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.Canceled):
			k.count("unknown")
			if k.rng.IntN(2) == 0 { // the runtime gives it up; else it tries again
				k.release(len(k.mine) - 1)
				return
			}
		default:
			k.t.Errorf("assign: %v", err)
			return
		}
	}
}

// assignAgain asks for what a handle has, through any node's agent and two at once.
func (k *worker) assignAgain(handle string) {
	before, err := k.agent.ByHandle(context.Background(), handle)
	if err != nil || len(before) == 0 {
		return
	}
	r := ask(handle, k.now(), k.pools...)
	r.Families = nil
	for _, a := range before {
		r.Families = append(r.Families, dataplane.FamilyOf(a))
	}
	var wg sync.WaitGroup
	for range 2 {
		// Another agent than that which will release the handle could not keep a late commit out.
		agent, ctx := k.agents[k.rng.IntN(len(k.agents))], context.WithValue(k.context(), promptKey{}, true)
		wg.Go(func() {
			addrs, err := agent.Assign(ctx, r, nil)
			if err == nil && !slices.Equal(addrs, before) {
				k.t.Errorf("%s has %v and is given %v", handle, before, addrs)
			}
		})
	}
	wg.Wait()
	k.count("again")
}

func (k *worker) release(i int) {
	handle := k.mine[i]
	k.mine = slices.Delete(k.mine, i, i+1)
	k.gaveUp(handle)
	for {
		err := k.agent.Release(k.context(), handle, k.now())
		if err == nil {
			k.count("released")
			return
		}
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.Canceled) {
			k.t.Errorf("release: %v", err)
			return
		}
	}
}

// look checks what must hold at each moment.
func (k *worker) look() {
	bs := listBlocks(k.t, k.store)
	for i, b := range bs {
		for _, c := range bs[:i] {
			if b.cidr.Overlaps(c.cidr) {
				k.t.Errorf("blocks %v and %v overlap", b.cidr, c.cidr)
			}
		}
	}
	owner := map[string]string{}
	for _, aff := range listAll[*api.BlockAffinity](k.t, k.store, api.KindBlockAffinity) {
		if aff.Spec.State == api.AffinityPending {
			continue
		}
		if other := owner[aff.Spec.CIDR]; other != "" {
			k.t.Errorf("block %s is owned by %s and %s", aff.Spec.CIDR, other, aff.Spec.Node)
		}
		owner[aff.Spec.CIDR] = aff.Spec.Node
	}
}
