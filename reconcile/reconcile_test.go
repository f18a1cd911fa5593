package reconcile

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

var seedFlag = flag.Uint64("seed", 0, "run the random tests with this seed only")

// seeds runs f with many seeds, or with the one that was asked for.
func seeds(t *testing.T, n uint64, f func(t *testing.T, r *rand.Rand)) {
	t.Helper()
	first, last := uint64(1), n
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		f(t, rand.New(rand.NewPCG(seed, 1)))
		if t.Failed() {
			t.Fatalf("replay with -run '^%s$' -seed %d", t.Name(), seed)
		}
	}
}

// fakeKernel holds objects whose values may be keys of another one. It fails when told
// to, half-way or for single keys, with or without effect, and refuses dangling
// references.
type fakeKernel struct {
	objs      map[int]int
	refers    *fakeKernel // values of objs are keys of it
	referrers *fakeKernel
	fail      func() bool
	perKey    bool // failures are told by key
	sloppy    func() bool
	lists     int
	writes    int // that changed something or were said to
	wasteful  int // that changed nothing
}

var errFlaky = errors.New("flaky")

func (f *fakeKernel) List(context.Context) (map[int]int, error) {
	f.lists++
	if f.fail() {
		return nil, errFlaky
	}
	return maps.Clone(f.objs), nil
}

func (f *fakeKernel) Apply(_ context.Context, set, del map[int]int) error {
	failed := KeyErrors[int]{}
	for k, v := range set {
		if err := f.try(k, func() error { return f.set(k, v) }); err != nil && !f.perKey {
			return err
		} else if err != nil {
			failed[k] = err
		}
	}
	for k := range del {
		if err := f.try(k, func() error { return f.del(k) }); err != nil && !f.perKey {
			return err
		} else if err != nil {
			failed[k] = err
		}
	}
	return failed.Err()
}

// try does a write, or fails to; a sloppy kernel fails and does it all the same.
func (f *fakeKernel) try(k int, do func() error) error {
	if f.fail() {
		if f.sloppy() {
			do()
		}
		return fmt.Errorf("object %d: %w", k, errFlaky)
	}
	return do()
}

func (f *fakeKernel) set(k, v int) error {
	f.writes++
	if old, ok := f.objs[k]; ok && old == v {
		f.wasteful++
	}
	if f.refers != nil {
		if _, ok := f.refers.objs[v]; !ok {
			return fmt.Errorf("object %d refers to %d, which is missing", k, v)
		}
	}
	f.objs[k] = v
	return nil
}

func (f *fakeKernel) del(k int) error {
	f.writes++
	if _, ok := f.objs[k]; !ok {
		f.wasteful++
	}
	if f.referrers != nil {
		for _, v := range f.referrers.objs {
			if v == k {
				return fmt.Errorf("object %d is in use", k)
			}
		}
	}
	delete(f.objs, k)
	return nil
}

// pair is two kinds of objects, rules that refer to sets.
type pair struct {
	r           *rand.Rand
	p           float64 // of a failure
	sets, rules *fakeKernel
	st, rt      *Table[int, int]
	seq         Sequence
	ws, wr      map[int]int
}

func newPair(r *rand.Rand) *pair {
	p := &pair{r: r, p: 0.2, ws: map[int]int{}, wr: map[int]int{}}
	eq := func(have, want int) bool { return have == want }
	fail := func() bool { return r.Float64() < p.p }
	sloppy := func() bool { return r.IntN(2) == 0 }
	perKey := r.IntN(2) == 0
	p.sets = &fakeKernel{objs: map[int]int{}, fail: fail, sloppy: sloppy, perKey: perKey}
	p.rules = &fakeKernel{objs: map[int]int{}, fail: fail, sloppy: sloppy, perKey: perKey, refers: p.sets}
	p.sets.referrers = p.rules
	p.st, p.rt = NewTable(p.sets, eq), NewTable(p.rules, eq)
	p.seq = Sequence{p.st, p.rt}
	return p
}

// step changes what is wanted, by single keys or as a whole.
func (p *pair) step() {
	if p.r.IntN(3) == 0 {
		p.ws, p.wr = map[int]int{}, map[int]int{}
		for range p.r.IntN(6) {
			p.ws[p.r.IntN(8)] = p.r.IntN(3)
		}
		for k := range p.ws {
			p.wr[p.r.IntN(8)] = k
		}
		p.st.Replace(p.ws)
		p.rt.Replace(p.wr)
		return
	}
	k, v := p.r.IntN(8), p.r.IntN(3)
	p.ws[k] = v
	p.st.Set(k, v)
	if r := p.r.IntN(8); p.r.IntN(2) == 0 {
		p.wr[r] = k
		p.rt.Set(r, k)
	} else {
		delete(p.wr, r)
		p.rt.Delete(r)
	}
}

