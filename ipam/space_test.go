package ipam

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestUnclaimedAgainstPlainSearch compares the search for a free block, and that for
// overlaps, with looking at every block of the pool.
func TestUnclaimedAgainstPlainSearch(t *testing.T) {
	r := rng(t)
	for range 200 {
		p := pool{"p", netip.MustParsePrefix([]string{"10.0.240.0/20", "fd00::f000/116"}[r.IntN(2)]), 0}
		p.size = p.cidr.Bits() + 1 + r.IntN(6)
		var s space
		for range r.IntN(60) {
			size := p.cidr.Bits() + 1 + r.IntN(10)
			e := entry{cidr: blockAt(p.cidr, size, r.Uint64N(blockCount(p.cidr, size)))}
			if len(plainOverlaps(s, e.cidr)) == 0 {
				s = newSpace(append(s, e))
			}
		}
		free := 0
		for i := range blockCount(p.cidr, p.size) {
			cidr := blockAt(p.cidr, p.size, i)
			want := plainOverlaps(s, cidr)
			if got := s.overlapping(cidr); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("of %v these overlap %v: %v, want %v", s, cidr, got, want)
			}
			if len(want) == 0 {
				free++
			}
		}
		cidr, ok := s.unclaimed(p, fmt.Sprint("node", r.IntN(9)))
		if ok != (free > 0) || ok && len(plainOverlaps(s, cidr)) > 0 {
			t.Fatalf("unclaimed is %v, %v; %d are free", cidr, ok, free)
		}
	}
}

func plainOverlaps(s space, cidr netip.Prefix) space {
	var out space
	for _, e := range s {
		if e.cidr.Overlaps(cidr) {
			out = append(out, e)
		}
	}
	return out
}

func TestBlockAt(t *testing.T) {
	for _, tc := range []struct {
		pool string
		size int
		i    uint64
		want string
		n    uint64
	}{
		{"10.0.0.0/16", 26, 0, "10.0.0.0/26", 1024},
		{"10.0.0.0/16", 26, 1023, "10.0.255.192/26", 1024},
		{"0.0.0.0/0", 32, 1<<32 - 1, "255.255.255.255/32", 1 << 32},
		{"10.0.0.0/26", 26, 0, "10.0.0.0/26", 1},
		{"fd00::/48", 122, 1 << 60, "fd00:0:0:4::/122", 1 << 62},
		{"fd00::/64", 128, 1<<62 - 1, "fd00::3fff:ffff:ffff:ffff/128", 1 << 62},
	} {
		p := netip.MustParsePrefix(tc.pool)
		if got := blockAt(p, tc.size, tc.i); got.String() != tc.want || blockCount(p, tc.size) != tc.n {
			t.Errorf("block %d of %s is %v, want %s; count %d, want %d", tc.i, tc.pool, got, tc.want, blockCount(p, tc.size), tc.n)
		}
	}
}

func TestNodesStartInDifferentPlaces(t *testing.T) {
	p := pool{"p", netip.MustParsePrefix("10.0.0.0/16"), 26}
	seen := map[netip.Prefix]bool{}
	for i := range 50 {
		cidr, _ := space(nil).unclaimed(p, fmt.Sprint("node", i))
		seen[cidr] = true
	}
	if len(seen) < 40 {
		t.Errorf("50 nodes start in %d of 1024 places", len(seen))
	}
}
