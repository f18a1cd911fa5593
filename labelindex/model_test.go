package labelindex

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/selector"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")

// A model is the plain definition: every selector against every item.
type model struct {
	items     map[int]modelItem
	parents   map[string]map[string]string
	selectors map[string]*selector.Selector
}

type modelItem struct {
	labels  map[string]string
	parents []string
}

type match struct {
	sel  string
	item int
}

func (m *model) effective(i modelItem) selector.Map {
	all := selector.Map{}
	for _, p := range slices.Backward(i.parents) {
		maps.Copy(all, m.parents[p])
	}
	maps.Copy(all, i.labels)
	return all
}

func (m *model) matches() map[match]bool {
	all := map[match]bool{}
	for id, i := range m.items {
		labels := m.effective(i)
		for sel, s := range m.selectors {
			if s.Matches(labels) {
				all[match{sel, id}] = true
			}
		}
	}
	return all
}

// A rig runs a model and an index side by side.
type rig struct {
	t     *testing.T
	model model
	index *Index[string, int]
	now   map[match]bool // the sum of what the index reported
	seen  map[match]bool // reported in the present step
}

func newRig(t *testing.T) *rig {
	r := &rig{
		t:     t,
		model: model{map[int]modelItem{}, map[string]map[string]string{}, map[string]*selector.Selector{}},
		now:   map[match]bool{},
		seen:  map[match]bool{},
	}
	r.index = New(func(sel string, item int, matched bool) {
		m := match{sel, item}
		if r.seen[m] {
			t.Errorf("%v reported twice in one step", m)
		}
		r.seen[m] = true
		if r.now[m] == matched {
			t.Errorf("%v reported as %v, which it was", m, matched)
		}
		if matched {
			r.now[m] = true
		} else {
			delete(r.now, m)
		}
	})
	return r
}

func (r *rig) setItem(id int, labels map[string]string, parents ...string) {
	r.model.items[id] = modelItem{maps.Clone(labels), slices.Clone(parents)}
	r.index.SetItem(id, labels, parents)
	clear(labels) // the index must have copied them
	clear(parents)
}

func (r *rig) deleteItem(id int) {
	delete(r.model.items, id)
	r.index.DeleteItem(id)
}

func (r *rig) setParent(name string, labels map[string]string) {
	r.model.parents[name] = maps.Clone(labels)
	r.index.SetParent(name, labels)
	clear(labels)
}

func (r *rig) deleteParent(name string) {
	delete(r.model.parents, name)
	r.index.DeleteParent(name)
}

func (r *rig) addSelector(id, text string) {
	s := selector.MustParse(text)
	r.model.selectors[id] = s
	r.index.AddSelector(id, s)
}

func (r *rig) removeSelector(id string) {
	delete(r.model.selectors, id)
	r.index.RemoveSelector(id)
}

// check holds the index against the model after the step that what describes.
func (r *rig) check(what string) {
	r.t.Helper()
	want := r.model.matches()
	if !maps.Equal(r.now, want) {
		r.t.Fatalf("after %s: matches %v, want %v", what, r.now, want)
	}
	listed := map[match]bool{}
	for sel := range r.model.selectors {
		for item := range r.index.Items(sel) {
			listed[match{sel, item}] = true
		}
	}
	if !maps.Equal(listed, want) {
		r.t.Fatalf("after %s: Items lists %v, want %v", what, listed, want)
	}
	clear(listed)
	for item := range r.model.items {
		for sel := range r.index.Selectors(item) {
			listed[match{sel, item}] = true
		}
	}
	if !maps.Equal(listed, want) {
		r.t.Fatalf("after %s: Selectors lists %v, want %v", what, listed, want)
	}
	if s := r.index.Stats(); s.Items != len(r.model.items) || s.Selectors != len(r.model.selectors) || s.Classes > s.Items {
		r.t.Fatalf("after %s: %+v with %d items and %d selectors", what, s, len(r.model.items), len(r.model.selectors))
	}
	r.checkSeats(what)
	clear(r.seen)
}

