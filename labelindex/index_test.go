package labelindex

import (
	"fmt"
	"testing"

	"github.com/calicogo/calico/selector"
)

type labels = map[string]string

// TestPrecedence: an item's own label wins, then the first parent that has it.
func TestPrecedence(t *testing.T) {
	r := newRig(t)
	r.addSelector("own", "a == 'own'")
	r.addSelector("p", "a == 'p'")
	r.addSelector("q", "a == 'q'")
	r.addSelector("none", "!has(a)")
	steps := []struct {
		what string
		do   func()
		want string
	}{
		{"an item whose parents are unknown", func() { r.setItem(1, labels{}, "p", "q") }, "none"},
		{"labels of the second parent", func() { r.setParent("q", labels{"a": "q"}) }, "q"},
		{"labels of the first parent", func() { r.setParent("p", labels{"a": "p"}) }, "p"},
		{"parents in the other order", func() { r.setItem(1, labels{}, "q", "p") }, "q"},
		{"an own label", func() { r.setItem(1, labels{"a": "own"}, "q", "p") }, "own"},
		{"no own label", func() { r.setItem(1, labels{}, "q", "p") }, "q"},
		{"no first parent", func() { r.deleteParent("q") }, "p"},
		{"no parents", func() { r.deleteParent("p") }, "none"},
	}
	for _, s := range steps {
		s.do()
		r.check(s.what)
		if !r.now[match{s.want, 1}] || len(r.now) != 1 {
			t.Errorf("%s: matches %v, want %s", s.what, r.now, s.want)
		}
	}
}

// TestAbsent: deleting what is not there does nothing and leaves nothing.
func TestAbsent(t *testing.T) {
	r := newRig(t)
	r.deleteItem(1)
	r.deleteParent("p")
	r.removeSelector("s")
	r.setParent("p", nil)
	for range r.index.Items("s") {
		t.Error("an unknown selector has items")
	}
	for range r.index.Selectors(1) {
		t.Error("an unknown item has selectors")
	}
	r.check("deletions of the absent")
	r.dismantle(nil)
}

// TestLabelComesBack: a selector of a label's presence outlives the last item that has it.
func TestLabelComesBack(t *testing.T) {
	r := newRig(t)
	r.addSelector("s", "has(a)")
	r.setItem(1, labels{"a": "1"})
	r.check("the first item")
	r.deleteItem(1)
	r.check("no item")
	r.setItem(2, labels{"a": "2"})
	r.check("the label again")
	if !r.now[match{"s", 2}] {
		t.Errorf("matches %v", r.now)
	}
}

// TestReplaceSelector: what the old and the new selector match is not reported.
func TestReplaceSelector(t *testing.T) {
	r := newRig(t)
	r.setItem(1, labels{"a": "1"})
	r.setItem(2, labels{"a": "2"})
	r.setItem(3, labels{"a": "3"})
	r.addSelector("s", "a in {'1', '2'}")
	r.check("a selector")
	r.addSelector("s", "a in {'2', '3'}")
	if r.seen[match{"s", 2}] || len(r.seen) != 2 {
		t.Errorf("reported %v", r.seen)
	}
	r.check("its replacement")
	r.addSelector("s", `a in {"3","2"}`)
	if len(r.seen) != 0 {
		t.Errorf("the same selector in other words reported %v", r.seen)
	}
	r.check("a repetition")
}

// TestWork holds the number of evaluations to the candidates of a change.
func TestWork(t *testing.T) {
	const many = 1000
	x := New(func(int, int, bool) {})
	work := func(do func()) uint64 {
		before := x.Stats().Evaluations
		do()
		return x.Stats().Evaluations - before
	}
	expect := func(what string, got, most uint64) {
		t.Helper()
		if got > most {
			t.Errorf("%s: %d evaluations, want at most %d", what, got, most)
		}
	}
	// Everything is in one namespace of one orchestrator; apps tell items apart.
	for i := range many {
		x.AddSelector(i, selector.MustParse(fmt.Sprintf("orchestrator == 'k8s' && namespace == 'n' && app == 'a%d'", i)))
	}
	item := func(app, rev int) labels {
		return labels{"namespace": "n", "app": fmt.Sprintf("a%d", app), "rev": fmt.Sprint(rev)}
	}
	x.SetParent("p", labels{"orchestrator": "k8s"})
	for i := range many {
		expect("a new item", work(func() { x.SetItem(i, item(i, 0), []string{"p"}) }), 5)
	}
	expect("an item's labels", work(func() { x.SetItem(7, item(8, 1), []string{"p"}) }), 5)
	expect("an item like another", work(func() { x.SetItem(7, item(8, 0), []string{"p"}) }), 0)
	expect("a selector", work(func() {
		x.AddSelector(many, selector.MustParse("orchestrator == 'k8s' && app == 'a9' && namespace == 'n'"))
	}), 2)
	expect("its removal", work(func() { x.RemoveSelector(many) }), 2)
	expect("a selector of an absent label", work(func() { x.AddSelector(many, selector.MustParse("has(b) && all()")) }), 0)
	if n := x.Stats().Unfiled; n != 0 {
		t.Errorf("%d unfiled selectors", n)
	}
	expect("a parent's other label", work(func() { x.SetParent("p", labels{"orchestrator": "k8s", "x": "y"}) }), 5*many)
	expect("a parent's same labels", work(func() { x.SetParent("p", labels{"orchestrator": "k8s", "x": "y"}) }), 0)
}
