package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

func TestOneCallAnAssignmentAndARelease(t *testing.T) {
	s := newSpy()
	a, p := NewAllocator(s, "n"), testPool("p", "10.0.0.0/24", 26)
	mustAssign(t, a, ask("first", t0, p))
	s.since()
	addr := mustAssign(t, a, ask("second", t0, p))
	if calls := s.since(); !slices.Equal(calls, []string{"commit 2"}) {
		t.Errorf("an assignment takes %q", calls)
	}
	mustRelease(t, a, "second", t0)
	if calls := s.since(); !slices.Equal(calls, []string{"commit 2"}) {
		t.Errorf("a release takes %q", calls)
	}
	if got, err := a.ByHandle(t.Context(), "second"); len(got) != 0 || err != nil {
		t.Errorf("after the release of %v: %v, %v", addr, got, err)
	}
	checkStore(t, s)
}

func TestFirstAddressOfBlockIsUsed(t *testing.T) {
	a := NewAllocator(memory.New(), "n")
	if got := mustAssign(t, a, ask("h", t0, testPool("p", "10.0.0.0/26", 0))); got != netip.MustParseAddr("10.0.0.0") {
		t.Errorf("first address %v", got)
	}
}

func TestSameHandleSameAddresses(t *testing.T) {
	s := memory.New()
	p4, p6 := testPool("p4", "10.0.0.0/24", 26), testPool("p6", "fd00::/64", 122)
	a := NewAllocator(s, "n")
	one := mustAssign(t, a, ask("h", t0, p4))
	for _, a := range []*Allocator{a, NewAllocator(s, "n"), NewAllocator(s, "other")} {
		if got := mustAssign(t, a, ask("h", t0, p4)); got != one {
			t.Errorf("again: %v, want %v", got, one)
		}
	}
	r := ask("h", t0, p4, p6)
	r.Families = []dataplane.Family{dataplane.IPv6, dataplane.IPv4}
	addrs, err := a.Assign(t.Context(), r, nil)
	if err != nil || len(addrs) != 2 || !addrs[0].Is6() || addrs[1] != one {
		t.Errorf("with a second family: %v, %v", addrs, err)
	}
	got, err := a.ByHandle(t.Context(), "h")
	if err != nil || !slices.Equal(sorted(got), sorted(addrs)) {
		t.Errorf("ByHandle: %v, %v", got, err)
	}
	checkStore(t, s)
	mustRelease(t, NewAllocator(s, "n"), "h", t0) // one that has never seen the handle
	mustRelease(t, a, "h", t0)
	mustRelease(t, a, "h", t0)
	checkStore(t, s)
}

// Even when nothing is free: the handle has its address already.
func TestSameHandleInAFullPool(t *testing.T) {
	s, p := memory.New(), testPool("p", "10.0.0.0/30", 30)
	a := NewAllocator(s, "n")
	for i := range 3 {
		mustAssign(t, a, ask(fmt.Sprint("h", i), t0, p))
	}
	// Two calls at once, for the last address.
	a.turn <- struct{}{}
	results := make(chan error)
	for range 2 {
		go func() {
			_, err := a.Assign(context.Background(), ask("last", t0, p), nil)
			results <- err
		}()
	}
	waitForWaiters(a, 2)
	<-a.turn
	if err := errors.Join(<-results, <-results); err != nil {
		t.Error(err)
	}
	want, err := a.ByHandle(t.Context(), "last")
	if err != nil || len(want) != 1 {
		t.Fatal(want, err)
	}
	r := ask("last", t0, p)
	if got := mustAssign(t, NewAllocator(s, "n"), r); got != want[0] { // as after a restart
		t.Errorf("after a restart: %v, want %v", got, want[0])
	}
	r.Addrs = want
	if got := mustAssign(t, NewAllocator(s, "n"), r); got != want[0] {
		t.Errorf("after a restart, asking for it: %v, want %v", got, want[0])
	}
	r.Handle = "another"
	_, err = NewAllocator(s, "n").Assign(t.Context(), r, nil)
	wantErr(t, err, ErrTaken, "held by last")
	checkStore(t, s)
}

