package ctl_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/ctl"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

var seed = flag.Uint64("seed", 0, "of the random tests; 0: another each time")

func newTier(name string, order float64) *api.Tier {
	t := &api.Tier{Meta: api.Named(api.KindTier, "", name)}
	t.Spec.Order = &order
	return t
}

func newPool(name, cidr string) *api.IPPool {
	p := &api.IPPool{Meta: api.Named(api.KindIPPool, "", name)}
	p.Spec.CIDR = cidr
	return p
}

func newPolicy(namespace, name, tier string) *api.NetworkPolicy {
	p := &api.NetworkPolicy{Meta: api.Named(api.KindNetworkPolicy, namespace, name)}
	p.Spec.Tier = tier
	return p
}

// meddler is a store in which others write just before each of the first Commits.
type meddler struct {
	*memory.Store
	commits int
	meddle  func(commit int) error // counted from 1
}

func (m *meddler) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	m.commits++
	if err := m.meddle(m.commits); err != nil {
		return 0, err
	}
	return m.Store.Commit(ctx, ops)
}

func (m *meddler) put(t *testing.T, ops ...store.Op) {
	t.Helper()
	if _, err := m.Store.Commit(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
}

// What others write between our look and our write is no error, unless it is the very thing
// that the user wanted to be told of.
func TestRaces(t *testing.T) {
	put := func(o api.Object) store.Op { return store.Put(o) }
	gone := store.Delete(store.KeyOf(newTier("a", 0)), store.AnyRevision)
	type verb func(context.Context, store.Store, []api.Object, ctl.Options) ([]ctl.Result, error)
	for _, c := range []struct {
		name   string
		stored api.Object
		do     verb
		given  api.Object
		meddle []store.Op
		opts   ctl.Options
		want   ctl.Change
		err    string
	}{
		{name: "apply over a change", stored: newTier("a", 1), do: ctl.Apply, given: newTier("a", 2), meddle: []store.Op{put(newTier("a", 3))}, want: ctl.Replaced},
		{name: "apply over a creation", do: ctl.Apply, given: newTier("a", 2), meddle: []store.Op{put(newTier("a", 3))}, want: ctl.Replaced},
		{name: "apply over the same creation", do: ctl.Apply, given: newTier("a", 2), meddle: []store.Op{put(newTier("a", 2))}, want: ctl.Replaced},
		{name: "apply over a deletion", stored: newTier("a", 1), do: ctl.Apply, given: newTier("a", 2), meddle: []store.Op{gone}, want: ctl.Created},
		{name: "create", do: ctl.Create, given: newTier("a", 2), meddle: []store.Op{put(newTier("a", 3))}, err: "resource already exists: Tier(a)"},
		{name: "create, skip", do: ctl.Create, given: newTier("a", 2), meddle: []store.Op{put(newTier("a", 3))}, opts: ctl.Options{SkipExists: true}, want: ctl.Skipped},
		{name: "replace", stored: newTier("a", 1), do: ctl.Replace, given: newTier("a", 2), meddle: []store.Op{gone}, err: "resource does not exist: Tier(a)"},
		{name: "delete of what changed", stored: newTier("a", 1), do: ctl.Delete, given: newTier("a", 2), meddle: []store.Op{put(newTier("a", 3))}, want: ctl.Deleted},
		{name: "delete of what is gone", stored: newTier("a", 1), do: ctl.Delete, given: newTier("a", 2), meddle: []store.Op{gone}, err: "resource does not exist: Tier(a)"},
		{name: "delete of what is gone, skip", stored: newTier("a", 1), do: ctl.Delete, given: newTier("a", 2), meddle: []store.Op{gone}, opts: ctl.Options{SkipNotExists: true}, want: ctl.Skipped},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &meddler{Store: memory.New()}
			m.meddle = func(n int) error {
				if n == 1 {
					m.put(t, c.meddle...)
				}
				return nil
			}
			if c.stored != nil {
				m.put(t, put(api.Clone(c.stored)))
			}
			// What meddles is not defaulted, so that even the same tier differs.
			got, err := c.do(t.Context(), m, []api.Object{c.given}, c.opts)
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Fatalf("error %v, want %s", err, c.err)
				}
				return
			}
			want := []ctl.Result{{Key: store.KeyOf(c.given), Change: c.want}}
			if err != nil || !cmp.Equal(got, want) {
				t.Fatalf("%v, error %v; want %v", got, err, want)
			}
			o, err := m.Get(t.Context(), want[0].Key)
			switch {
			case c.want == ctl.Created || c.want == ctl.Replaced:
				if err != nil || *o.(*api.Tier).Spec.Order != 2 || o.GetResourceVersion() != c.given.GetResourceVersion() {
					t.Errorf("stored %v, error %v; want %v", o, err, c.given)
				}
			case c.opts.SkipExists:
				if err != nil || *o.(*api.Tier).Spec.Order != 3 {
					t.Errorf("stored %v, error %v; want order 3", o, err)
				}
			default:
				if !errors.Is(err, store.ErrNotFound) {
					t.Errorf("stored %v, error %v; want none", o, err)
				}
			}
		})
	}
}

