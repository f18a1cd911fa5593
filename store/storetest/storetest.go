// Package storetest holds the tests that every [store.Store] must pass, and a View to
// watch a Source with.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Timeout bounds every wait of this package. It is no expectation: a test that meets it
// has hung.
const Timeout = 60 * time.Second

// Run runs the conformance tests. open returns an empty store that ends with its t.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"Compare":        testCompare,
		"Atomic":         testAtomic,
		"Refuse":         testRefuse,
		"Ownership":      testOwnership,
		"Identity":       testIdentity,
		"Order":          testOrder,
		"EveryKind":      testEveryKind,
		"Counter":        testCounter,
		"WatchSteps":     testWatchSteps,
		"WatchKinds":     testWatchKinds,
		"WatchUnknown":   testWatchUnknown,
		"WatchTogether":  testWatchTogether,
		"WatchIsTheSame": testWatchIsTheSame,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Context returns one that ends with the test, or when it has hung.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	t.Cleanup(cancel)
	return ctx
}

// Policy returns a NetworkPolicy; note tells one from another.
func Policy(namespace, name, note string) *api.NetworkPolicy {
	p := &api.NetworkPolicy{Meta: api.Named(api.KindNetworkPolicy, namespace, name)}
	p.Annotations = map[string]string{"note": note}
	return p
}

// Pool returns an IPPool.
func Pool(name, cidr string) *api.IPPool {
	p := &api.IPPool{Meta: api.Named(api.KindIPPool, "", name)}
	p.Spec.CIDR = cidr
	return p
}

// MustCommit commits ops.
func MustCommit(t testing.TB, s store.Store, ops ...store.Op) store.Revision {
	t.Helper()
	rev, err := s.Commit(Context(t), ops)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return rev
}

// at returns op with another revision.
func at(op store.Op, rev store.Revision) store.Op {
	op.Revision = rev
	return op
}

// testCompare has every kind of op meet every state of its key.
func testCompare(t *testing.T, s store.Store) {
	const stale = -2 // stands for an older revision of the object
	const present = -3
	type expect struct{ absent, there error }
	for name, c := range map[string]struct {
		rev  store.Revision
		want expect
	}{
		"create": {0, expect{nil, store.ErrExists}},
		"any":    {store.AnyRevision, expect{nil, nil}},
		"right":  {present, expect{store.ErrNotFound, nil}},
		"stale":  {stale, expect{store.ErrNotFound, store.ErrConflict}},
	} {
		for _, del := range []bool{false, true} {
			for _, there := range []bool{false, true} {
				o := Policy("ns", name, "first")
				k := store.KeyOf(o)
				MustCommit(t, s, store.Delete(k, store.AnyRevision))
				old := MustCommit(t, s, store.Create(o))
				now := MustCommit(t, s, store.Replace(o))
				if !there {
					MustCommit(t, s, store.Delete(k, now))
				}
				op := store.Op{Key: k, Object: Policy("ns", name, "second"), Revision: c.rev}
				want := c.want.absent
				if there {
					want = c.want.there
				}
				switch c.rev {
				case stale:
					op.Revision = old
				case present:
					op.Revision = now
				}
				if del {
					op.Object = nil
				}
				rev, err := s.Commit(Context(t), []store.Op{op})
				if !errors.Is(err, want) || (want == nil) != (err == nil) {
					t.Errorf("%s, delete=%v, there=%v: Commit gives %v, want %v", name, del, there, err, want)
					continue
				}
				checkOutcome(t, s, op, there, rev, err)
			}
		}
	}
}

// checkOutcome checks what is stored after op was tried on "first" or nothing.
func checkOutcome(t *testing.T, s store.Store, op store.Op, there bool, rev store.Revision, err error) {
	t.Helper()
	want := ""
	switch {
	case err == nil && op.Object != nil:
		want = "second"
		if got := api.Revision(op.Object); got != rev {
			t.Errorf("Commit at %d left revision %d in the object", rev, got)
		}
	case err != nil && there:
		want = "first"
	}
	if err != nil {
		var oe *store.OpError
		if !errors.As(err, &oe) || oe.Key != op.Key {
			t.Errorf("error %v (%T) does not name %v", err, err, op.Key)
		}
	}
	if got := noteOf(t, s, op.Key); got != want {
		t.Errorf("after %+v on there=%v: stored %q, want %q", op, there, got, want)
	}
}