func TestDualStackIsAllOrNothing(t *testing.T) {
	s := memory.New()
	a := NewAllocator(s, "n")
	p4, p6 := testPool("p4", "10.0.0.0/24", 26), testPool("p6", "fd00::/128", 128)
	r := ask("h1", t0, p4, p6)
	r.Families = []dataplane.Family{dataplane.IPv4, dataplane.IPv6}
	if addrs, err := a.Assign(t.Context(), r, nil); err != nil || len(addrs) != 2 {
		t.Fatal(addrs, err)
	}
	r.Handle = "h2"
	_, err := a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrPoolFull, "no IPv6 address", "pool p6 (fd00::/128) has 1 blocks, 1 of 1 addresses in use")
	if got, err := a.ByHandle(t.Context(), "h2"); len(got) != 0 || err != nil {
		t.Errorf("half of it was assigned: %v, %v", got, err)
	}
	checkStore(t, s)
}

func endpoint(name string, addrs []netip.Addr) *api.WorkloadEndpoint {
	w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, "default", name)}
	for _, a := range addrs {
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, a.String())
	}
	return w
}

func TestExtraOpsAreInTheSameCommit(t *testing.T) {
	s := newSpy()
	a, p := NewAllocator(s, "n"), testPool("p", "10.0.0.0/24", 26)
	mustAssign(t, a, ask("first", t0, p))
	s.since()
	var made *api.WorkloadEndpoint
	addrs, err := a.Assign(t.Context(), ask("h", t0, p), func(addrs []netip.Addr) ([]store.Op, error) {
		made = endpoint("w", addrs)
		return []store.Op{store.Create(made)}, nil
	})
	if err != nil || !slices.Equal(s.since(), []string{"commit 3"}) || made.Spec.IPNetworks[0] != addrs[0].String() {
		t.Fatalf("%v, %v, %v", addrs, err, made)
	}
	if err := a.Release(t.Context(), "h", t0, store.Delete(store.KeyOf(made), api.Revision(made))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), store.KeyOf(made)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the endpoint after the release: %v", err)
	}
	// Nothing to release, but the extra ops are made.
	if err := a.Release(t.Context(), "h", t0, store.Create(endpoint("w2", nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), store.KeyOf(endpoint("w2", nil))); err != nil {
		t.Error(err)
	}
	err = a.Release(t.Context(), "first", t0, store.Create(endpoint("w2", nil)))
	wantErr(t, err, store.ErrExists, "WorkloadEndpoint(default/w2)")
	if got, _ := a.ByHandle(t.Context(), "first"); len(got) != 1 {
		t.Errorf("a release that failed has released %v", got)
	}
	checkStore(t, s)
}

func TestExtraIsCalledAnew(t *testing.T) {
	s := memory.New()
	a, p := NewAllocator(s, "n"), testPool("p", "10.0.0.0/24", 26)
	if _, err := s.Commit(t.Context(), []store.Op{store.Create(endpoint("w", nil))}); err != nil {
		t.Fatal(err)
	}
	calls := 0
	addrs, err := a.Assign(t.Context(), ask("h", t0, p), func(addrs []netip.Addr) ([]store.Op, error) {
		if calls++; calls < 3 {
			return []store.Op{store.Create(endpoint("w", addrs))}, nil
		}
		return []store.Op{store.Put(endpoint("w", addrs))}, nil
	})
	if err != nil || len(addrs) != 1 || calls != 3 {
		t.Errorf("%v, %v after %d calls", addrs, err, calls)
	}
	_, err = a.Assign(t.Context(), ask("h2", t0, p), func(addrs []netip.Addr) ([]store.Op, error) {
		return []store.Op{store.Create(endpoint("w", addrs))}, nil
	})
	wantErr(t, err, store.ErrExists, "h2", "default/w")
	sad := errors.New("sad")
	_, err = a.Assign(t.Context(), ask("h2", t0, p), func([]netip.Addr) ([]store.Op, error) { return nil, sad })
	wantErr(t, err, sad)
	if got, err := a.ByHandle(t.Context(), "h2"); len(got) != 0 || err != nil {
		t.Errorf("h2 holds %v, %v", got, err)
	}
	checkStore(t, s)
}

