package labelindex

import (
	"slices"

	"github.com/calicogo/calico/selector"
)

// An entry is a selector in the index, and where it is filed.
type entry[S, I comparable] struct {
	id    S
	sel   *selector.Selector
	files []file[S, I]
	mark  uint64 // set by a pass over entries to one of its own, see Index.mark
}

// A file is a place where a selector is filed: under a value, under a label's
// presence if value is nil, and if label is nil too among the free ones.
type file[S, I comparable] struct {
	label *label[S, I]
	value *value[S, I]
	pos   int
}

// reseat implements seated.
func (e *entry[S, I]) reseat(slot, pos int) { e.files[slot].pos = pos }

func (x *Index[S, I]) roster(f *file[S, I]) *roster[*entry[S, I]] {
	switch {
	case f.value != nil:
		return &f.value.selectors
	case f.label != nil:
		return &f.label.selectors
	}
	return &x.free
}

// file files the entry under what its selector requires.
func (x *Index[S, I]) file(e *entry[S, I]) {
	required, known := e.sel.RequiresOneOf(x.fileCost)
	if !known {
		e.files = []file[S, I]{{}}
	}
	for _, r := range required {
		f := file[S, I]{label: x.label(r.Label)}
		if !r.Any {
			f.value = f.label.value(r.Value)
		}
		e.files = append(e.files, f)
	}
	for i := range e.files {
		e.files[i].pos = x.roster(&e.files[i]).join(e, i)
	}
}

func (x *Index[S, I]) unfile(e *entry[S, I]) {
	for i := range e.files {
		f := &e.files[i]
		x.roster(f).leave(f.pos)
		if f.label != nil {
			x.release(f.label, f.value)
		}
	}
	e.files = nil
}

// fileCost grows with the work that a selector filed there adds to changes of
// items and, while items are unknown, with how many are filed there already.
func (x *Index[S, I]) fileCost(r selector.Requirement) int {
	classes, selectors := x.count(r)
	return (classes + 1) * (selectors + 1)
}

// scanCost is the number of classes that meet the requirement.
func (x *Index[S, I]) scanCost(r selector.Requirement) int {
	classes, _ := x.count(r)
	return classes
}

func (x *Index[S, I]) count(r selector.Requirement) (classes, selectors int) {
	l := x.labels[r.Label]
	if l == nil {
		return 0, 0
	}
	if r.Any {
		return l.classes, len(l.selectors)
	}
	v := l.values.get(r.Value)
	if v == nil {
		return 0, 0
	}
	return len(v.classes), len(v.selectors)
}

// change gives an entry another selector, nil when it is removed.
func (x *Index[S, I]) change(e *entry[S, I], sel *selector.Selector) {
	old := e.sel
	if old != nil {
		x.unfile(e)
		for _, c := range x.candidates(old) {
			if x.confirm(old, c) && (sel == nil || !x.evaluate(sel, c)) {
				c.drop(e)
				x.reportAll(e, c, false)
			}
		}
	}
	e.sel = sel
	if sel == nil {
		return
	}
	x.file(e)
	for _, c := range x.candidates(sel) {
		if x.confirm(sel, c) && (old == nil || !x.evaluate(old, c)) {
			c.matches = append(c.matches, e)
			x.reportAll(e, c, true)
		}
	}
}

// drop takes the entry off the class's matches.
func (c *class[S, I]) drop(e *entry[S, I]) {
	i, last := slices.Index(c.matches, e), len(c.matches)-1
	c.matches[i] = c.matches[last]
	c.matches[last] = nil
	c.matches = c.matches[:last]
}

// reportAll reports the entry with each member of the class.
func (x *Index[S, I]) reportAll(e *entry[S, I], c *class[S, I], matched bool) {
	for _, item := range c.members {
		x.report(e.id, item, matched)
	}
}

// matchesOf evaluates the class against the selectors filed under its labels.
func (x *Index[S, I]) matchesOf(c *class[S, I]) []*entry[S, I] {
	x.mark++
	x.matches = x.matches[:0]
	for _, s := range c.slots {
		x.match(c, s.value.selectors)
		x.match(c, s.value.label.selectors)
	}
	x.match(c, x.free)
	return slices.Clone(x.matches)
}

func (x *Index[S, I]) match(c *class[S, I], filed roster[*entry[S, I]]) {
	for _, s := range filed {
		e := s.who
		if e.mark == x.mark {
			continue // seen under another label
		}
		e.mark = x.mark
		if x.confirm(e.sel, c) {
			x.matches = append(x.matches, e)
		}
	}
}

// candidates lists the classes that meet what the selector requires, each once.
func (x *Index[S, I]) candidates(sel *selector.Selector) []*class[S, I] {
	required, known := sel.RequiresOneOf(x.scanCost)
	list := make([]*class[S, I], 0, 8)
	if !known {
		for _, c := range x.classes {
			for ; c != nil; c = c.next {
				list = append(list, c)
			}
		}
		return list
	}
	x.mark++
	add := func(v *value[S, I]) {
		for _, s := range v.classes {
			if s.who.mark != x.mark {
				s.who.mark = x.mark
				list = append(list, s.who)
			}
		}
	}
	for _, r := range required {
		l := x.labels[r.Label]
		switch {
		case l == nil:
		case r.Any:
			for v := range l.values.all() {
				add(v)
			}
		default:
			if v := l.values.get(r.Value); v != nil {
				add(v)
			}
		}
	}
	return list
}