// meddle changes the kernel behind the tables' backs, and tells them.
func (p *pair) meddle() {
	delete(p.rules.objs, p.r.IntN(8))
	k := p.r.IntN(8)
	p.sets.objs[k] = 99
	p.rules.objs[p.r.IntN(8)] = k
	p.seq.Resync()
}

func TestSequenceConverges(t *testing.T) {
	ctx := context.Background()
	seeds(t, 1500, func(t *testing.T, r *rand.Rand) {
		p := newPair(r)
		for range 20 {
			p.step()
			if r.IntN(4) == 0 {
				p.meddle()
			}
			if err := p.seq.Sync(ctx); err != nil && !errors.Is(err, errFlaky) {
				t.Errorf("an error of ours: %v", err)
			}
			for k, v := range p.rules.objs {
				if _, ok := p.sets.objs[v]; !ok {
					t.Errorf("rule %d refers to set %d, which is missing", k, v)
				}
			}
		}
		p.p = 0
		if err := p.seq.Sync(ctx); err != nil {
			t.Errorf("without faults: %v", err)
		}
		if !maps.Equal(p.sets.objs, p.ws) || !maps.Equal(p.rules.objs, p.wr) {
			t.Errorf("kernel has %v %v, want %v %v", p.sets.objs, p.rules.objs, p.ws, p.wr)
		}
		p.checkQuiet(t)
	})
}

// checkQuiet checks that nothing is written when nothing differs, even after a read-back,
// and nothing is read either when nothing was touched.
func (p *pair) checkQuiet(t *testing.T) {
	writes, lists := p.sets.writes+p.rules.writes, p.sets.lists+p.rules.lists
	for k, v := range p.ws {
		p.st.Set(k, v)
	}
	err := p.seq.Sync(context.Background())
	if now := p.sets.lists + p.rules.lists; err != nil || now != lists {
		t.Errorf("a sync with nothing to do read the kernel %d times: %v", now-lists, err)
	}
	p.seq.Resync()
	err = p.seq.Sync(context.Background())
	if now := p.sets.writes + p.rules.writes; err != nil || now != writes {
		t.Errorf("a sync with nothing to do wrote %d times: %v", now-writes, err)
	}
	if n := p.st.Pending() + p.rt.Pending(); n != 0 {
		t.Errorf("%d keys are pending after a clean sync", n)
	}
}

// Without faults and meddling no write is in vain, and the kernel is read once.
func TestTableWritesOnlyWhatDiffers(t *testing.T) {
	seeds(t, 500, func(t *testing.T, r *rand.Rand) {
		p := newPair(r)
		p.p = 0
		for range 20 {
			p.step()
			if err := p.st.Sync(context.Background()); err != nil {
				break // rules have been left behind on purpose
			}
		}
		if p.sets.wasteful != 0 || p.sets.lists != 1 {
			t.Errorf("%d writes in vain, %d reads", p.sets.wasteful, p.sets.lists)
		}
		if got := int(p.st.Stats().Writes()); got != p.sets.writes {
			t.Errorf("Stats counts %d writes, the kernel %d", got, p.sets.writes)
		}
	})
}

// stubborn refuses single keys and records what it is asked.
type stubborn struct {
	objs  map[int]int
	bad   map[int]bool
	asked []int
	lists int
}

func (s *stubborn) List(context.Context) (map[int]int, error) {
	s.lists++
	return maps.Clone(s.objs), nil
}

func (s *stubborn) Apply(_ context.Context, set, del map[int]int) error {
	failed := KeyErrors[int]{}
	for k, v := range set {
		s.asked = append(s.asked, k)
		if s.bad[k] {
			failed[k] = fmt.Errorf("no %d here", k)
		} else {
			s.objs[k] = v
		}
	}
	for k := range del {
		s.asked = append(s.asked, k)
		delete(s.objs, k)
	}
	return failed.Err()
}