func TestCertainAddress(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/24", 26)
	a, b := NewAllocator(s, "n"), NewAllocator(s, "m")
	want := netip.MustParseAddr("10.0.0.77")
	r := ask("h", t0, p)
	r.Families, r.Addrs = nil, []netip.Addr{want}
	addrs, err := a.Assign(t.Context(), r, nil)
	if err != nil || !slices.Equal(addrs, r.Addrs) {
		t.Fatal(addrs, err)
	}
	r.Handle = "h2"
	_, err = b.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrTaken, "10.0.0.77", "held by h")
	r.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.78")}
	if addrs, err := b.Assign(t.Context(), r, nil); err != nil || addrs[0] != r.Addrs[0] {
		t.Errorf("borrowing a certain address: %v, %v", addrs, err)
	}
	r.Handle = "h"
	_, err = a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrTaken, "10.0.0.78", "10.0.0.77")
	r.Addrs = []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	_, err = a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrNoPool, "10.9.0.1 lies in no pool")
	// One at rest can be had: nothing else would do.
	mustRelease(t, a, "h", t0)
	r.Handle, r.Addrs = "h3", []netip.Addr{want}
	if addrs, err := a.Assign(t.Context(), r, nil); err != nil || addrs[0] != want {
		t.Errorf("one at rest: %v, %v", addrs, err)
	}
	configure(t, s, api.IPAMConfigurationSpec{StrictAffinity: true})
	r.Handle, r.Addrs, r.Now = "h4", []netip.Addr{netip.MustParseAddr("10.0.0.79")}, t0.Add(time.Hour)
	_, err = b.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrPoolFull, "strictAffinity", "host:n")
	checkStore(t, s)
}

func TestBadRequests(t *testing.T) {
	p := testPool("p", "10.0.0.0/24", 26)
	a := NewAllocator(memory.New(), "n")
	addr := netip.MustParseAddr("10.0.0.1")
	for name, spoil := range map[string]func(*Request){
		"no handle":         func(r *Request) { r.Handle = "" },
		"slash":             func(r *Request) { r.Handle = "a/b" },
		"no family":         func(r *Request) { r.Families = nil },
		"family 5":          func(r *Request) { r.Families = []dataplane.Family{5} },
		"family twice":      func(r *Request) { r.Families = []dataplane.Family{4, 4} },
		"two of one family": func(r *Request) { r.Addrs = []netip.Addr{addr, addr.Next()} },
		"no address at all": func(r *Request) { r.Addrs = []netip.Addr{{}} },
		"no time":           func(r *Request) { r.Now = time.Time{} },
	} {
		r := ask("h", t0, p)
		spoil(&r)
		if addrs, err := a.Assign(t.Context(), r, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", name, addrs, err)
		}
	}
	r := ask("h", t0, p)
	r.Families = []dataplane.Family{dataplane.IPv6}
	_, err := a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrNoPool, "IPv6")
	r = ask("h", t0, p)
	r.Use = api.UseLoadBalancer
	_, err = a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrNoPool)
}

// fill assigns n addresses with handles that begin with prefix.
func fill(t *testing.T, a *Allocator, prefix string, n int, p *api.IPPool, now time.Time) {
	t.Helper()
	for i := range n {
		mustAssign(t, a, ask(fmt.Sprint(prefix, i), now, p))
	}
}

