package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
)

func testBlock(cidr string) block {
	return newBlock(netip.MustParsePrefix(cidr), "host:n", false, t0)
}

func TestNewBlock(t *testing.T) {
	for _, tc := range []struct {
		cidr, name, first, last string
		n                       int
	}{
		{"10.10.72.0/26", "10-10-72-0-26", "10.10.72.0", "10.10.72.63", 64},
		{"10.0.0.5/32", "10-0-0-5-32", "10.0.0.5", "10.0.0.5", 1},
		{"10.0.16.0/20", "10-0-16-0-20", "10.0.16.0", "10.0.31.255", 4096},
		{"fd00:1::40/122", "fd00-1--40-122", "fd00:1::40", "fd00:1::7f", 64},
		{"fd00::/116", "fd00---116", "fd00::", "fd00::fff", 4096},
	} {
		b := testBlock(tc.cidr)
		s := b.obj.Spec
		if b.obj.Name != tc.name || len(s.Allocations) != tc.n || len(s.Unallocated) != tc.n {
			t.Errorf("%s: name %s, %d allocations, %d unallocated", tc.cidr, b.obj.Name, len(s.Allocations), len(s.Unallocated))
		}
		for ord, want := range map[int]string{0: tc.first, tc.n - 1: tc.last} {
			a := netip.MustParseAddr(want)
			if addrAt(b.cidr, ord) != a || ordinalOf(b.cidr, a) != ord {
				t.Errorf("%s: ordinal %d is %v, and %v is ordinal %d", tc.cidr, ord, addrAt(b.cidr, ord), a, ordinalOf(b.cidr, a))
			}
		}
		if _, err := parseBlock(api.Clone(b.obj)); err != nil {
			t.Errorf("%s: %v", tc.cidr, err)
		}
	}
}

func TestAssignGivesFirstAddressFirst(t *testing.T) {
	b := testBlock("10.0.0.0/30")
	for want := range 4 {
		ord, ok := b.next()
		if !ok || ord != want {
			t.Fatalf("next is %d, %v, want %d", ord, ok, want)
		}
		var err error
		if b, err = b.assign(ord, holder{fmt.Sprint("h", ord), nil}); err != nil {
			t.Fatal(err)
		}
	}
	if ord, ok := b.next(); ok {
		t.Errorf("next of a full block is %d", ord)
	}
	if _, err := b.assign(2, holder{"x", nil}); !errors.Is(err, ErrTaken) {
		t.Errorf("assigning what h2 holds: %v", err)
	}
}

func TestReleasedAddressRests(t *testing.T) {
	b := testBlock("10.0.0.0/30")
	b, _ = b.assign(0, holder{"a", nil})
	b, _ = b.assign(1, holder{"b", nil})
	b = b.release([]int{1}, t0.Add(time.Second/2), time.Minute)
	b = b.release([]int{0}, t0.Add(time.Second/2), time.Minute)
	live, resting, free := b.counts(t0, time.Minute)
	if live != 0 || resting != 2 || free != 2 {
		t.Errorf("%d live, %d resting, %d free", live, resting, free)
	}
	if got := b.thaw(t0.Add(time.Minute), time.Minute).obj.Spec.Unallocated; !slices.Equal(got, []int{2, 3}) {
		t.Errorf("half a second early the queue is %v", got)
	}
	// 1 was released first, though in the same second.
	if ord, ok := b.nextResting(); !ok || ord != 1 {
		t.Errorf("longest at rest is %d, %v, want 1", ord, ok)
	}
	thawed := b.thaw(t0.Add(time.Minute+time.Second), time.Minute)
	if got := thawed.obj.Spec.Unallocated; !slices.Equal(got, []int{2, 3, 1, 0}) {
		t.Errorf("after the rest the queue is %v", got)
	}
	if n := len(thawed.obj.Spec.Attributes) + len(thawed.obj.Spec.SequenceNumberForAllocation); n != 0 {
		t.Errorf("%d attributes and sequence numbers are left", n)
	}
	if got := b.release([]int{}, t0, 0); got.obj != b.obj {
		t.Error("releasing nothing makes another block")
	}
}

func TestReleaseWithoutRest(t *testing.T) {
	b, _ := testBlock("10.0.0.0/30").assign(0, holder{"a", nil})
	b = b.release([]int{0}, t0, 0)
	if got := b.obj.Spec.Unallocated; !slices.Equal(got, []int{1, 2, 3, 0}) {
		t.Errorf("queue %v", got)
	}
}

func TestSequenceNumbersNeverRepeat(t *testing.T) {
	b := testBlock("10.0.0.0/30")
	seen := map[uint64]bool{}
	for range 10 {
		b, _ = b.assign(0, holder{"a", nil})
		if seen[b.sequence(0)] {
			t.Fatalf("sequence number %d comes twice", b.sequence(0))
		}
		seen[b.sequence(0)] = true
		b = b.release([]int{0}, t0, 0)
	}
	again := newBlock(b.cidr, "host:n", false, t0.Add(time.Second))
	again, _ = again.assign(0, holder{"a", nil})
	if seen[again.sequence(0)] {
		t.Error("a new block repeats the old one's sequence numbers")
	}
}