func TestOneBadKeyLeavesTheOthersAlone(t *testing.T) {
	ctx := context.Background()
	k := &stubborn{objs: map[int]int{}, bad: map[int]bool{3: true}}
	tab := NewTable(k, func(a, b int) bool { return a == b })
	for i := range 6 {
		tab.Set(i, i)
	}
	err := tab.Sync(ctx)
	if !errors.Is(err, ErrPartial) || err.Error() != "no 3 here" || len(k.objs) != 5 {
		t.Fatalf("got %v, kernel has %v", err, k.objs)
	}
	var some interface{ Failed() map[string]error }
	if !errors.As(err, &some) || some.Failed()["3"] == nil {
		t.Fatalf("the error does not name the key: %#v", err)
	}
	k.asked = nil
	if err := tab.Sync(ctx); !errors.Is(err, ErrPartial) || len(k.asked) != 1 || k.asked[0] != 3 {
		t.Fatalf("second sync asked for %v: %v", k.asked, err)
	}
	k.bad = nil
	if err := tab.Sync(ctx); err != nil || k.objs[3] != 3 || k.lists != 1 {
		t.Fatalf("third sync: %v, %v, %d lists", err, k.objs, k.lists)
	}
}

// A key whose set failed may be in the kernel after all: once it is no longer wanted the
// table has to look.
func TestDeleteAfterFailedSetReadsBack(t *testing.T) {
	ctx := context.Background()
	k := &stubborn{objs: map[int]int{}, bad: map[int]bool{3: true}}
	tab := NewTable(k, func(a, b int) bool { return a == b })
	tab.Set(3, 3)
	if err := tab.Sync(ctx); err == nil {
		t.Fatal("no error")
	}
	k.objs[3] = 3 // it took effect
	tab.Delete(3)
	if err := tab.Sync(ctx); err != nil || len(k.objs) != 0 {
		t.Fatalf("left %v: %v", k.objs, err)
	}
}

// recorder is a stage that records its calls and fails as told.
type recorder struct {
	name         string
	log          *[]string
	grow, shrink error
}

func (r *recorder) Resync() { *r.log = append(*r.log, "?"+r.name) }

func (r *recorder) Grow(context.Context) error {
	*r.log = append(*r.log, "+"+r.name)
	return r.grow
}

func (r *recorder) Shrink(context.Context) error {
	*r.log = append(*r.log, "-"+r.name)
	return r.shrink
}

func TestSequenceOrder(t *testing.T) {
	some := KeyErrors[int]{1: errors.New("one")}
	hard := errors.New("hard")
	for _, c := range []struct {
		name    string
		a, b, c recorder
		want    string
		partial bool
	}{
		{name: "clean", want: "+a +b +c -c -b -a"},
		{name: "b fails", b: recorder{grow: hard}, want: "+a +b"},
		{name: "some of b fail", b: recorder{grow: some}, want: "+a +b +c -c -b", partial: true},
		{name: "some of a and b fail", a: recorder{grow: some}, b: recorder{grow: KeyErrors[string]{"x": hard}}, want: "+a +b +c -c -b", partial: true},
		{name: "some of a fail, b fails", a: recorder{grow: some}, b: recorder{grow: hard}, want: "+a +b"},
		{name: "shrinking c fails", c: recorder{shrink: some}, want: "+a +b +c -c", partial: true},
	} {
		var log []string
		c.a.name, c.b.name, c.c.name = "a", "b", "c"
		c.a.log, c.b.log, c.c.log = &log, &log, &log
		err := Sequence{&c.a, &c.b, &c.c}.Sync(context.Background())
		if got := strings.Join(log, " "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if (err == nil) != (c.name == "clean") || errors.Is(err, ErrPartial) != c.partial {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

func TestJoin(t *testing.T) {
	one := KeyErrors[int]{1: errors.New("one"), 2: errors.New("two")}
	two := KeyErrors[string]{"1": errors.New("uno"), "2": errors.New("two")}
	if err := Join(nil, nil); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	err := Join(one, nil, two)
	if got := err.Error(); got != "one; uno; two" {
		t.Errorf("got %q", got)
	}
	if !errors.Is(err, one[1]) || !errors.Is(err, two["1"]) || !errors.Is(err, ErrPartial) {
		t.Errorf("%#v lost an error", err)
	}
	many := KeyErrors[int]{}
	for i := range 9 {
		many[i] = fmt.Errorf("e%d", i)
	}
	if got := many.Error(); got != "e0; e1; e2; e3; and 5 more" {
		t.Errorf("got %q", got)
	}
	hard := errors.New("hard")
	if err := Join(one, hard); errors.Is(err, ErrPartial) || !errors.Is(err, hard) || err.Error() != "hard; one; two" {
		t.Errorf("got %v", err)
	}
}
