package calc

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
)

// TestMultiset holds a multiset to a map of counts, under random moves.
func TestMultiset(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	for run := range 2000 {
		var s multiset[packed4]
		held := map[packed4]int{}
		for step := range 1 + r.IntN(8) {
			before := map[packed4]int{}
			for x, n := range held {
				before[x] = n
			}
			many := pickInt(r, 12, 12, 200) // a list that is long is edited in place
			for range r.IntN(many) {
				x := packed4(r.IntN(max(10, many/2)))
				in := held[x] == 0 || r.IntN(2) == 0
				s.note(x, in)
				if held[x]--; in {
					held[x] += 2
				}
			}
			var want, got []packed4
			for x, n := range held {
				for range n {
					want = append(want, x)
				}
			}
			slices.Sort(want)
			changed := map[packed4]bool{}
			s.settle(func(x packed4, in bool) {
				if _, twice := changed[x]; twice || in != (held[x] > 0) || in == (before[x] > 0) {
					t.Fatalf("seed %d, run %d, step %d: %d is told as %v; held %d, before %d", seed, run, step, x, in, held[x], before[x])
				}
				changed[x] = in
			})
			if got = s.all; !slices.Equal(got, want) || s.moves != nil {
				t.Fatalf("seed %d, run %d, step %d: %v, want %v", seed, run, step, got, want)
			}
			for x := range packed4(100) {
				if _, told := changed[x]; told != ((held[x] > 0) != (before[x] > 0)) {
					t.Fatalf("seed %d, run %d, step %d: %d told: %v; held %d, before %d", seed, run, step, x, told, held[x], before[x])
				}
			}
		}
	}
}

func pickInt(r *rand.Rand, of ...int) int { return of[r.IntN(len(of))] }

func TestPackedMembers(t *testing.T) {
	for _, m := range []dataplane.Member{
		{Prefix: netip.MustParsePrefix("255.254.253.252/32"), Protocol: dataplane.UDPLite, Port: 65535},
		{Prefix: netip.MustParsePrefix("0.0.0.0/0")},
		{Prefix: netip.MustParsePrefix("10.1.2.3/32"), Protocol: dataplane.TCP, Port: 1},
	} {
		if got := pack4(m).member(); got != m {
			t.Errorf("%v becomes %v", m, got)
		}
	}
	for _, m := range []dataplane.Member{
		{Prefix: netip.MustParsePrefix("fd00::ffff:1/128"), Protocol: dataplane.SCTP, Port: 65535},
		{Prefix: netip.MustParsePrefix("::/0")},
		{Prefix: netip.MustParsePrefix("2001:db8::/32")},
	} {
		if got := pack6(m).member(); got != m {
			t.Errorf("%v becomes %v", m, got)
		}
	}
	less := pack6(dataplane.Member{Prefix: netip.MustParsePrefix("fd00::1/128"), Port: 1})
	more := pack6(dataplane.Member{Prefix: netip.MustParsePrefix("fd00::1/128"), Protocol: 200})
	if less.compare(more) >= 0 || more.compare(less) <= 0 || less.compare(less) != 0 {
		t.Error("members of one address are not in order")
	}
}