func TestParseBlockRefuses(t *testing.T) {
	one, two := 1, 2
	for name, spoil := range map[string]func(*api.IPAMBlockSpec){
		"not a CIDR":        func(s *api.IPAMBlockSpec) { s.CIDR = "10.0.0.0" },
		"host bits":         func(s *api.IPAMBlockSpec) { s.CIDR = "10.0.0.1/30" },
		"too large":         func(s *api.IPAMBlockSpec) { s.CIDR = "10.0.0.0/8" },
		"too few slots":     func(s *api.IPAMBlockSpec) { s.Allocations = s.Allocations[1:] },
		"no such attribute": func(s *api.IPAMBlockSpec) { s.Allocations[3] = &two },
		"negative":          func(s *api.IPAMBlockSpec) { one = -1; s.Allocations[3] = &one },
		"queued out of it":  func(s *api.IPAMBlockSpec) { s.Unallocated[0] = 4 },
		"queued twice":      func(s *api.IPAMBlockSpec) { s.Unallocated[0] = 2 },
		"queued but held":   func(s *api.IPAMBlockSpec) { s.Unallocated[0] = 0 },
	} {
		b, _ := testBlock("10.0.0.0/30").assign(0, holder{"a", nil})
		o := api.Clone(b.obj)
		spoil(&o.Spec)
		if _, err := parseBlock(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseBlockMendsQueue(t *testing.T) {
	o := testBlock("10.0.0.0/30").obj
	o.Spec.Unallocated = []int{2}
	b, err := parseBlock(o)
	if err != nil || !slices.Equal(b.obj.Spec.Unallocated, []int{2, 0, 1, 3}) {
		t.Errorf("queue %v, error %v", b.obj.Spec.Unallocated, err)
	}
}

// model is the plain definition of a block: who has each address, and since when one rests.
type model struct {
	holder  []string
	resting []time.Time
	since   []int // the step of the release
	queue   []int
}

func (m *model) thaw(now time.Time, rest time.Duration) {
	var ords []int
	for ord, at := range m.resting {
		if !at.IsZero() && now.Sub(at) >= rest {
			ords = append(ords, ord)
		}
	}
	slices.SortFunc(ords, func(x, y int) int { return m.since[x] - m.since[y] })
	for _, ord := range ords {
		m.resting[ord] = time.Time{}
		m.queue = append(m.queue, ord)
	}
}

// TestBlockAgainstModel makes random assignments and releases in a block and its model,
// and sees that earlier values of the block never change.
func TestBlockAgainstModel(t *testing.T) {
	r := rng(t)
	for range 20 {
		n := 1 << r.IntN(5)
		b := newBlock(netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 32-logOf(n)), "host:n", false, t0)
		m := &model{make([]string, n), make([]time.Time, n), make([]int, n), make([]int, n)}
		for i := range n {
			m.queue[i] = i
		}
		now := t0
		for step := range 100 {
			now = now.Add(time.Duration(r.IntN(30)) * time.Second)
			before, _ := json.Marshal(b.obj)
			next := randomStep(r, b, m, now, step)
			if after, _ := json.Marshal(b.obj); string(after) != string(before) {
				t.Fatalf("the old value has changed:\n%s\n%s", before, after)
			}
			b = roundTrip(t, next)
			compare(t, b, m)
		}
	}
}

func logOf(n int) int {
	bits := 0
	for ; n > 1; n /= 2 {
		bits++
	}
	return bits
}

func randomStep(r *rand.Rand, b block, m *model, now time.Time, step int) block {
	const rest = time.Minute
	b = b.thaw(now, rest)
	m.thaw(now, rest)
	if ord, ok := b.next(); ok && r.IntN(2) == 0 {
		h := fmt.Sprint("h", step)
		b, _ = b.assign(ord, holder{h, map[string]string{"step": h}})
		m.holder[m.queue[0]], m.queue = h, m.queue[1:]
		return b
	}
	ord := r.IntN(len(m.holder))
	switch {
	case m.holder[ord] != "":
		m.holder[ord], m.resting[ord], m.since[ord] = "", seconds(now).Time, step
		return b.release(b.held(b.handleOf(ord)), now, rest)
	case !m.resting[ord].IsZero() && r.IntN(4) == 0:
		h := fmt.Sprint("h", step)
		m.holder[ord], m.resting[ord] = h, time.Time{}
		b, _ = b.assign(ord, holder{h, nil})
	}
	return b
}

func roundTrip(t *testing.T, b block) block {
	t.Helper()
	b, err := parseBlock(api.Clone(b.obj))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.obj.Validate(); err != nil {
		t.Fatal(err)
	}
	return b
}

func compare(t *testing.T, b block, m *model) {
	t.Helper()
	for ord := range m.holder {
		if b.handleOf(ord) != m.holder[ord] {
			t.Fatalf("address %d is held by %q, want %q", ord, b.handleOf(ord), m.holder[ord])
		}
		if b.live(ord) != (m.holder[ord] != "") {
			t.Fatalf("address %d: live is %v", ord, b.live(ord))
		}
	}
	if !slices.Equal(b.obj.Spec.Unallocated, m.queue) {
		t.Fatalf("queue %v, want %v", b.obj.Spec.Unallocated, m.queue)
	}
	refs := map[int]bool{}
	for _, i := range b.obj.Spec.Allocations {
		if i != nil {
			refs[*i] = true
		}
	}
	if len(refs) != len(b.obj.Spec.Attributes) {
		t.Fatalf("%d attributes, %d are referred to", len(b.obj.Spec.Attributes), len(refs))
	}
}