// A writer that never rests cannot make us try for ever.
func TestRaceWithoutEnd(t *testing.T) {
	m := &meddler{Store: memory.New()}
	m.meddle = func(n int) error {
		m.put(t, store.Put(newTier("a", float64(n))))
		return nil
	}
	m.put(t, store.Put(newTier("a", 0)))
	_, err := ctl.Apply(t.Context(), m, []api.Object{newTier("a", -1)}, ctl.Options{})
	if !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "Tier(a): changed by someone else, 10 times in a row") {
		t.Error(err)
	}
}

// What the user read and changed is not written over what others changed since.
func TestStaleRevision(t *testing.T) {
	m := &meddler{Store: memory.New(), meddle: func(int) error { return nil }}
	m.put(t, store.Put(newTier("a", 1)))
	o, err := m.Get(t.Context(), store.KeyOf(newTier("a", 0)))
	if err != nil {
		t.Fatal(err)
	}
	m.meddle = func(n int) error {
		m.put(t, store.Put(newTier("a", 3)))
		return nil
	}
	o.(*api.Tier).Spec.Order = new(2.0)
	for _, do := range []func(context.Context, store.Store, []api.Object, ctl.Options) ([]ctl.Result, error){ctl.Apply, ctl.Replace} {
		if _, err = do(t.Context(), m, []api.Object{o}, ctl.Options{}); !errors.Is(err, store.ErrConflict) {
			t.Error(err)
		}
	}
	if o, _ = m.Get(t.Context(), store.KeyOf(o)); *o.(*api.Tier).Spec.Order != 3 {
		t.Error("the stored order is", *o.(*api.Tier).Spec.Order)
	}
}

// Many objects are written in several commits; results tell how far they came.
func TestBatches(t *testing.T) {
	var objects []api.Object
	for i := range 300 {
		objects = append(objects, newTier(fmt.Sprintf("t%d", i), float64(i)))
	}
	down := errors.New("the network is down")
	m := &meddler{Store: memory.New()}
	m.meddle = func(n int) error {
		switch n {
		case 1:
			m.put(t, store.Put(newTier("t200", -1))) // of the second commit
		case 4:
			return down
		}
		return nil
	}
	results, err := ctl.Apply(t.Context(), m, objects, ctl.Options{})
	if !errors.Is(err, down) || len(results) != 256 {
		t.Fatalf("%d results, error %v", len(results), err)
	}
	for i, r := range results {
		want := ctl.Created
		if i == 200 {
			want = ctl.Replaced
		}
		if r.Key != store.KeyOf(objects[i]) || r.Change != want {
			t.Errorf("result %d: %v", i, r)
		}
	}
	m.meddle = func(int) error { return nil }
	results, err = ctl.Apply(t.Context(), m, objects, ctl.Options{})
	if err != nil || len(results) != 300 || results[0].Change != ctl.Unchanged || results[299].Change != ctl.Created {
		t.Errorf("%d results, error %v", len(results), err)
	}
	c := newConsole(t)
	m.commits, c.store = 0, m
	m.meddle = func(n int) error {
		if n == 2 {
			return down
		}
		return nil
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.GetName())
	}
	code, out, errOut := c.run("", append([]string{"delete", "tier"}, names...)...)
	if want := "Partial success: deleted the first 128 out of 300 'Tier' resources; hit error: the network is down\n"; code != 1 || out != "" || errOut != want {
		t.Errorf("exit code %d, %q, %q", code, out, errOut)
	}
}

