package labelindex

import (
	"hash/maphash"
	"iter"

	"github.com/calicogo/calico/selector"
)

// An Index matches selectors, known by ids of type S, against items, known by
// ids of type I.
type Index[S, I comparable] struct {
	report func(sel S, item I, matched bool)

	items     map[I]place[S, I]
	selectors map[S]*entry[S, I]
	parents   map[string]*parent[S, I]
	labels    map[string]*label[S, I]
	classes   map[uint64]*class[S, I] // by hash; more in class.next
	free      roster[*entry[S, I]]    // the selectors that require no label

	seed     maphash.Seed
	hashMask uint64 // tests narrow the hash to have collisions
	mark     uint64 // last mark given out, see entry.mark
	stats    Stats

	pairs   []pair // scratch
	matches []*entry[S, I]
}

// A place is where an item is.
type place[S, I comparable] struct {
	class *class[S, I]
	pos   int // in class.members
}

// New returns an empty index. It calls report for each pair of selector and
// item that starts (matched) or stops (not matched) to match. report must not
// call the index.
func New[S, I comparable](report func(sel S, item I, matched bool)) *Index[S, I] {
	return &Index[S, I]{
		report:    report,
		items:     map[I]place[S, I]{},
		selectors: map[S]*entry[S, I]{},
		parents:   map[string]*parent[S, I]{},
		labels:    map[string]*label[S, I]{},
		classes:   map[uint64]*class[S, I]{},
		seed:      maphash.MakeSeed(),
		hashMask:  ^uint64(0),
	}
}

// SetItem adds the item or replaces its labels and parents. Parents need not
// be known; one that is not has no labels. The index keeps neither the map nor
// the slice.
func (x *Index[S, I]) SetItem(id I, labels map[string]string, parents []string) {
	old := x.items[id].class
	c := x.class(labels, parents)
	if c == old {
		return
	}
	var before []*entry[S, I]
	if old != nil {
		before = old.matches
		x.leave(id)
	}
	x.items[id] = place[S, I]{c, len(c.members)}
	c.members = append(c.members, id)
	x.diff(before, c.matches, func(e *entry[S, I], matched bool) { x.report(e.id, id, matched) })
}

// DeleteItem removes the item; it matches nothing any more. Deleting an absent
// item does nothing.
func (x *Index[S, I]) DeleteItem(id I) {
	c := x.items[id].class
	if c == nil {
		return
	}
	x.leave(id)
	for _, e := range c.matches {
		x.report(e.id, id, false)
	}
}

// SetParent gives a parent its labels, which replace those it had. The index
// does not keep the map.
func (x *Index[S, I]) SetParent(name string, labels map[string]string) {
	p := x.parent(name)
	if p.set(labels) {
		for _, s := range p.classes {
			x.inherit(s.who)
		}
	}
	x.releaseParent(p)
}

// DeleteParent takes a parent's labels away. Items that name it go on naming it.
func (x *Index[S, I]) DeleteParent(name string) { x.SetParent(name, nil) }

// AddSelector adds the selector, or replaces the one that has the id; what both
// match goes on matching and is not reported.
func (x *Index[S, I]) AddSelector(id S, sel *selector.Selector) {
	e := x.selectors[id]
	if e == nil {
		e = &entry[S, I]{id: id}
		x.selectors[id] = e
	} else if e.sel.String() == sel.String() {
		return
	}
	x.change(e, sel)
}

// RemoveSelector removes the selector; it matches nothing any more. Removing an
// absent one does nothing.
func (x *Index[S, I]) RemoveSelector(id S) {
	if e := x.selectors[id]; e != nil {
		x.change(e, nil)
		delete(x.selectors, id)
	}
}

// Selectors lists the selectors that match the item, in no particular order.
// The index must not change meanwhile.
func (x *Index[S, I]) Selectors(item I) iter.Seq[S] {
	return func(yield func(S) bool) {
		c := x.items[item].class
		if c == nil {
			return
		}
		for _, e := range c.matches {
			if !yield(e.id) {
				return
			}
		}
	}
}

// Items lists the items that the selector matches, in no particular order. The
// index must not change meanwhile.
func (x *Index[S, I]) Items(sel S) iter.Seq[I] {
	return func(yield func(I) bool) {
		e := x.selectors[sel]
		if e == nil {
			return
		}
		for _, c := range x.candidates(e.sel) {
			if !x.confirm(e.sel, c) {
				continue
			}
			for _, item := range c.members {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// Stats counts what an index holds and has done.
type Stats struct {
	Items       int
	Classes     int // groups of items with the same labels and parents
	Selectors   int
	Unfiled     int    // selectors that are held against every class
	Evaluations uint64 // of a selector against a class, since New
}

// Stats returns the present counts.
func (x *Index[S, I]) Stats() Stats {
	s := x.stats
	s.Items, s.Selectors, s.Unfiled = len(x.items), len(x.selectors), len(x.free)
	return s
}

// confirm is evaluate for a class that has what the selector requires.
func (x *Index[S, I]) confirm(sel *selector.Selector, c *class[S, I]) bool {
	return sel.RequiresNoMore() || x.evaluate(sel, c)
}

func (x *Index[S, I]) evaluate(sel *selector.Selector, c *class[S, I]) bool {
	x.stats.Evaluations++
	return sel.Matches(c)
}

// diff calls f for each selector that is in one of the lists only, first for
// those that were matched before and then for those that are now.
func (x *Index[S, I]) diff(before, now []*entry[S, I], f func(e *entry[S, I], matched bool)) {
	x.mark += 2
	fresh, kept := x.mark-1, x.mark
	for _, e := range now {
		e.mark = fresh
	}
	for _, e := range before {
		if e.mark == fresh {
			e.mark = kept
		} else {
			f(e, false)
		}
	}
	for _, e := range now {
		if e.mark == fresh {
			f(e, true)
		}
	}
}
