package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

var errCrash = errors.New("crash")

// crashing returns a spy that fails all commits from the n-th on, the n-th after it was
// made if late is true.
func crashing(s store.Store, n int, late bool) *spy {
	count := 0
	c := &spy{Store: s}
	c.before = func([]store.Op) error {
		if count++; count > n || count == n && !late {
			return errCrash
		}
		return nil
	}
	c.after = func([]store.Op) error {
		if count == n {
			return errCrash
		}
		return nil
	}
	return c
}

// TestCrashAtEveryStep lets a node's agent die at each commit of a story with claims,
// releases and blocks given back, and then the next agent of the node, or another node's,
// go on.
func TestCrashAtEveryStep(t *testing.T) {
	p := testPool("p", "10.0.0.0/29", 31)
	story := func(s store.Store, node string, t1 time.Time) error {
		a := NewAllocator(s, node)
		for i := range 4 {
			if _, err := a.Assign(context.Background(), ask(fmt.Sprint(node, i), t1, p), nil); err != nil {
				return err
			}
		}
		for i := range 4 {
			if err := a.Release(context.Background(), fmt.Sprint(node, i), t1); err != nil {
				return err
			}
		}
		_, err := a.ReleaseEmptyBlocks(context.Background(), t1.Add(3*time.Minute))
		return err
	}
	for _, late := range []bool{false, true} {
		for _, next := range []string{"a", "b"} {
			crashes := 0
			for n := 1; ; n++ {
				s := memory.New()
				err := story(crashing(s, n, late), "a", t0)
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) {
					t.Fatalf("late %v, commit %d: %v", late, n, err)
				}
				crashes++
				t1 := t0.Add(10 * time.Minute)
				if err := story(s, next, t1); err != nil {
					t.Fatalf("late %v, after a crash in commit %d %s says: %v", late, n, next, err)
				}
				if err := story(s, "a", t1.Add(10*time.Minute)); err != nil {
					t.Fatalf("late %v, after a crash in commit %d: %v", late, n, err)
				}
				checkClean(t, s)
				if t.Failed() {
					t.Fatalf("late %v, commit %d, next %s", late, n, next)
				}
			}
			if crashes < 12 {
				t.Errorf("only %d commits in the story", crashes)
			}
		}
	}
}

// checkClean holds that nothing is assigned and no claim is half done.
func checkClean(t *testing.T, s store.Store) {
	t.Helper()
	checkStore(t, s)
	for _, b := range listBlocks(t, s) {
		if live, _, _ := b.counts(t0, 0); live > 0 {
			t.Errorf("block %v: %d addresses are assigned", b.cidr, live)
		}
	}
	for _, h := range listAll[*api.IPAMHandle](t, s, api.KindIPAMHandle) {
		t.Errorf("handle %s is left", h.Name)
	}
	for _, aff := range listAll[*api.BlockAffinity](t, s, api.KindBlockAffinity) {
		if aff.Spec.State != api.AffinityConfirmed {
			t.Errorf("affinity %s is left %s", aff.Name, aff.Spec.State)
		}
	}
}

