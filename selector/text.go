package selector

import "strings"

// words are the operators between a label and its value, as they are printed.
var words = [...]string{
	opEqual:      " == ",
	opNotEqual:   " != ",
	opContains:   " contains ",
	opStartsWith: " starts with ",
	opEndsWith:   " ends with ",
	opIn:         " in ",
	opNotIn:      " not in ",
	opAnd:        " && ",
	opOr:         " || ",
}

// appendText appends the canonical form of the tree to b.
func (n *node) appendText(b []byte) []byte {
	if n.not {
		b = append(b, '!')
	}
	switch n.op {
	case opAll:
		return append(b, "all()"...)
	case opGlobal:
		return append(b, "global()"...)
	case opHas:
		b = append(b, "has("...)
		b = append(b, n.label...)
		return append(b, ')')
	case opAnd, opOr:
		return n.appendChain(b)
	}
	b = append(b, n.label...)
	b = append(b, words[n.op]...)
	return n.appendOperand(b)
}

func (n *node) appendChain(b []byte) []byte {
	b = append(b, '(')
	for i := range n.kids {
		if i > 0 {
			b = append(b, words[n.op]...)
		}
		b = n.kids[i].appendText(b)
	}
	return append(b, ')')
}

// appendOperand appends what a comparison compares its label with.
func (n *node) appendOperand(b []byte) []byte {
	if n.op != opIn && n.op != opNotIn {
		return appendQuoted(b, n.value)
	}
	b = append(b, '{')
	for i, v := range n.set {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendQuoted(b, v)
	}
	return append(b, '}')
}

// appendQuoted appends v in double quotes, or in single quotes if it holds a
// double quote. No node holds a value with both (see writable).
func appendQuoted(b []byte, v string) []byte {
	quote := byte('"')
	if strings.IndexByte(v, '"') >= 0 {
		quote = '\''
	}
	b = append(b, quote)
	b = append(b, v...)
	return append(b, quote)
}