// Apply writes nothing where nothing differs, and keeps status, uid and age.
func TestUnchanged(t *testing.T) {
	st := memory.New()
	p := newPool("a", "10.0.0.0/16")
	p.Status = &api.IPPoolStatus{Conditions: []api.Condition{{Type: "Ready"}}}
	p.Default()
	if _, err := st.Commit(t.Context(), []store.Op{store.Create(p)}); err != nil {
		t.Fatal(err)
	}
	before, rev, _ := st.List(t.Context(), "IPPool", "")
	results, err := ctl.Apply(t.Context(), st, []api.Object{newPool("a", "10.0.0.0/16")}, ctl.Options{})
	if _, now, _ := st.List(t.Context(), "IPPool", ""); err != nil || results[0].Change != ctl.Unchanged || now != rev {
		t.Errorf("%v, error %v, revision %d after %d", results, err, now, rev)
	}
	changed := newPool("a", "10.0.0.0/16")
	changed.Spec.Disabled = true
	if results, err = ctl.Apply(t.Context(), st, []api.Object{changed}, ctl.Options{}); err != nil || results[0].Change != ctl.Replaced {
		t.Errorf("%v, error %v", results, err)
	}
	want := before[0].(*api.IPPool)
	want.Spec.Disabled = true
	after, now, _ := st.List(t.Context(), "IPPool", "")
	api.SetRevision(want, now)
	if diff := cmp.Diff([]api.Object{want}, after); diff != "" {
		t.Error(diff)
	}
}

// broken is a store with an object whose value cannot be read.
type broken struct {
	*memory.Store
	key store.Key
}

func (b broken) Get(ctx context.Context, k store.Key) (api.Object, error) {
	if o, err := b.Store.Get(ctx, k); k != b.key || err != nil {
		return o, err
	}
	return nil, &store.OpError{Key: k, Err: store.ErrInvalid}
}

func (b broken) List(ctx context.Context, kind, namespace string) ([]api.Object, store.Revision, error) {
	list, rev, err := b.Store.List(ctx, kind, namespace)
	return slices.DeleteFunc(list, func(o api.Object) bool { return store.KeyOf(o) == b.key }), rev, err
}

// What cannot be read can be replaced and deleted, alone and among many.
func TestUnreadable(t *testing.T) {
	for _, n := range []int{1, 20} {
		tiers := func() []api.Object {
			var all []api.Object
			for i := range n {
				all = append(all, newTier(fmt.Sprintf("t%d", i), 2))
			}
			return all
		}
		b := broken{memory.New(), store.KeyOf(tiers()[n-1])}
		if _, err := b.Commit(t.Context(), []store.Op{store.Create(newTier(b.key.Name, 1))}); err != nil {
			t.Fatal(err)
		}
		results, err := ctl.Apply(t.Context(), b, tiers(), ctl.Options{})
		if err != nil || len(results) != n || results[n-1].Change != ctl.Replaced {
			t.Fatal(n, results, err)
		}
		results, err = ctl.Delete(t.Context(), b, tiers(), ctl.Options{})
		if err != nil || len(results) != n || results[n-1].Change != ctl.Deleted {
			t.Fatal(n, results, err)
		}
		if left, _, err := b.Store.List(t.Context(), "Tier", ""); err != nil || len(left) != 0 {
			t.Error(n, left, err)
		}
	}
}