func TestBorrowingWhenNothingIsLeftToClaim(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/29", 30)
	a, b := NewAllocator(s, "a"), NewAllocator(s, "b")
	fill(t, b, "b", 1, p, t0)
	fill(t, a, "a", 7, p, t0)
	_, err := a.Assign(t.Context(), ask("a7", t0, p), nil)
	wantErr(t, err, ErrPoolFull, "node a", "pool p (10.0.0.0/29) has 2 blocks, 8 of 8 addresses in use", "nothing is left to claim")
	checkStore(t, s)
	// b, whose cache is stale, finds its block changed under it.
	_, err = b.Assign(t.Context(), ask("b1", t0, p), nil)
	wantErr(t, err, ErrPoolFull)
	mustRelease(t, b, "b0", t0)
	for i := range 7 {
		mustRelease(t, a, fmt.Sprint("a", i), t0)
	}
	checkStore(t, s)
}

func TestStrictAffinityForbidsBorrowing(t *testing.T) {
	s := memory.New()
	configure(t, s, api.IPAMConfigurationSpec{StrictAffinity: true})
	p := testPool("p", "10.0.0.0/29", 30)
	a, b := NewAllocator(s, "a"), NewAllocator(s, "b")
	fill(t, b, "b", 1, p, t0)
	fill(t, a, "a", 4, p, t0)
	_, err := a.Assign(t.Context(), ask("a4", t0, p), nil)
	wantErr(t, err, ErrPoolFull, "strictAffinity", "5 of 8 addresses in use")
	checkStore(t, s)
}

// A block that was claimed under strictAffinity stays its owner's alone, whatever is
// configured later.
func TestStrictBlockIsNotBorrowedFrom(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/30", 30)
	b, _ := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "host:b", true, t0).assign(0, holder{"x", nil})
	if _, err := s.Commit(t.Context(), []store.Op{store.Create(b.obj)}); err != nil {
		t.Fatal(err)
	}
	_, err := NewAllocator(s, "a").Assign(t.Context(), ask("h", t0, p), nil)
	wantErr(t, err, ErrPoolFull, "1 of 4 addresses in use")
}

func TestLimitOfBlocks(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/24", 30)
	configure(t, s, api.IPAMConfigurationSpec{StrictAffinity: true, MaxBlocksPerHost: 3})
	a := NewAllocator(s, "a")
	fill(t, a, "a", 4, p, t0)
	r := ask("x", t0, p)
	r.MaxBlocks = 1
	_, err := a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrPoolFull, "1 blocks of at most 1")
	r.MaxBlocks = 9 // does not raise the limit
	for i := range 8 {
		r.Handle = fmt.Sprint("x", i)
		mustAssign(t, a, r)
	}
	r.Handle = "x8"
	_, err = a.Assign(t.Context(), r, nil)
	wantErr(t, err, ErrPoolFull, "3 blocks of at most 3")
	configure(t, s, api.IPAMConfigurationSpec{AutoAllocateBlocks: new(bool)})
	_, err = NewAllocator(s, "b").Assign(t.Context(), ask("b", t0, testPool("q", "10.1.0.0/24", 30)), nil)
	wantErr(t, err, ErrPoolFull, "autoAllocateBlocks is false")
	// The limit is 20 when nobody sets one.
	s = memory.New()
	configure(t, s, api.IPAMConfigurationSpec{})
	a, p = NewAllocator(s, "a"), testPool("p", "10.0.0.0/24", 32)
	fill(t, a, "a", 20, p, t0)
	_, err = a.Assign(t.Context(), ask("a20", t0, p), nil)
	wantErr(t, err, ErrPoolFull, "20 blocks of at most 20")
}

func TestSettingsAreReadAgain(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/30", 30)
	a := NewAllocator(s, "a")
	fill(t, a, "a", 1, p, t0)
	configure(t, s, api.IPAMConfigurationSpec{IPCooldownSeconds: new(int)})
	later := t0.Add(time.Minute)
	mustRelease(t, a, "a0", later)
	if live, resting, free := listBlocks(t, s)[0].counts(later, time.Hour); live+resting != 0 || free != 4 {
		t.Errorf("%d live, %d resting, %d free although the rest is 0", live, resting, free)
	}
}