// TestRecoverStates starts a node's allocator on each state that an affinity and its
// block can be in.
func TestRecoverStates(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/30")
	const none = "none"
	for _, tc := range []struct {
		state api.AffinityState
		owner string // of the block
		held  bool
		want  api.AffinityState // "": deleted
	}{
		{api.AffinityPending, none, false, ""},
		{api.AffinityPending, "host:a", false, api.AffinityConfirmed},
		{api.AffinityPending, "host:b", false, ""},
		{api.AffinityPending, "", true, ""},
		{api.AffinityConfirmed, none, false, ""},
		{api.AffinityConfirmed, "host:a", true, api.AffinityConfirmed},
		{api.AffinityConfirmed, "host:b", true, ""},
		{api.AffinityPendingDeletion, none, false, ""},
		{api.AffinityPendingDeletion, "host:a", false, ""},
		{api.AffinityPendingDeletion, "host:a", true, api.AffinityConfirmed},
		{api.AffinityPendingDeletion, "host:b", false, ""},
		{none, "host:a", true, api.AffinityConfirmed},
		{"", "host:a", true, api.AffinityConfirmed}, // as old versions wrote it
	} {
		name := fmt.Sprintf("%s, block of %q, held %v", tc.state, tc.owner, tc.held)
		s := memory.New()
		var ops []store.Op
		if tc.state != none {
			ops = append(ops, store.Create(inState(newAffinity("a", cidr), tc.state)))
		}
		if tc.owner != none {
			b := newBlock(cidr, tc.owner, false, t0)
			if tc.held {
				b, _ = b.assign(0, holder{"h", nil})
				ops = append(ops, store.Create(counted(newHandle("h"), cidr, 1)))
			}
			if tc.owner == "host:b" {
				ops = append(ops, store.Create(inState(newAffinity("b", cidr), api.AffinityConfirmed)))
			}
			ops = append(ops, store.Create(b.obj))
		}
		if _, err := s.Commit(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
		a := NewAllocator(s, "a")
		mustAssign(t, a, ask("x", t0.Add(time.Hour), testPool("q", "10.1.0.0/24", 26)))
		var got api.AffinityState
		if o, err := s.Get(t.Context(), store.KeyOf(newAffinity("a", cidr))); err == nil {
			got = o.(*api.BlockAffinity).Spec.State
		}
		if got != tc.want {
			t.Errorf("%s: the affinity is %q, want %q", name, got, tc.want)
		}
		checkStore(t, s)
	}
}

// TestClaimYieldsToOverlap has another node claim a block of another size in the middle
// of a claim, at each point where the claim reads or writes.
func TestClaimYieldsToOverlap(t *testing.T) {
	for point := 1; ; point++ {
		s := newSpy()
		big, small := testPool("big", "10.0.0.0/26", 26), testPool("small", "10.0.0.0/26", 28)
		b := NewAllocator(s.Store, "b")
		calls := 0
		call := func() {
			if calls++; calls == point {
				mustAssign(t, b, ask("b", t0, small))
			}
		}
		s.onList = func(string) { call() }
		s.before = func([]store.Op) error { call(); return nil }
		// Whoever comes second borrows from the block of the first.
		addrs, err := NewAllocator(s, "a").Assign(t.Context(), ask("a", t0, big), nil)
		if err != nil || len(addrs) != 1 {
			t.Errorf("point %d: %v, %v", point, addrs, err)
		}
		if bs := listBlocks(t, s.Store); len(bs) != 1 {
			t.Errorf("point %d: blocks %v", point, bs)
		}
		checkStore(t, s.Store)
		if calls < point {
			if point < 7 {
				t.Errorf("a claim has only %d points", calls)
			}
			return
		}
	}
}

// TestDeadClaimIsInNobodysWay leaves pending affinities of a dead node on all the pool.
func TestDeadClaimIsInNobodysWay(t *testing.T) {
	s := memory.New()
	for _, cidr := range []string{"10.0.0.0/26", "10.0.0.0/28", "10.0.0.32/27"} {
		if _, err := s.Commit(t.Context(), []store.Op{store.Create(newAffinity("dead", netip.MustParsePrefix(cidr)))}); err != nil {
			t.Fatal(err)
		}
	}
	a := NewAllocator(s, "a")
	mustAssign(t, a, ask("h", t0, testPool("p", "10.0.0.0/26", 26)))
	if affs := listAll[*api.BlockAffinity](t, s, api.KindBlockAffinity); len(affs) != 1 || affs[0].Spec.Node != "a" {
		t.Errorf("affinities %v", affs)
	}
	checkStore(t, s)
}

func TestEmptyBlockOfOtherNodeIsTakenOver(t *testing.T) {
	s := memory.New()
	configure(t, s, api.IPAMConfigurationSpec{StrictAffinity: true})
	p := testPool("p", "10.0.0.0/30", 30)
	a, b := NewAllocator(s, "a"), NewAllocator(s, "b")
	fill(t, a, "a", 1, p, t0)
	mustRelease(t, a, "a0", t0)
	// Its address rests, and the block is a's for a minute in any case.
	_, err := b.Assign(t.Context(), ask("b", t0.Add(50*time.Second), p), nil)
	wantErr(t, err, ErrPoolFull)
	later := t0.Add(2 * time.Minute)
	mustAssign(t, b, ask("b", later, p))
	checkStore(t, s)
	if bs := listBlocks(t, s); bs[0].owner() != "host:b" {
		t.Errorf("owner %s", bs[0].owner())
	}
	// a believes that the block is its own.
	_, err = a.Assign(t.Context(), ask("a1", later, p), nil)
	wantErr(t, err, ErrPoolFull, "strictAffinity")
	checkStore(t, s)
}

// TestNewBlockIsLeftAlone: nobody takes a block that was claimed a moment ago, though no
// address of it is in use yet.
func TestNewBlockIsLeftAlone(t *testing.T) {
	s := memory.New()
	configure(t, s, api.IPAMConfigurationSpec{StrictAffinity: true})
	a := NewAllocator(s, "a")
	fresh := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "host:b", true, t0)
	if _, err := s.Commit(t.Context(), []store.Op{store.Create(fresh.obj)}); err != nil {
		t.Fatal(err)
	}
	p := testPool("p", "10.0.0.0/30", 30)
	_, err := a.Assign(t.Context(), ask("h", t0.Add(59*time.Second), p), nil)
	wantErr(t, err, ErrPoolFull)
	mustAssign(t, a, ask("h", t0.Add(61*time.Second), p))
}

