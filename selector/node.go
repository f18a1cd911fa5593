package selector

import (
	"slices"
	"strings"
)

// An op says what a node of the tree tests. The zero op is no test at all.
type op uint8

const (
	opNone op = iota
	opAll
	opGlobal
	opHas
	opEqual
	opNotEqual
	opContains
	opStartsWith
	opEndsWith
	opIn
	opNotIn
	opAnd
	opOr
)

// A node is one term or one chain of a selector. Nodes are shared between
// selectors and never changed once they are in one.
type node struct {
	op    op
	not   bool   // a "!" stands before it
	depth uint16 // levels of opAnd and opOr at and below this node
	label string
	value string
	set   []string // opIn, opNotIn: sorted, each value once
	kids  []node   // opAnd, opOr: at least two
}

// chain joins kids, at least one, by opAnd or opOr.
func chain(o op, kids []node) node {
	if len(kids) == 1 {
		return kids[0]
	}
	deepest := uint16(0)
	for i := range kids {
		deepest = max(deepest, kids[i].depth)
	}
	return node{op: o, depth: deepest + 1, kids: kids}
}

// negatedIf returns !n if not is set. Two negations cancel.
func (n node) negatedIf(not bool) node {
	n.not = n.not != not
	return n
}

func (n *node) matches(l Labels) bool {
	switch n.op {
	case opAll, opGlobal:
		return !n.not
	case opAnd:
		for i := range n.kids {
			if !n.kids[i].matches(l) {
				return n.not
			}
		}
		return !n.not
	case opOr:
		for i := range n.kids {
			if n.kids[i].matches(l) {
				return !n.not
			}
		}
		return n.not
	}
	v, present := l.Get(n.label)
	return n.test(v, present) != n.not
}

// test applies the node's comparison to its label.
func (n *node) test(v string, present bool) bool {
	switch n.op {
	case opHas:
		return present
	case opEqual:
		return present && v == n.value
	case opNotEqual:
		return !present || v != n.value
	case opContains:
		return present && strings.Contains(v, n.value)
	case opStartsWith:
		return present && strings.HasPrefix(v, n.value)
	case opEndsWith:
		return present && strings.HasSuffix(v, n.value)
	case opIn:
		return present && inSet(n.set, v)
	case opNotIn:
		return !present || !inSet(n.set, v)
	}
	return false
}

func inSet(set []string, v string) bool {
	_, found := slices.BinarySearch(set, v)
	return found
}
