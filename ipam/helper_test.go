package ipam

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 chooses one")

// rng returns a source of random numbers and tells its seed if the test fails.
func rng(t testing.TB) *rand.Rand {
	t.Helper()
	n := *seedFlag
	for n == 0 {
		n = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with -seed %d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 1))
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testPool(name, cidr string, size int) *api.IPPool {
	return &api.IPPool{Meta: api.Named(api.KindIPPool, "", name), Spec: api.IPPoolSpec{CIDR: cidr, BlockSize: size}}
}

func configure(t testing.TB, s store.Store, spec api.IPAMConfigurationSpec) {
	t.Helper()
	c := &api.IPAMConfiguration{Meta: api.Named(api.KindIPAMConfiguration, "", "default"), Spec: spec}
	if _, err := s.Commit(t.Context(), []store.Op{store.Put(c)}); err != nil {
		t.Fatal(err)
	}
}

var v4 = []dataplane.Family{dataplane.IPv4}

func ask(handle string, now time.Time, pools ...*api.IPPool) Request {
	return Request{Handle: handle, Families: v4, Pools: slices.Clone(pools), Now: now, Attrs: map[string]string{api.AttrNode: "n"}}
}

// mustAssign assigns one address.
func mustAssign(t testing.TB, a *Allocator, r Request) netip.Addr {
	t.Helper()
	addrs, err := a.Assign(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(addrs) != len(r.Families) {
		t.Fatalf("assigned %v to %s, want one of each of %v", addrs, r.Handle, r.Families)
	}
	return addrs[0]
}

func mustRelease(t testing.TB, a *Allocator, handle string, now time.Time) {
	t.Helper()
	if err := a.Release(t.Context(), handle, now); err != nil {
		t.Fatal(err)
	}
}

func listBlocks(t testing.TB, s store.Store) []block {
	t.Helper()
	objs, _, err := s.List(context.Background(), api.KindIPAMBlock.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	var bs []block
	for _, o := range objs {
		b, err := parseBlock(o.(*api.IPAMBlock))
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Validate(); err != nil {
			t.Errorf("%s does not validate: %v", o.GetName(), err)
		}
		bs = append(bs, b)
	}
	return bs
}

func listAll[T api.Object](t testing.TB, s store.Store, k *api.Kind) []T {
	t.Helper()
	objs, _, err := s.List(context.Background(), k.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	var ts []T
	for _, o := range objs {
		ts = append(ts, o.(T))
	}
	return ts
}

// checkStore holds the datastore against what must always be true of it: blocks do not
// overlap; whoever holds an address has a handle that says so, and the other way round;
// a confirmed claim is that of the block's owner, and each owner has one.
func checkStore(t testing.TB, s store.Store) {
	t.Helper()
	bs := listBlocks(t, s)
	owners := map[string]string{}
	counts := map[string]map[string]int{}
	for i, b := range bs {
		for _, c := range bs[:i] {
			if b.cidr.Overlaps(c.cidr) {
				t.Errorf("blocks %v and %v overlap", b.cidr, c.cidr)
			}
		}
		owners[b.cidr.String()] = b.owner()
		for ord := range b.obj.Spec.Allocations {
			if h := b.handleOf(ord); h != "" {
				if counts[h] == nil {
					counts[h] = map[string]int{}
				}
				counts[h][b.cidr.String()]++
			}
		}
	}
	for _, h := range listAll[*api.IPAMHandle](t, s, api.KindIPAMHandle) {
		if fmt.Sprint(h.Spec.Block) != fmt.Sprint(counts[h.Name]) {
			t.Errorf("handle %s says %v, the blocks say %v", h.Name, h.Spec.Block, counts[h.Name])
		}
		delete(counts, h.Name)
	}
	for h, n := range counts {
		t.Errorf("%s holds %v without a handle", h, n)
	}
	checkAffinities(t, s, owners)
}

func checkAffinities(t testing.TB, s store.Store, owners map[string]string) {
	t.Helper()
	claims := map[string]int{}
	for _, aff := range listAll[*api.BlockAffinity](t, s, api.KindBlockAffinity) {
		if aff.Spec.State == api.AffinityPending {
			continue
		}
		if owners[aff.Spec.CIDR] != hostPrefix+aff.Spec.Node {
			t.Errorf("%s is %s, but the block's owner is %q", aff.Name, aff.Spec.State, owners[aff.Spec.CIDR])
		}
		claims[aff.Spec.CIDR]++
	}
	for cidr, owner := range owners {
		if owner != "" && claims[cidr] != 1 {
			t.Errorf("block %s of %s has %d affinities", cidr, owner, claims[cidr])
		}
	}
}

// spy counts the calls of a store and lets a test fail them.
type spy struct {
	store.Store
	mu     sync.Mutex
	calls  []string
	before func(ops []store.Op) error // an error keeps the commit from being made
	after  func(ops []store.Op) error // an error hides that it was made
	onList func(kind string)
}

func (s *spy) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
}

// since returns the calls since the last since.
func (s *spy) since() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls
	s.calls = nil
	return c
}

func (s *spy) Get(ctx context.Context, k store.Key) (api.Object, error) {
	s.note("get %v", k)
	return s.Store.Get(ctx, k)
}

func (s *spy) List(ctx context.Context, kind, ns string) ([]api.Object, store.Revision, error) {
	s.note("list %s", kind)
	if s.onList != nil {
		s.onList(kind)
	}
	return s.Store.List(ctx, kind, ns)
}

func (s *spy) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	s.note("commit %d", len(ops))
	if s.before != nil {
		if err := s.before(ops); err != nil {
			return 0, err
		}
	}
	rev, err := s.Store.Commit(ctx, ops)
	if err == nil && s.after != nil {
		err = s.after(ops)
	}
	return rev, err
}

func newSpy() *spy { return &spy{Store: memory.New()} }

func sorted(addrs []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
}

func wantErr(t *testing.T, err, is error, text ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("error %v, want one that is %v", err, is)
	}
	for _, s := range text {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q, want it to contain %q", err, s)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
}