func TestRestIsKeptUnlessNothingElseIsFree(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/29", 30)
	a := NewAllocator(s, "a")
	fill(t, a, "a", 8, p, t0)
	first, _ := a.ByHandle(t.Context(), "a5")
	second, _ := a.ByHandle(t.Context(), "a2")
	mustRelease(t, a, "a5", t0)
	mustRelease(t, a, "a2", t0.Add(10*time.Second))
	// Neither has rested, but nothing else is free: its own block's longest at rest.
	got := mustAssign(t, a, ask("x", t0.Add(20*time.Second), p))
	if got != first[0] && got != second[0] {
		t.Errorf("got %v, want %v or %v", got, first, second)
	}
	mustRelease(t, a, "a7", t0.Add(30*time.Second))
	// Now one has rested and the other not.
	rested := first[0]
	if got == rested {
		rested = second[0]
	}
	if got := mustAssign(t, a, ask("y", t0.Add(71*time.Second), p)); got != rested {
		t.Errorf("got %v, want %v, which has rested", got, rested)
	}
	checkStore(t, s)
}

func TestClaimsBeforeDisturbingRest(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/24", 32)
	a := NewAllocator(s, "a")
	one := mustAssign(t, a, ask("h", t0, p))
	mustRelease(t, a, "h", t0)
	if two := mustAssign(t, a, ask("h", t0.Add(time.Second), p)); two == one {
		t.Errorf("%v is given out again after a second, and 255 blocks were free", two)
	}
}

func TestReleaseAddrs(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/24", 26)
	a, b := NewAllocator(s, "a"), NewAllocator(s, "b")
	one, two := mustAssign(t, a, ask("h1", t0, p)), mustAssign(t, a, ask("h2", t0, p))
	nobodys := netip.MustParseAddr("10.0.0.200")
	got, err := b.ReleaseAddrs(t.Context(), []netip.Addr{one, nobodys, two, two, netip.MustParseAddr("fd00::1"), {}}, t0)
	if err != nil || !slices.Equal(got, []netip.Addr{one, two}) {
		t.Errorf("released %v, %v", got, err)
	}
	checkStore(t, s)
	if n := len(listAll[*api.IPAMHandle](t, s, api.KindIPAMHandle)); n != 0 {
		t.Errorf("%d handles are left", n)
	}
	// a does not know yet; the same handle gets an address that is its own.
	mustRelease(t, a, "h2", t0)
	again := mustAssign(t, a, ask("h1", t0, p))
	if got, _ := b.ByHandle(t.Context(), "h1"); !slices.Equal(got, []netip.Addr{again}) {
		t.Errorf("h1 was told %v, holds %v", again, got)
	}
	checkStore(t, s)
}

func TestReleaseAllocationsMindsSequence(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/32", 32)
	a := NewAllocator(s, "a")
	mustAssign(t, a, ask("h", t0, p))
	old, err := a.Allocations(t.Context(), "h")
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	mustRelease(t, a, "h", t0)
	mustAssign(t, a, ask("h", t0.Add(time.Hour), p)) // the same handle, the same address
	other := Allocation{Addr: old[0].Addr, Handle: "g"}
	if got, err := a.ReleaseAllocations(t.Context(), []Allocation{old[0], other}, t0); len(got) != 0 || err != nil {
		t.Errorf("released %v, %v", got, err)
	}
	now, _ := a.Allocations(t.Context(), "h")
	if got, err := a.ReleaseAllocations(t.Context(), now, t0); len(got) != 1 || err != nil {
		t.Errorf("released %v, %v", got, err)
	}
	checkStore(t, s)
}

