package selector

import (
	"slices"
	"strings"
)

// The constructors below take names and values as they are, without a detour
// through text. A name or a value that the language cannot write (an empty
// name, one with other characters, a value with both kinds of quote) is one
// that no valid label has: Equal, In and Has of it match nothing, NotEqual and
// NotIn match everything. So no selector, whoever chose its values, prints as
// something else than it is.

// All returns all().
func All() *Selector { return &Selector{root: node{op: opAll}} }

// Has returns has(label).
func Has(label string) *Selector {
	if !writable(label, "") {
		return Not(All())
	}
	return &Selector{root: node{op: opHas, label: label}}
}

// Equal returns label == "value".
func Equal(label, value string) *Selector {
	if !writable(label, value) {
		return Not(All())
	}
	return &Selector{root: node{op: opEqual, label: label, value: value}}
}

// NotEqual returns label != "value", which is true also where label is absent.
func NotEqual(label, value string) *Selector {
	if !writable(label, value) {
		return All()
	}
	return &Selector{root: node{op: opNotEqual, label: label, value: value}}
}

// In returns label in {"…", …}. With no values it matches nothing.
func In(label string, values ...string) *Selector {
	if !writable(label, "") {
		return Not(All())
	}
	return &Selector{root: node{op: opIn, label: label, set: writableSet(label, values)}}
}

// NotIn returns label not in {"…", …}, which is true also where label is absent.
func NotIn(label string, values ...string) *Selector {
	if !writable(label, "") {
		return All()
	}
	return &Selector{root: node{op: opNotIn, label: label, set: writableSet(label, values)}}
}

// Not returns !s.
func Not(s *Selector) *Selector { return &Selector{root: s.root.negatedIf(true)} }

// And returns the selector that matches where every one of sels does: one
// chain, without the operands that are all(). With none left it is all().
func And(sels ...*Selector) *Selector { return join(opAnd, node{op: opAll}, sels) }

// Or returns the selector that matches where any of sels does: one chain,
// without the operands that are !all(). With none left it is !all().
func Or(sels ...*Selector) *Selector { return join(opOr, node{op: opAll, not: true}, sels) }

// join makes one chain of sels, dropping the operands that change nothing.
func join(o op, neutral node, sels []*Selector) *Selector {
	if len(sels) == 1 {
		return sels[0] // which never changes
	}
	var kids []node
	for _, s := range sels {
		switch r := s.root; {
		case r.op == o && !r.not:
			kids = append(kids, r.kids...)
		case r.op != neutral.op || r.not != neutral.not:
			kids = append(kids, r)
		}
	}
	if len(kids) == 0 {
		kids = append(kids, neutral)
	}
	return &Selector{root: chain(o, kids)}
}

// WithPrefix returns the selector with prefix before every label's name. The
// prefix must consist of characters that a name may have.
func (s *Selector) WithPrefix(prefix string) *Selector {
	return &Selector{root: s.root.rewrite(func(n node) node {
		if n.label != "" {
			n.label = prefix + n.label
		}
		return n
	})}
}

// Replace returns the selector with all in place of every all() and global in
// place of every global(); where one is nil, those stay. In a namespaceSelector
// they stand for has(projectcalico.org/namespace) and its negation.
func (s *Selector) Replace(all, global *Selector) *Selector {
	return &Selector{root: s.root.rewrite(func(n node) node {
		switch {
		case n.op == opAll && all != nil:
			return all.root.negatedIf(n.not)
		case n.op == opGlobal && global != nil:
			return global.root.negatedIf(n.not)
		}
		return n
	})}
}

// rewrite returns a copy of the tree in which each leaf n is leaf(n).
func (n *node) rewrite(leaf func(node) node) node {
	if n.op != opAnd && n.op != opOr {
		return leaf(*n)
	}
	kids := make([]node, len(n.kids))
	for i := range n.kids {
		kids[i] = n.kids[i].rewrite(leaf)
	}
	c := chain(n.op, kids)
	c.not = n.not
	return c
}

// writable tells whether the language can write the name and the value.
func writable(label, value string) bool {
	return label != "" && nameLength(label) == len(label) &&
		(strings.IndexByte(value, '"') < 0 || strings.IndexByte(value, '\'') < 0)
}

func writableSet(label string, values []string) []string {
	return unique(slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !writable(label, v) }))
}
