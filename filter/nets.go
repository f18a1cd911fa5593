package filter

import (
	"math/bits"
	"net/netip"
	"slices"
)

// nets is a live set of prefixes: a binary tree of what it was told, and of what of it is
// shown: a prefix is while no shorter one contains it, for kernels take no overlaps. A
// change costs as much as what it shows and hides.
type nets struct {
	root  *netNode
	shown map[Element]struct{}
}

// netNode is a prefix, or a place where longer ones part.
type netNode struct {
	prefix netip.Prefix
	told   []netip.Addr // the members that it is masked from; none: it only parts others
	child  [2]*netNode
}

// flips are what was shown and hidden, in order.
type flips struct{ add, remove []Element }

func (n *nets) show(p netip.Prefix, f *flips) {
	n.shown[Element{Prefix: p}] = struct{}{}
	f.come(Element{Prefix: p})
}

func (n *nets) hide(p netip.Prefix, f *flips) {
	delete(n.shown, Element{Prefix: p})
	f.gone(Element{Prefix: p})
}

// add takes in a member. Several may be one prefix when masked.
func (n *nets) add(m netip.Prefix, f *flips) {
	p, covered := m.Masked(), false
	at := &n.root
	for *at != nil && (*at).prefix != p {
		node := *at
		common := commonBits(node.prefix, p)
		if common < node.prefix.Bits() {
			*at = &netNode{prefix: outer(p, common)}
			(*at).child[bit(node.prefix, common)] = node
			continue // it is p, or parts it from node
		}
		covered = covered || len(node.told) > 0
		at = &node.child[bit(p, common)]
	}
	if *at == nil {
		*at = &netNode{prefix: p}
	}
	node := *at
	if slices.Contains(node.told, m.Addr()) {
		return
	}
	if node.told = append(node.told, m.Addr()); len(node.told) > 1 || covered {
		return
	}
	node.inner(func(q netip.Prefix) { n.hide(q, f) })
	n.show(p, f)
}

// remove takes a member out again, if it is there.
func (n *nets) remove(m netip.Prefix, f *flips) {
	p, covered := m.Masked(), false
	at, up := &n.root, (**netNode)(nil)
	for *at != nil && (*at).prefix != p {
		node := *at
		if commonBits(node.prefix, p) < node.prefix.Bits() || node.prefix.Bits() >= p.Bits() {
			return
		}
		covered = covered || len(node.told) > 0
		at, up = &node.child[bit(p, node.prefix.Bits())], at
	}
	node := *at
	if node == nil || !slices.Contains(node.told, m.Addr()) {
		return
	}
	node.told = slices.DeleteFunc(node.told, func(a netip.Addr) bool { return a == m.Addr() })
	if len(node.told) > 0 {
		return
	}
	if !covered {
		n.hide(p, f)
		node.inner(func(q netip.Prefix) { n.show(q, f) })
	}
	prune(at)
	if up != nil {
		prune(up)
	}
}

// prune takes a node out of the tree that stands for no prefix and parts none.
func prune(at **netNode) {
	node := *at
	switch {
	case len(node.told) > 0 || node.child[0] != nil && node.child[1] != nil:
	case node.child[0] != nil:
		*at = node.child[0]
	default:
		*at = node.child[1]
	}
}

// inner calls f with the prefixes inside n of which no other one inside n contains another.
func (n *netNode) inner(f func(netip.Prefix)) {
	for _, c := range n.child {
		switch {
		case c == nil:
		case len(c.told) > 0:
			f(c.prefix)
		default:
			c.inner(f)
		}
	}
}

func (n *nets) empty() bool { return n.root == nil }

// commonBits is the length of the longest prefix that contains both, which are of one family.
func commonBits(p, q netip.Prefix) int {
	shorter := min(p.Bits(), q.Bits())
	skip := 128 - p.Addr().BitLen()
	a, b := p.Addr().As16(), q.Addr().As16()
	for i := skip / 8; i < 16; i++ {
		if x := a[i] ^ b[i]; x != 0 {
			return min(shorter, 8*i+bits.LeadingZeros8(x)-skip)
		}
	}
	return shorter
}

// bit is the value of the prefix's bit i.
func bit(p netip.Prefix, i int) int {
	i += 128 - p.Addr().BitLen()
	a := p.Addr().As16()
	return int(a[i/8]>>(7-i%8)) & 1
}

// outer returns the prefix of that length, which is not longer, that contains p.
func outer(p netip.Prefix, bits int) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}
