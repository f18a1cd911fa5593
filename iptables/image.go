package iptables

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/calicogo/calico/filter"
)

// image is a program as iptables holds it: lowered chains, each in every table from which it is reached.
type image struct {
	low      *lowering
	contents map[string][]filter.Rule
	bases    map[string]*filter.Base
	trees    map[string]*tree                 // by their first chains
	placed   [tables]map[string][]filter.Rule // the contents of chains that are in a table
	refs     [tables]map[string]int           // how often these lead to one
}

// newImage returns that of a program, and what it takes to come to it from nothing.
func newImage(p *filter.Program, mask uint32) (*image, *touched, error) {
	im := &image{
		low:      newLowering(p.Family, mask),
		contents: map[string][]filter.Rule{}, bases: map[string]*filter.Base{}, trees: map[string]*tree{},
	}
	for t := range im.refs {
		im.placed[t], im.refs[t] = map[string][]filter.Rule{}, map[string]int{}
	}
	whole := &filter.Changes{Chains: p.Chains}
	t, err := im.apply(p, whole)
	return im, t, err
}

// touched are the chains that changes touch, with what they were; nil: they were not.
type touched struct {
	old [tables]map[string]*[]filter.Rule
}

func newTouched() *touched {
	t := &touched{}
	for i := range t.old {
		t.old[i] = map[string]*[]filter.Rule{}
	}
	return t
}

// note keeps what a chain was before it was first touched.
func (t *touched) note(p place, rules []filter.Rule, was bool) {
	if _, ok := t.old[p.in][p.key]; ok {
		return
	}
	t.old[p.in][p.key] = nil
	if was {
		t.old[p.in][p.key] = &rules
	}
}

// apply takes in changes that have led to p.
func (im *image) apply(p *filter.Program, c *filter.Changes) (*touched, error) {
	im.low.program = p
	clear(im.low.helpers)
	next := map[string]*[]filter.Rule{}
	for name, ch := range c.Chains {
		next[name] = nil
		if ch == nil {
			continue
		}
		rules, err := im.low.chain(name, ch)
		if err != nil {
			return nil, &filter.Refused{Object: name, Err: err}
		}
		next[name] = &rules
	}
	for _, id := range im.low.trees {
		if err := im.grow(id, c, next); err != nil {
			return nil, err
		}
	}
	for name, rules := range im.low.helpers {
		if _, ok := im.contents[name]; !ok {
			next[name] = &rules
		}
	}
	return im.replace(next, c)
}

// grow adds to next the chains of a tree that differ from what they were.
func (im *image) grow(id treeID, c *filter.Changes, next map[string]*[]filter.Rule) error {
	root := id.root()
	if !id.in(im.low.program) {
		im.prune(&treeBuilder{}, root, next)
		delete(im.trees, root)
		delete(im.low.trees, root)
		return nil
	}
	touched := id.touched(c)
	t, have := im.trees[root]
	switch {
	case !have:
		t = newTree(id, im.low.program)
		im.trees[root] = t
	case len(touched) == 0:
		return nil
	default:
		t.change(touched, im.low.program, c)
	}
	b := im.low.builder(t)
	if have {
		b.touched, b.has = touched, im.has
	}
	if err := b.build(); err != nil {
		return err
	}
	for name, rules := range b.out {
		old, had := im.contents[name]
		for _, r := range old {
			if strings.HasPrefix(r.Target, root+"-") {
				im.prune(b, r.Target, next)
			}
		}
		if !had || !reflect.DeepEqual(old, rules) {
			next[name] = &rules
		}
	}
	return nil
}

// prune has a chain of a tree go, and those below it, unless it is still in it.
func (im *image) prune(b *treeBuilder, name string, next map[string]*[]filter.Rule) {
	if _, is := b.out[name]; is || b.kept[name] || !im.has(name) {
		return
	}
	next[name] = nil
	for _, r := range im.contents[name] {
		if leads(r) && strings.HasPrefix(r.Target, name) {
			im.prune(b, r.Target, next)
		}
	}
}