func TestWaitersShareACommit(t *testing.T) {
	s := newSpy()
	a, p := NewAllocator(s, "a"), testPool("p", "10.0.0.0/24", 26)
	mustAssign(t, a, ask("first", t0, p))
	s.since()
	a.turn <- struct{}{} // hold them up
	type result struct {
		addrs []netip.Addr
		err   error
	}
	results := make(chan result)
	for i := range 10 {
		go func() {
			addrs, err := a.Assign(context.Background(), ask(fmt.Sprint("h", i), t0, p), nil)
			results <- result{addrs, err}
		}()
	}
	waitForWaiters(a, 10)
	<-a.turn
	seen := map[netip.Addr]bool{}
	for range 10 {
		r := <-results
		if r.err != nil || seen[r.addrs[0]] {
			t.Errorf("%v, %v; seen before: %v", r.addrs, r.err, seen)
		}
		seen[r.addrs[0]] = true
	}
	if calls := s.since(); !slices.Equal(calls, []string{"commit 11"}) {
		t.Errorf("ten at once take %q", calls)
	}
	checkStore(t, s)
}

func TestOneBadJobDoesNotSpoilTheBatch(t *testing.T) {
	s := memory.New()
	a, p := NewAllocator(s, "a"), testPool("p", "10.0.0.0/24", 26)
	mustAssign(t, a, ask("first", t0, p))
	a.turn <- struct{}{}
	errs := make(chan error)
	for i := range 8 {
		go func() {
			_, err := a.Assign(context.Background(), ask(fmt.Sprint("h", i), t0, p), func(addrs []netip.Addr) ([]store.Op, error) {
				return []store.Op{store.Create(endpoint(fmt.Sprint("w", i/2), addrs))}, nil // two want the same
			})
			errs <- err
		}()
	}
	waitForWaiters(a, 8)
	<-a.turn
	failed := 0
	for range 8 {
		if err := <-errs; errors.Is(err, store.ErrExists) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if n := len(listAll[*api.IPAMHandle](t, s, api.KindIPAMHandle)); failed != 4 || n != 5 {
		t.Errorf("%d failed, %d handles", failed, n)
	}
	checkStore(t, s)
}

// TestFailedBatchLeavesNoTrace has two jobs of one batch borrow from the same block and
// fail, and then that block written for another reason.
func TestFailedBatchLeavesNoTrace(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/29", 29)
	a, b := NewAllocator(s, "a"), NewAllocator(s, "b")
	mustAssign(t, b, ask("b", t0, p))
	mustAssign(t, a, ask("g", t0, p))
	a.turn <- struct{}{}
	errs := make(chan error)
	sad := errors.New("sad")
	for i, extra := range []func([]netip.Addr) ([]store.Op, error){
		func([]netip.Addr) ([]store.Op, error) { return []store.Op{{Object: endpoint("w", nil)}}, nil }, // no key
		func([]netip.Addr) ([]store.Op, error) { return nil, sad },
	} {
		go func() {
			_, err := a.Assign(context.Background(), ask(fmt.Sprint("h", i), t0, p), extra)
			errs <- err
		}()
		waitForWaiters(a, i+1)
	}
	<-a.turn
	if err := errors.Join(<-errs, <-errs); !errors.Is(err, sad) || !errors.Is(err, store.ErrInvalid) {
		t.Errorf("errors %v", err)
	}
	mustRelease(t, a, "g", t0)
	checkStore(t, s)
}

// waitForWaiters returns when n jobs wait for their turn.
func waitForWaiters(a *Allocator, n int) {
	for {
		a.mu.Lock()
		waiting := len(a.wait)
		a.mu.Unlock()
		if waiting == n {
			return
		}
		runtime.Gosched()
	}
}

func TestCallerMayLeave(t *testing.T) {
	s := memory.New()
	a, p := NewAllocator(s, "a"), testPool("p", "10.0.0.0/24", 26)
	a.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := a.Assign(ctx, ask("h", t0, p), func([]netip.Addr) ([]store.Op, error) {
			t.Error("extra is called for a caller that has left")
			return nil, nil
		})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-a.turn
	mustAssign(t, a, ask("g", t0, p))
	if got, err := a.ByHandle(t.Context(), "h"); len(got) != 0 || err != nil {
		t.Errorf("h holds %v, %v", got, err)
	}
}