func TestReleaseEmptyBlocks(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/24", 30)
	a := NewAllocator(s, "a")
	fill(t, a, "a", 12, p, t0)
	for i := 4; i < 12; i++ {
		mustRelease(t, a, fmt.Sprint("a", i), t0)
	}
	if gone, err := a.ReleaseEmptyBlocks(t.Context(), t0.Add(30*time.Second)); len(gone) != 0 || err != nil {
		t.Errorf("while addresses rest: %v, %v", gone, err)
	}
	later := t0.Add(5 * time.Minute)
	if gone, err := a.ReleaseEmptyBlocks(t.Context(), later); len(gone) != 2 || err != nil {
		t.Errorf("released %v, %v, want 2", gone, err)
	}
	checkStore(t, s)
	for i := range 4 {
		mustRelease(t, a, fmt.Sprint("a", i), later)
	}
	if gone, err := a.ReleaseEmptyBlocks(t.Context(), later.Add(5*time.Minute)); len(gone) != 0 || err != nil {
		t.Errorf("released %v, %v, want the last kept", gone, err)
	}
	fill(t, a, "a", 8, p, later.Add(6*time.Minute))
	checkStore(t, s)
}

// TestBorrowerKeepsBlock has another node borrow from a block while it is given back.
func TestBorrowerKeepsBlock(t *testing.T) {
	s := newSpy()
	p := testPool("p", "10.0.0.0/29", 30)
	a, b := NewAllocator(s, "a"), NewAllocator(s.Store, "b")
	fill(t, a, "a", 8, p, t0)
	for i := range 8 {
		mustRelease(t, a, fmt.Sprint("a", i), t0)
	}
	later := t0.Add(5 * time.Minute)
	s.after = func([]store.Op) error { // when the affinity is pendingDeletion
		s.after = nil
		configure(t, s.Store, api.IPAMConfigurationSpec{AutoAllocateBlocks: new(bool)})
		fill(t, b, "b", 8, p, later)
		return nil
	}
	if gone, err := a.ReleaseEmptyBlocks(t.Context(), later); len(gone) != 0 || err != nil {
		t.Errorf("released %v, %v", gone, err)
	}
	checkStore(t, s)
	for _, aff := range listAll[*api.BlockAffinity](t, s, api.KindBlockAffinity) {
		if aff.Spec.State != api.AffinityConfirmed {
			t.Errorf("%s is %s", aff.Name, aff.Spec.State)
		}
	}
}

// TestBlockOfNobody has addresses in a block without owner released, and the block go.
func TestBlockOfNobody(t *testing.T) {
	s := memory.New()
	cidr := netip.MustParsePrefix("10.0.0.0/30")
	b, _ := newBlock(cidr, "", false, t0).assign(2, holder{"h", nil})
	if _, err := s.Commit(t.Context(), []store.Op{store.Create(b.obj), store.Create(counted(newHandle("h"), cidr, 1))}); err != nil {
		t.Fatal(err)
	}
	a := NewAllocator(s, "a")
	mustRelease(t, a, "h", t0)
	if gone, err := a.ReleaseEmptyBlocks(t.Context(), t0.Add(5*time.Minute)); len(gone) != 1 || err != nil {
		t.Errorf("released %v, %v", gone, err)
	}
	if bs := listBlocks(t, s); len(bs) != 0 {
		t.Errorf("blocks %v", bs)
	}
}

// TestUnreadableBlock keeps its addresses from everybody.
func TestUnreadableBlock(t *testing.T) {
	s := memory.New()
	o := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "host:a", false, t0).obj
	o.Spec.Allocations = nil
	if _, err := s.Commit(t.Context(), []store.Op{store.Create(o)}); err != nil {
		t.Fatal(err)
	}
	a := NewAllocator(s, "a")
	_, err := a.Assign(t.Context(), ask("h", t0, testPool("p", "10.0.0.0/30", 30)), nil)
	wantErr(t, err, ErrPoolFull)
	r := ask("h", t0, testPool("p", "10.0.0.0/30", 30))
	r.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	if addrs, err := a.Assign(t.Context(), r, nil); err == nil {
		t.Errorf("got %v", addrs)
	}
}