// noteOf returns the note of a stored object, "" if there is none.
func noteOf(t *testing.T, s store.Store, k store.Key) string {
	t.Helper()
	o, err := s.Get(Context(t), k)
	if errors.Is(err, store.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatalf("Get(%v): %v", k, err)
	}
	return o.GetAnnotations()["note"]
}

func testAtomic(t *testing.T, s store.Store) {
	there := Policy("ns", "there", "old")
	rev := MustCommit(t, s, store.Create(there))
	before := rev
	ops := []store.Op{
		store.Create(Policy("ns", "new", "x")),
		store.Put(Policy("ns", "put", "x")),
		store.Delete(store.KeyOf(there), rev),
		at(store.Put(Policy("ns", "other", "x")), 1), // is not there
	}
	_, err := s.Commit(Context(t), ops)
	var oe *store.OpError
	if !errors.As(err, &oe) || oe.Key.Name != "other" || !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Commit gives %v, want NotFound of ns/other", err)
	}
	for _, op := range ops[:2] {
		if api.Revision(op.Object) != 0 || op.Object.GetUID() != "" {
			t.Errorf("a failed Commit wrote to %v: %+v", op.Key, op.Object)
		}
	}
	all, now, err := s.List(Context(t), "NetworkPolicy", "")
	if err != nil || len(all) != 1 || all[0].GetName() != "there" || now < before {
		t.Errorf("after a failed Commit there is %v at %d (%v), want only there at %d", names(all), now, err, before)
	}
	rev = MustCommit(t, s, ops[:3]...)
	all, now, err = s.List(Context(t), "NetworkPolicy", "ns")
	if err != nil || now < rev || !cmp.Equal(names(all), []string{"ns/new", "ns/put"}) {
		t.Errorf("there is %v at %d (%v), want new and put at %d", names(all), now, err, rev)
	}
	for _, o := range all {
		if api.Revision(o) != rev {
			t.Errorf("%s has revision %d, want the commit's %d", o.GetName(), api.Revision(o), rev)
		}
	}
	if got := MustCommit(t, s); got < rev {
		t.Errorf("an empty Commit gives revision %d after %d", got, rev)
	}
}

func names(objects []api.Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.GetNamespace()+"/"+o.GetName())
	}
	return out
}

// testRefuse gives what no store takes.
func testRefuse(t *testing.T, s store.Store) {
	p := func() *api.NetworkPolicy { return Policy("ns", "p", "") }
	wrongKey := store.Put(p())
	wrongKey.Key.Name = "q"
	untyped := p()
	untyped.Kind = ""
	posing := &api.Tier{Meta: api.Named(api.KindIPPool, "", "x")}
	for name, ops := range map[string][]store.Op{
		"two ops on one key":   {store.Put(p()), store.Delete(store.KeyOf(p()), store.AnyRevision)},
		"key is another's":     {wrongKey},
		"no kind":              {{Key: store.KeyOf(p()), Object: untyped}},
		"unknown kind":         {store.Delete(store.Key{Kind: "Nonesuch", Name: "x"}, 1)},
		"no name":              {store.Put(Policy("ns", "", ""))},
		"no namespace":         {store.Put(Policy("", "p", ""))},
		"a namespace too many": {store.Delete(store.Key{Kind: "IPPool", Namespace: "ns", Name: "x"}, 1)},
		"revision -2":          {at(store.Put(p()), -2)},
		"another type":         {store.Put(posing)},
	} {
		ops = append([]store.Op{store.Put(Policy("ns", "before", ""))}, ops...)
		if _, err := s.Commit(Context(t), ops); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: Commit gives %v, want ErrInvalid", name, err)
		}
	}
	for _, k := range []store.Key{{Kind: "Nonesuch", Name: "x"}, {Kind: "IPPool"}, {Kind: "NetworkPolicy", Name: "x"}} {
		if o, err := s.Get(Context(t), k); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Get(%v) gives %v, %v, want ErrInvalid", k, o, err)
		}
	}
	if _, _, err := s.List(Context(t), "Nonesuch", ""); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("List of an unknown kind gives %v, want ErrInvalid", err)
	}
	if _, _, err := s.List(Context(t), "IPPool", "ns"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("List of IPPools of a namespace gives %v, want ErrInvalid", err)
	}
	if all, _, err := s.List(Context(t), "NetworkPolicy", ""); err != nil || len(all) != 0 {
		t.Errorf("refused commits left %v (%v)", names(all), err)
	}
}

