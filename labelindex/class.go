package labelindex

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
)

// A class is the items that have the same labels of their own and the same
// parents, hence always the same labels and matches. It implements
// selector.Labels.
type class[S, I comparable] struct {
	slots   []slot[S, I] // own and inherited labels, sorted by name
	parents []parentSlot[S, I]
	members []I
	matches []*entry[S, I]

	hash uint64
	next *class[S, I] // another class of the same hash
	mark uint64       // see Index.candidates
}

// A slot is one label of a class, and its seat at that label's value.
type slot[S, I comparable] struct {
	value *value[S, I]
	pos   int32
	own   bool
}

type parentSlot[S, I comparable] struct {
	parent *parent[S, I]
	pos    int
}

// Get implements selector.Labels.
func (c *class[S, I]) Get(name string) (string, bool) {
	i, ok := slices.BinarySearchFunc(c.slots, name, func(s slot[S, I], name string) int {
		return strings.Compare(s.value.name, name)
	})
	if !ok {
		return "", false
	}
	return c.slots[i].value.text, true
}

// reseat implements seated: parents have the negative slots.
func (c *class[S, I]) reseat(slot, pos int) {
	if slot < 0 {
		c.parents[^slot].pos = pos
	} else {
		c.slots[slot].pos = int32(pos)
	}
}

// class returns the class of the labels and parents, new if need be.
func (x *Index[S, I]) class(labels map[string]string, parents []string) *class[S, I] {
	h := x.hash(labels, parents)
	for c := x.classes[h]; c != nil; c = c.next {
		if c.is(labels, parents) {
			return c
		}
	}
	c := &class[S, I]{hash: h, next: x.classes[h]}
	x.classes[h] = c
	x.stats.Classes++
	for i, name := range parents {
		p := x.parent(name)
		c.parents = append(c.parents, parentSlot[S, I]{p, p.classes.join(c, ^i)})
	}
	x.pairs = x.pairs[:0]
	for name, text := range labels {
		x.pairs = append(x.pairs, pair{name: name, text: text, own: true})
	}
	x.fill(c)
	c.matches = x.matchesOf(c)
	return c
}

// hash does not depend on the order of the labels, but on that of the parents.
func (x *Index[S, I]) hash(labels map[string]string, parents []string) uint64 {
	const odd = 0x9e3779b97f4a7c15
	var h uint64
	for name, text := range labels {
		h += (maphash.String(x.seed, name) ^ bits.RotateLeft64(maphash.String(x.seed, text), 29)) * odd
	}
	for _, p := range parents {
		h = (bits.RotateLeft64(h, 5) ^ maphash.String(x.seed, p)) * odd
	}
	return h & x.hashMask
}

// is tells whether the class is that of the labels and parents.
func (c *class[S, I]) is(labels map[string]string, parents []string) bool {
	own := 0
	for _, s := range c.slots {
		if !s.own {
			continue
		}
		own++
		if text, ok := labels[s.value.name]; !ok || text != s.value.text {
			return false
		}
	}
	return own == len(labels) && slices.EqualFunc(c.parents, parents, func(s parentSlot[S, I], name string) bool {
		return s.parent.name == name
	})
}

// leave takes the item out of its class, which ends with its last member.
func (x *Index[S, I]) leave(id I) {
	at := x.items[id]
	delete(x.items, id)
	c := at.class
	last := len(c.members) - 1
	if at.pos != last {
		moved := c.members[last]
		c.members[at.pos] = moved
		x.items[moved] = at
	}
	var zero I
	c.members[last] = zero
	c.members = c.members[:last]
	if last == 0 {
		x.end(c)
	}
}

// end takes a class out of the index. Its matches stay readable.
func (x *Index[S, I]) end(c *class[S, I]) {
	x.vacate(c.slots)
	for _, s := range c.parents {
		s.parent.classes.leave(s.pos)
		x.releaseParent(s.parent)
	}
	x.stats.Classes--
	first := x.classes[c.hash]
	if first != c {
		for first.next != c {
			first = first.next
		}
		first.next = c.next
	} else if c.next != nil {
		x.classes[c.hash] = c.next
	} else {
		delete(x.classes, c.hash)
	}
}

// inherit brings a class up to date with its parents' labels.
func (x *Index[S, I]) inherit(c *class[S, I]) {
	x.pairs = x.pairs[:0]
	for _, s := range c.slots {
		if s.own {
			x.pairs = append(x.pairs, pair{s.value.name, s.value.text, true})
		}
	}
	if !x.fill(c) {
		return
	}
	before := c.matches
	c.matches = x.matchesOf(c)
	x.diff(before, c.matches, func(e *entry[S, I], matched bool) { x.reportAll(e, c, matched) })
}

// fill gives a class the labels of its own, which are in x.pairs, and those
// that it inherits. It tells whether they differ from what it had.
func (x *Index[S, I]) fill(c *class[S, I]) (changed bool) {
	for _, s := range c.parents {
		x.pairs = append(x.pairs, s.parent.labels...)
	}
	// The first pair of a name wins: own labels come first, then parents in order.
	slices.SortStableFunc(x.pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	x.pairs = slices.CompactFunc(x.pairs, func(a, b pair) bool { return a.name == b.name })
	if slices.EqualFunc(c.slots, x.pairs, func(s slot[S, I], p pair) bool {
		return s.value.name == p.name && s.value.text == p.text
	}) {
		return false
	}
	old := c.slots
	c.slots = make([]slot[S, I], len(x.pairs))
	for i, p := range x.pairs {
		v := x.label(p.name).value(p.text)
		v.label.classes++
		c.slots[i] = slot[S, I]{v, int32(v.classes.join(c, i)), p.own}
	}
	x.vacate(old)
	return true
}

// vacate gives up the seats of the slots.
func (x *Index[S, I]) vacate(slots []slot[S, I]) {
	for _, s := range slots {
		s.value.classes.leave(int(s.pos))
		s.value.label.classes--
		x.release(s.value.label, s.value)
	}
}
