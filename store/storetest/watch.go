package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Seed is a new seed, or STORE_SEED from the environment; a failed test prints it.
func Seed(t testing.TB) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("STORE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("STORE_SEED: %v", err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to see it again: STORE_SEED=%d", seed)
		}
	})
	return seed
}

// testCounter has many writers count up one number by compare-and-swap.
func testCounter(t *testing.T, s store.Store) {
	const writers, each = 6, 8
	MustCommit(t, s, store.Create(Policy("ns", "counter", "0")))
	k := store.Key{Kind: "NetworkPolicy", Namespace: "ns", Name: "counter"}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if err := countUp(Context(t), s, k); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := noteOf(t, s, k), strconv.Itoa(writers*each); got != want {
		t.Errorf("counted to %s, want %s: updates were lost or made twice", got, want)
	}
}

func countUp(ctx context.Context, s store.Store, k store.Key) error {
	for {
		o, err := s.Get(ctx, k)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(o.GetAnnotations()["note"])
		if err != nil {
			return err
		}
		o.GetAnnotations()["note"] = strconv.Itoa(n + 1)
		_, err = s.Commit(ctx, []store.Op{store.Replace(o)})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func testWatchSteps(t *testing.T, s store.Store) {
	empty := Follow(t, s.Watch())
	if got := empty.At(0); len(got) != 0 {
		t.Errorf("Watch of an empty store gives %v", got)
	}
	rev := MustCommit(t, s, store.Create(Pool("p", "10.0.0.0/16")), store.Create(Policy("ns", "n", "1")))
	late := Follow(t, s.Watch("IPPool", "NetworkPolicy"))
	for _, v := range []*View{empty, late} {
		if got := v.At(rev); len(got) != 2 {
			t.Errorf("Watch gives %v, want 2 objects", got)
		}
	}
	rev = MustCommit(t, s, store.Put(Policy("ns", "n", "2")), store.Delete(store.Key{Kind: "IPPool", Name: "p"}, store.AnyRevision))
	for _, v := range []*View{empty, late} {
		got := v.At(rev)
		o := got[store.Key{Kind: "NetworkPolicy", Namespace: "ns", Name: "n"}]
		if len(got) != 1 || o == nil || o.GetAnnotations()["note"] != "2" || api.Revision(o) != rev {
			t.Errorf("Watch gives %v, want ns/n with note 2 at %d", got, rev)
		}
	}
}

func testWatchKinds(t *testing.T, s store.Store) {
	pools := Follow(t, s.Watch("IPPool"))
	MustCommit(t, s, store.Create(Pool("p", "10.0.0.0/16")), store.Create(Policy("ns", "n", "1")))
	rev := MustCommit(t, s, store.Create(Policy("ns", "last", "1")))
	// The view must come to know that it is current though the last commit did not
	// concern it.
	if got := pools.At(rev); len(got) != 1 || got[store.Key{Kind: "IPPool", Name: "p"}] == nil {
		t.Errorf("Watch(IPPool) gives %v, want only the pool", got)
	}
}

func testWatchUnknown(t *testing.T, s store.Store) {
	err := s.Watch("Nonesuch").Run(Context(t), func(u store.Update) { t.Errorf("Update %v", u) })
	if !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Run of an unknown kind gives %v, want ErrInvalid", err)
	}
}

// testWatchTogether checks that no Update shows half a commit.
func testWatchTogether(t *testing.T, s store.Store) {
	v := Follow(t, s.Watch())
	v.At(0)
	var rev store.Revision
	for i := range 20 {
		note := strconv.Itoa(i)
		pool := Pool("p", "10.0.0.0/16")
		pool.Annotations = map[string]string{"note": note}
		rev = MustCommit(t, s, store.Put(pool), store.Put(Policy("ns", "n", note)))
	}
	v.At(rev)
	pool, policy := "", ""
	for _, u := range v.Updates() {
		for _, e := range u.Events {
			if e.Key.Kind == "IPPool" {
				pool = e.Object.GetAnnotations()["note"]
			} else {
				policy = e.Object.GetAnnotations()["note"]
			}
		}
		if pool != policy {
			t.Fatalf("at revision %d the pool is of commit %q and the policy of %q", u.Revision, pool, policy)
		}
	}
}

// testWatchIsTheSame compares views that began before, amid and after many random
// commits with what the store holds in the end.
func testWatchIsTheSame(t *testing.T, s store.Store) {
	seed := Seed(t)
	views := []*View{Follow(t, s.Watch())}
	var wg sync.WaitGroup
	for w := range uint64(5) {
		wg.Go(func() { Scribble(t, s, rand.New(rand.NewPCG(seed, w)), 40) })
	}
	views = append(views, Follow(t, s.Watch()), Follow(t, s.Watch("NetworkPolicy", "IPPool")))
	wg.Wait()
	views = append(views, Follow(t, s.Watch("IPPool", "NetworkPolicy")))
	for _, v := range views {
		v.CheckSame(s, "NetworkPolicy", "IPPool")
	}
}

// Scribble makes n random commits among a few keys, some of which fail their comparison.
func Scribble(t testing.TB, s store.Store, r *rand.Rand, n int) {
	for i := range n {
		var ops []store.Op
		used := map[store.Key]bool{}
		for range 1 + r.IntN(3) {
			op := randomOp(t, s, r, i)
			if !used[op.Key] {
				used[op.Key] = true
				ops = append(ops, op)
			}
		}
		if _, err := s.Commit(Context(t), ops); err != nil && !isCompare(err) {
			t.Errorf("Commit: %v", err)
			return
		}
	}
}

func isCompare(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound)
}

func randomOp(t testing.TB, s store.Store, r *rand.Rand, i int) store.Op {
	var o api.Object = Policy("ns"+strconv.Itoa(r.IntN(2)), "p"+strconv.Itoa(r.IntN(6)), fmt.Sprint(i, r.Uint32()))
	if r.IntN(3) == 0 {
		o = Pool("p"+strconv.Itoa(r.IntN(4)), fmt.Sprintf("10.%d.0.0/16", r.IntN(256)))
	}
	k := store.KeyOf(o)
	switch r.IntN(5) {
	case 0:
		return store.Create(o)
	case 1:
		return store.Delete(k, store.AnyRevision)
	case 2:
		return store.Put(o)
	}
	old, err := s.Get(Context(t), k)
	if err != nil {
		return store.Create(o)
	}
	if r.IntN(2) == 0 {
		return store.Delete(k, api.Revision(old))
	}
	return at(store.Put(o), api.Revision(old))
}