// testOwnership writes to objects after they went in and after they came out.
func testOwnership(t *testing.T, s store.Store) {
	o := Policy("ns", "p", "good")
	MustCommit(t, s, store.Create(o))
	o.Annotations["note"] = "spoilt"
	got, err := s.Get(Context(t), store.KeyOf(o))
	if err != nil {
		t.Fatal(err)
	}
	got.GetAnnotations()["note"] = "spoilt"
	all, _, err := s.List(Context(t), "NetworkPolicy", "ns")
	if err != nil || len(all) != 1 {
		t.Fatalf("List gives %v, %v", names(all), err)
	}
	all[0].GetAnnotations()["note"] = "spoilt"
	if got := noteOf(t, s, store.KeyOf(o)); got != "good" {
		t.Errorf("stored note is %q, want good: callers' objects are shared", got)
	}
}

// testIdentity follows uid and age from the create on.
func testIdentity(t *testing.T, s store.Store) {
	o := Policy("ns", "p", "1")
	o.UID = "copied-from-elsewhere"
	MustCommit(t, s, store.Create(o))
	uid, age := o.GetUID(), o.GetCreationTimestamp()
	if uid == "" || uid == "copied-from-elsewhere" {
		t.Errorf("a created object has uid %q, want a new one", uid)
	}
	for _, op := range []store.Op{
		store.Put(Policy("ns", "p", "2")),
		at(store.Put(Policy("ns", "p", "3")), 0), // revision filled in below
	} {
		if op.Revision == 0 {
			op.Revision = currentRevision(t, s, op.Key)
		}
		MustCommit(t, s, op)
		got, err := s.Get(Context(t), op.Key)
		if err != nil {
			t.Fatal(err)
		}
		if got.GetUID() != uid || op.Object.GetUID() != uid {
			t.Errorf("uid is %q and in the object written %q, want the first, %q", got.GetUID(), op.Object.GetUID(), uid)
		}
		if ts := got.GetCreationTimestamp(); ts.Unix() != age.Unix() {
			t.Errorf("creationTimestamp is %v, want the first, %v", ts, age)
		}
	}
	k := store.KeyOf(o)
	MustCommit(t, s, store.Delete(k, store.AnyRevision))
	again := Policy("ns", "p", "4")
	MustCommit(t, s, store.Put(again))
	if again.GetUID() == uid || again.GetUID() == "" {
		t.Errorf("made anew, it has uid %q; the first had %q", again.GetUID(), uid)
	}
}

func currentRevision(t *testing.T, s store.Store, k store.Key) store.Revision {
	t.Helper()
	o, err := s.Get(Context(t), k)
	if err != nil {
		t.Fatal(err)
	}
	return api.Revision(o)
}

func testOrder(t *testing.T, s store.Store) {
	var ops []store.Op
	for _, ns := range []string{"b", "a-b", "a", "a.b", "ab"} {
		for _, name := range []string{"z", "a.b", "a", "a-b"} {
			ops = append(ops, store.Create(Policy(ns, name, "")))
		}
	}
	rev := MustCommit(t, s, ops...)
	all, at, err := s.List(Context(t), "NetworkPolicy", "")
	var want []string
	for _, ns := range []string{"a", "a-b", "a.b", "ab", "b"} {
		for _, name := range []string{"a", "a-b", "a.b", "z"} {
			want = append(want, ns+"/"+name)
		}
	}
	if diff := cmp.Diff(want, names(all)); diff != "" || at < rev || err != nil {
		t.Errorf("List at %d (%v), want at least %d; -want +got\n%s", at, err, rev, diff)
	}
	some, _, err := s.List(Context(t), "NetworkPolicy", "a")
	if diff := cmp.Diff(want[:4], names(some)); diff != "" || err != nil {
		t.Errorf("List of a: %v; -want +got\n%s", err, diff)
	}
	none, at, err := s.List(Context(t), "NetworkPolicy", "nobody")
	if len(none) != 0 || at < rev || err != nil {
		t.Errorf("List of nobody gives %v at %d, %v", names(none), at, err)
	}
}