// edit is what becomes of a chain, but for its rules.
func (im *image) edit(key string, had, has bool) edit {
	e := edit{name: im.chainName(key), had: had, has: has}
	for root, id := range im.low.trees {
		if key == root || strings.HasPrefix(key, root+"-") {
			e.tree, e.known = true, id.set && id.field != filter.InIfaceSrc
		}
	}
	return e
}

// replace makes contents those of next (nil: gone), and puts chains where something leads to them.
func (im *image) replace(next map[string]*[]filter.Rule, c *filter.Changes) (*touched, error) {
	var todo []place
	for key, rules := range next {
		if rules == nil {
			delete(im.contents, key)
		} else {
			im.contents[key] = *rules
			if ch := c.Chains[key]; ch != nil && ch.Base != nil {
				im.bases[key] = ch.Base
			}
		}
		for in := range tables {
			todo = append(todo, place{in, key})
		}
	}
	t := newTouched()
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		todo = append(todo, im.put(p, t)...)
	}
	im.forget(t)
	return t, im.check(t)
}

// forget drops helpers that nothing leads to any more.
func (im *image) forget(t *touched) {
	for in := range tables {
		for key := range t.old[in] {
			if isHelper(key) && !slices.ContainsFunc(im.refs[:], func(refs map[string]int) bool { return refs[key] > 0 }) {
				delete(im.contents, key)
			}
		}
	}
}

// place is a chain in a table.
type place struct {
	in  table
	key string
}

// wanted tells whether something leads to a chain in a table.
func (im *image) wanted(p place) bool {
	if b := im.bases[p.key]; b != nil {
		return tableOf(b.Table) == p.in
	}
	return im.refs[p.in][p.key] > 0
}

// put makes a chain in a table what it must be, and returns the places that this may concern.
func (im *image) put(p place, t *touched) (todo []place) {
	old, was := im.placed[p.in][p.key]
	now, is := im.contents[p.key]
	is = is && im.wanted(p)
	if !was && !is || was && is && same(old, now) {
		return nil
	}
	t.note(p, old, was)
	for _, r := range old {
		todo = im.count(todo, p.in, r, -1)
	}
	delete(im.placed[p.in], p.key)
	if is {
		im.placed[p.in][p.key] = now
		for _, r := range now {
			todo = im.count(todo, p.in, r, +1)
		}
	}
	return todo
}

// same tells whether two lists of rules are one.
func same(a, b []filter.Rule) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// count adds n to the count of what a rule leads to.
func (im *image) count(todo []place, in table, r filter.Rule, n int) []place {
	if !leads(r) {
		return todo
	}
	refs := im.refs[in]
	if refs[r.Target] += n; refs[r.Target] == 0 {
		delete(refs, r.Target)
	}
	return append(todo, place{in, r.Target})
}

// check holds that no chain leads to one that is not there, and forgets what was touched and is as it was.
func (im *image) check(t *touched) error {
	for in := range tables {
		for key, old := range t.old[in] {
			now, is := im.placed[in][key]
			if old == nil && !is || old != nil && is && reflect.DeepEqual(*old, now) {
				delete(t.old[in], key)
			}
			for _, r := range now {
				if leads(r) && !im.has(r.Target) {
					return fmt.Errorf("chain %s leads to %s, which is not there", key, r.Target)
				}
			}
		}
	}
	return nil
}

func (im *image) has(key string) bool {
	_, ok := im.contents[key]
	return ok
}

func leads(r filter.Rule) bool { return r.Verdict == filter.Jump || r.Verdict == filter.Goto }

// chainName is the kernel's name for a chain.
func (im *image) chainName(key string) string {
	if b := im.bases[key]; b != nil {
		return baseName(b.Hook)
	}
	return chainName(key)
}
