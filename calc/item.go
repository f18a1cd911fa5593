package calc

import (
	"iter"

	"github.com/calicogo/calico/api"
)

// item is an endpoint or network set in the index of members. There are as many as the
// cluster has pods, so it is small, and the index goes by its address.
type item struct {
	local *local // of an item that is a local endpoint; the rest is of stored ones
	now   member
	held  int32 // how many local endpoints stand in for the stored one
	dirty bool
}

// asMember is what the index of members should know of the item.
func (i *item) asMember() member {
	switch {
	case i.local != nil:
		return i.local.member
	case i.held > 0:
		return member{}
	}
	return i.now
}

// itemTable holds the stored WorkloadEndpoints, or network sets.
type itemTable[K comparable] struct {
	rows  map[K]*item
	dirty changeList[K]
}

// itemChange is an item that was touched, and what it was when it was settled.
type itemChange[K comparable] struct {
	key K
	*item
	was *member // nil: none
}

// changeList is a list of changes in parts that grow, and are not copied as it grows: that of a
// snapshot is long.
type changeList[K comparable] [][]itemChange[K]

func (l *changeList[K]) add(c itemChange[K]) {
	n := len(*l)
	if n == 0 || len((*l)[n-1]) == cap((*l)[n-1]) {
		*l = append(*l, make([]itemChange[K], 0, 1<<min(n, 10)))
		n++
	}
	(*l)[n-1] = append((*l)[n-1], c)
}

// all are the changes, in the order in which they came.
func (l changeList[K]) all() iter.Seq[itemChange[K]] {
	return func(yield func(itemChange[K]) bool) {
		for _, part := range l {
			for _, c := range part {
				if !yield(c) {
					return
				}
			}
		}
	}
}

func newItemTable[K comparable]() itemTable[K] { return itemTable[K]{rows: map[K]*item{}} }

// touch makes the next settling look at k. It is called before the item changes.
func (t *itemTable[K]) touch(k K) *item {
	i := t.rows[k]
	if i == nil {
		i = &item{}
		t.rows[k] = i
	}
	if i.dirty {
		return i
	}
	i.dirty = true
	c := itemChange[K]{key: k, item: i}
	if was := i.asMember(); !was.none() {
		c.was = new(was)
	}
	t.dirty.add(c)
	return i
}

// storedEndpoint is the stored WorkloadEndpoint of the key; nil if there is none.
func (g *Graph) storedEndpoint(k wepKey) *api.WorkloadEndpoint {
	if i := g.weps.rows[k]; i != nil {
		return i.now.wep
	}
	return nil
}

// settle tells the index of members of what was touched.
func settle[K comparable](g *Graph, t *itemTable[K]) {
	for d := range t.dirty.all() {
		was := member{}
		if d.was != nil {
			was = *d.was
		}
		g.move(d.item, was, d.asMember())
		if d.dirty = false; d.now.none() && d.held == 0 {
			delete(t.rows, d.key)
		}
	}
	t.dirty = nil
}

// settleMembers tells the index of members of stored endpoints and network sets.
func (g *Graph) settleMembers() {
	settle(g, &g.weps)
	settle(g, &g.netsets)
}

// move tells the index of members that an item, which is up to date, was one thing and is
// another.
func (g *Graph) move(i *item, was, is member) {
	e := &g.endpoints
	switch {
	case was.none() && is.none():
	case was.none():
		e.members.SetItem(i, e.labels(is), is.profiles())
	case is.none():
		e.leaving = was
		e.members.DeleteItem(i)
		e.leaving = member{}
	default:
		if g.v6 != g.wasV6 || !was.sameAddrs(is) {
			g.exchange(i, was, is)
		}
		if !was.sameLabels(is) {
			e.members.SetItem(i, e.labels(is), is.profiles())
		}
	}
}

// exchange gives the sets that the item is in other addresses and ports of it. Of a list of
// many nets that is as much as differs, not the list.
func (g *Graph) exchange(i *item, was, is member) {
	less, more := was, is
	if g.v6 == g.wasV6 {
		less.nets, more.nets = differing(was.nets, is.nets)
	}
	samePorts := was.samePorts(is)
	for s := range g.endpoints.members.Selectors(i) {
		if s.port == "" || samePorts {
			g.putMember(s, less, g.wasV6, false)
			g.putMember(s, more, g.v6, true)
		} else {
			g.putMember(s, was, g.wasV6, false)
			g.putMember(s, is, g.v6, true)
		}
	}
}

// belongs hears that an item came into a set or left it.
func (g *Graph) belongs(s *liveSet, i *item, in bool) {
	if m := g.endpoints.leaving; !m.none() {
		g.putMember(s, m, g.wasV6, false)
	} else {
		g.putMember(s, i.asMember(), g.v6, in)
	}
}

// putMember puts what m adds to the set into it, or takes it out.
func (g *Graph) putMember(s *liveSet, m member, v6, in bool) {
	if s.uses == 0 {
		return // going out of use
	}
	g.rules.touchSet(s)
	if n := len(m.nets.lists().v4); in && n > 1 && s.port == "" {
		s.v4.expect(n)
	}
	m.each(&s.set, v6, func(x packed4) { s.v4.note(x, in) }, func(x packed6) { s.v6.note(x, in) })
}

// labels are the member's own, in a map that the next call fills again.
func (e *endpointTables) labels(m member) map[string]string {
	clear(e.scratch)
	m.ownLabels(e.scratch)
	return e.scratch
}