// Names that stand for objects of Kubernetes are open to what converts them.
func TestReserved(t *testing.T) {
	st := memory.New()
	objects := func() []api.Object {
		return []api.Object{newPolicy("web", api.KubePolicyPrefix+"x", ""), &api.Profile{Meta: api.Named(api.KindProfile, "", api.NamespaceProfile+"web")}}
	}
	for _, o := range objects() {
		if _, err := ctl.Apply(t.Context(), st, []api.Object{o}, ctl.Options{}); err == nil || !strings.Contains(err.Error(), "stand for Kubernetes") {
			t.Error(err)
		}
	}
	if _, err := ctl.Apply(t.Context(), st, objects(), ctl.Options{Reserved: true}); err != nil {
		t.Error(err)
	}
	service := &api.Service{Meta: api.Named(api.KindService, "web", "db")}
	if _, err := ctl.Apply(t.Context(), st, []api.Object{service}, ctl.Options{}); err == nil || !strings.Contains(err.Error(), "apply is not supported") {
		t.Error(err)
	}
	if _, err := ctl.Apply(t.Context(), st, []api.Object{service}, ctl.Options{Reserved: true}); err != nil {
		t.Error(err)
	}
	block := &api.BlockAffinity{Meta: api.Named(api.KindBlockAffinity, "", "x")}
	if _, err := ctl.Apply(t.Context(), st, []api.Object{block}, ctl.Options{Reserved: true}); err == nil {
		t.Error("Calico's own objects are not open to converters")
	}
	if _, err := ctl.Delete(t.Context(), st, objects(), ctl.Options{Reserved: true}); err != nil {
		t.Error(err)
	}
}

// An Apply either writes everything or nothing, whatever it is given; and what is stored
// never has two pools that overlap, nor a policy of a tier that does not exist.
func TestAllOrNothing(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(s, 0))
	defer func() {
		if t.Failed() {
			t.Logf("repeat with -seed=%d", s)
		}
	}()
	st := memory.New()
	wrote, refused := 0, 0
	for range 2000 {
		objects := randomObjects(r)
		do := ctl.Apply
		if r.IntN(3) == 0 {
			do = ctl.Delete
		}
		_, _, before := contents(t, st)
		results, err := do(t.Context(), st, objects, ctl.Options{})
		pools, loose, after := contents(t, st)
		if err != nil {
			refused++
			if len(results) > 0 || after != before {
				t.Fatalf("%d results, and revision %d after %d, with error %v", len(results), after, before, err)
			}
			continue
		}
		wrote++
		if len(results) != len(objects) {
			t.Fatalf("%d results of %d objects", len(results), len(objects))
		}
		if err := api.OverlappingPools(pools); err != nil || loose != "" {
			t.Fatal(err, loose)
		}
	}
	if wrote < 100 || refused < 100 {
		t.Errorf("%d writes and %d refusals: this tests nothing", wrote, refused)
	}
}

func randomObjects(r *rand.Rand) []api.Object {
	var all []api.Object
	for range 1 + r.IntN(3) {
		name := string(rune('a' + r.IntN(4)))
		switch r.IntN(4) {
		case 0:
			all = append(all, newPool(name, fmt.Sprintf("10.%d.0.0/%d", r.IntN(4), 14+r.IntN(3))))
		case 1:
			all = append(all, newTier(name, float64(r.IntN(3))))
		default:
			all = append(all, newPolicy("web", name, string(rune('a'+r.IntN(4)))))
		}
	}
	return all
}

// contents returns the pools of a store, a policy whose tier does not exist if there is
// one, and the revision.
func contents(t *testing.T, st store.Store) (pools []*api.IPPool, loose string, rev store.Revision) {
	t.Helper()
	list := func(kind string) []api.Object {
		objects, r, err := st.List(t.Context(), kind, "")
		if err != nil {
			t.Fatal(err)
		}
		rev = r
		return objects
	}
	for _, o := range list("IPPool") {
		pools = append(pools, o.(*api.IPPool))
	}
	tiers := map[string]bool{}
	for _, o := range list("Tier") {
		tiers[o.GetName()] = true
	}
	for _, o := range list("NetworkPolicy") {
		if p := o.(*api.NetworkPolicy); !tiers[p.Spec.Tier] {
			loose = fmt.Sprintf("%v is of tier %s, which does not exist", store.KeyOf(p), p.Spec.Tier)
		}
	}
	return pools, loose, rev
}