// checkSeats checks that everybody sits where they think they do, and the counts.
func (r *rig) checkSeats(what string) {
	r.t.Helper()
	for _, l := range r.index.labels {
		sum := 0
		for v := range l.values.all() {
			sum += len(v.classes)
			for pos, s := range v.classes {
				if at := s.who.slots[s.slot]; at.value != v || int(at.pos) != pos {
					r.t.Fatalf("after %s: a class of %s=%s is astray", what, v.name, v.text)
				}
			}
		}
		if sum != l.classes {
			r.t.Fatalf("after %s: label %s counts %d classes, has %d", what, l.name, l.classes, sum)
		}
	}
	for _, e := range r.index.selectors {
		for i := range e.files {
			if f := &e.files[i]; (*r.index.roster(f))[f.pos] != (seat[*entry[string, int]]{e, i}) {
				r.t.Fatalf("after %s: selector %s is astray", what, e.sel)
			}
		}
	}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomLabels(r *rand.Rand) map[string]string {
	m := map[string]string{}
	for _, l := range []string{"a", "b", "c"} {
		if r.IntN(2) == 0 {
			m[l] = pick(r, "", "1", "2", "3")
		}
	}
	return m
}

func randomParents(r *rand.Rand) []string {
	var all []string
	for range r.IntN(4) {
		all = append(all, pick(r, "p", "q", "r"))
	}
	return all
}

func randomSelector(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(2) == 0 {
		return fmt.Sprintf("%s(%s %s %s)", pick(r, "", "!"), randomSelector(r, depth-1), pick(r, "&&", "||"), randomSelector(r, depth-1))
	}
	l, v, w := pick(r, "a", "b", "c"), pick(r, "", "1", "2"), pick(r, "1", "2", "3")
	switch r.IntN(8) {
	case 0:
		return "all()"
	case 1:
		return fmt.Sprintf("%s != '%s'", l, v)
	case 2:
		return fmt.Sprintf("%s in {'%s', '%s'}", l, v, w)
	case 3:
		return fmt.Sprintf("%s not in {'%s', '%s'}", l, v, w)
	case 4:
		return fmt.Sprintf("%shas(%s)", pick(r, "", "!"), l)
	case 5:
		return fmt.Sprintf("%s starts with '%s'", l, v)
	}
	return fmt.Sprintf("%s == '%s'", l, v)
}

// step makes one random change and says which.
func (r *rig) step(rnd *rand.Rand) string {
	id, name := rnd.IntN(12), pick(rnd, "p", "q", "r")
	sel := pick(rnd, "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8")
	switch rnd.IntN(12) {
	case 0, 1, 2, 3:
		labels, parents := randomLabels(rnd), randomParents(rnd)
		what := fmt.Sprintf("SetItem(%d, %v, %v)", id, labels, parents)
		r.setItem(id, labels, parents...)
		return what
	case 4:
		i, known := r.model.items[id] // again, as it is
		if known {
			r.setItem(id, maps.Clone(i.labels), slices.Clone(i.parents)...)
			if len(r.seen) > 0 {
				r.t.Errorf("a repeated SetItem reported %v", r.seen)
			}
		}
		return "a repetition"
	case 5:
		r.deleteItem(id)
		return fmt.Sprintf("DeleteItem(%d)", id)
	case 6, 7:
		labels := randomLabels(rnd)
		what := fmt.Sprintf("SetParent(%s, %v)", name, labels)
		r.setParent(name, labels)
		return what
	case 8:
		r.deleteParent(name)
		return fmt.Sprintf("DeleteParent(%s)", name)
	case 9:
		r.removeSelector(sel)
		return fmt.Sprintf("RemoveSelector(%s)", sel)
	}
	text := randomSelector(rnd, 2)
	r.addSelector(sel, text)
	return fmt.Sprintf("AddSelector(%s, %s)", sel, text)
}

// TestRandom holds the index against the model through random changes, and
// checks that nothing of it is left when all is deleted.
func TestRandom(t *testing.T) {
	t.Logf("-seed %d", *seed)
	for round, mask := range []uint64{^uint64(0), 0, 3, ^uint64(0)} {
		rnd := rand.New(rand.NewPCG(*seed, uint64(round)))
		r := newRig(t)
		r.index.hashMask = mask
		for range 1500 {
			r.check(r.step(rnd))
		}
		r.dismantle(rnd)
	}
}

// dismantle deletes everything in random order.
func (r *rig) dismantle(rnd *rand.Rand) {
	var steps []func()
	for id := range r.model.items {
		steps = append(steps, func() { r.deleteItem(id) })
	}
	for name := range r.model.parents {
		steps = append(steps, func() { r.deleteParent(name) })
	}
	for id := range r.model.selectors {
		steps = append(steps, func() { r.removeSelector(id) })
	}
	rnd.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		step()
		r.check("a deletion")
	}
	x := r.index
	s := x.Stats()
	s.Evaluations = 0
	if s != (Stats{}) || len(x.parents)+len(x.labels)+len(x.classes)+len(x.free) > 0 {
		r.t.Errorf("left: %+v, %d parents, %d labels, %d classes, %d free", s, len(x.parents), len(x.labels), len(x.classes), len(x.free))
	}
}
