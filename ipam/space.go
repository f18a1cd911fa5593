package ipam

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/calicogo/calico/api"
)

// entry is what is remembered of a block of whatever node.
type entry struct {
	cidr    netip.Prefix
	owner   string
	strict  bool // only the owner may take addresses
	usable  bool // it could be read, and is not being deleted
	live    int  // addresses in use
	resting int
	free    int
	claimed time.Time
}

func entryOf(b block, now time.Time, rest time.Duration) entry {
	e := entry{cidr: b.cidr, owner: b.owner(), strict: b.obj.Spec.StrictAffinity, usable: b.usable(), claimed: b.claimed()}
	e.live, e.resting, e.free = b.counts(now, rest)
	return e
}

// vacant tells whether another node may take the block over.
func (e entry) vacant(now time.Time) bool {
	return e.usable && e.live == 0 && e.resting == 0 && now.Sub(e.claimed) >= minClaim
}

// space is an index of all blocks, ordered by address.
type space []entry

// newSpace makes the index of the given entries.
func newSpace(entries []entry) space {
	s := space(entries)
	slices.SortFunc(s, func(x, y entry) int { return comparePrefixes(x.cidr, y.cidr) })
	return s
}

func comparePrefixes(x, y netip.Prefix) int {
	if c := x.Addr().Compare(y.Addr()); c != 0 {
		return c
	}
	return x.Bits() - y.Bits()
}

// overlapping returns the blocks that share an address with cidr.
func (s space) overlapping(cidr netip.Prefix) space {
	// Stored blocks of other writers might overlap one another, so the block before
	// the first that starts in cidr need not be the only one that reaches into it.
	i, _ := slices.BinarySearchFunc(s, cidr, func(e entry, p netip.Prefix) int { return e.cidr.Addr().Compare(p.Addr()) })
	j := i
	for j < len(s) && cidr.Contains(s[j].cidr.Addr()) {
		j++
	}
	var covering space
	for bits := cidr.Addr().BitLen() - maxHostBits; bits < cidr.Bits(); bits++ {
		if e, ok := s.find(netip.PrefixFrom(cidr.Addr(), bits).Masked()); ok && e.cidr.Addr() != cidr.Addr() {
			covering = append(covering, e)
		}
	}
	return append(covering, s[i:j]...)
}

// find returns the block with exactly this CIDR.
func (s space) find(cidr netip.Prefix) (entry, bool) {
	i, ok := slices.BinarySearchFunc(s, cidr, func(e entry, p netip.Prefix) int { return comparePrefixes(e.cidr, p) })
	if !ok {
		return entry{}, false
	}
	return s[i], true
}

// without returns the index less one block.
func (s space) without(cidr netip.Prefix) space {
	return slices.DeleteFunc(s, func(e entry) bool { return e.cidr == cidr })
}

// containing returns the block that a is in.
func (s space) containing(a netip.Addr) (entry, bool) {
	for _, e := range s.overlapping(netip.PrefixFrom(a, a.BitLen())) {
		return e, true
	}
	return entry{}, false
}

// unclaimed returns the first block of p, of those that no block overlaps, counted from
// a place that the node's name determines: nodes that look at the same time look in
// different places.
func (s space) unclaimed(p pool, node string) (netip.Prefix, bool) {
	n := blockCount(p.cidr, p.size)
	start := seed(node)
	for i := range n {
		cidr := blockAt(p.cidr, p.size, (start+i)%n)
		if len(s.overlapping(cidr)) == 0 {
			return cidr, true
		}
	}
	return netip.Prefix{}, false
}

// vacant returns a block of p that its owner, another node, has left empty.
func (s space) vacant(p pool, owner string, now time.Time) (netip.Prefix, bool) {
	for _, e := range s {
		if p.holds(e.cidr) && e.owner != owner && e.vacant(now) && len(s.overlapping(e.cidr)) == 1 {
			return e.cidr, true
		}
	}
	return netip.Prefix{}, false
}

// use counts what the blocks of p hold.
func (s space) use(p pool) PoolUse {
	u := PoolUse{Name: p.name, CIDR: p.cidr.String()}
	for _, e := range s {
		if p.holds(e.cidr) {
			u.Blocks++
			u.Addresses += capacity(e.cidr)
			u.InUse += e.live
		}
	}
	return u
}

func seed(node string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node)) // never fails
	return h.Sum64()
}

// index reads blocks: those that can be used, and the index of all. One that cannot be
// read still keeps others from its addresses.
func index(objs []api.Object, now time.Time, rest time.Duration) (map[netip.Prefix]block, space) {
	blocks := map[netip.Prefix]block{}
	var entries []entry
	for _, o := range objs {
		ob, ok := o.(*api.IPAMBlock)
		if !ok {
			continue
		}
		b, err := parseBlock(ob)
		if err == nil {
			blocks[b.cidr] = b
			entries = append(entries, entryOf(b, now, rest))
		} else if p, err := netip.ParsePrefix(ob.Spec.CIDR); err == nil {
			entries = append(entries, entry{cidr: p.Masked()})
		}
	}
	return blocks, newSpace(entries)
}
