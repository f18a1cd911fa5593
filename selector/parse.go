package selector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep parentheses may nest, as written and in canonical
// form, so that no selector can exhaust the stack of whoever walks it.
const maxDepth = 200

// Parse reads a selector. Its error is an *Error.
func Parse(input string) (*Selector, error) {
	p := parser{input: input}
	p.space()
	if p.at == len(input) {
		return All(), nil
	}
	s := new(Selector)
	if err := p.chain(&s.root, opOr); err != nil {
		return nil, err
	}
	if p.at < len(input) {
		return nil, p.expected(`"&&", "||" or the end`)
	}
	return s, nil
}

// MustParse is Parse for selectors that are part of the program; it panics on
// a malformed one.
func MustParse(input string) *Selector {
	s, err := Parse(input)
	if err != nil {
		panic(err)
	}
	return s
}

// A parser descends through the grammar in doc.go, one method a rule. Between
// methods it stands at the first byte of a word, white space behind it.
type parser struct {
	input string
	at    int // offset of the byte at hand
	depth int // parentheses open
}

// chain reads operands joined by o, which is opOr or opAnd, into n.
func (p *parser) chain(n *node, o op) error {
	start, word := p.at, chainWords[o]
	if err := p.operand(n, o); err != nil || !p.operatorIs(word) {
		return err
	}
	kids := append(make([]node, 0, 2), *n)
	for p.operatorIs(word) {
		p.skip(len(word))
		kids = append(kids, node{})
		if err := p.operand(&kids[len(kids)-1], o); err != nil {
			return err
		}
	}
	*n = chain(o, kids)
	if n.depth > maxDepth {
		return p.tooDeep(start)
	}
	return nil
}

var chainWords = [...]string{opAnd: "&&", opOr: "||"}

func (p *parser) operand(n *node, o op) error {
	if o == opOr {
		return p.chain(n, opAnd)
	}
	return p.term(n)
}

// operatorIs tells whether the two bytes of o stand at hand.
func (p *parser) operatorIs(o string) bool {
	return p.at+1 < len(p.input) && p.input[p.at:p.at+2] == o
}

func (p *parser) term(n *node) error {
	not := false
	for p.peek() == '!' && !p.operatorIs("!=") {
		not = !not
		p.skip(1)
	}
	var err error
	if p.peek() == '(' {
		err = p.parenthesised(n)
	} else {
		err = p.test(n)
	}
	n.not = n.not != not
	return err
}

func (p *parser) parenthesised(n *node) error {
	if p.depth == maxDepth {
		return p.tooDeep(p.at)
	}
	p.depth++
	p.skip(1)
	if err := p.chain(n, opOr); err != nil {
		return err
	}
	p.depth--
	return p.closing(`"&&", "||" or ")"`)
}

// closing passes a closing parenthesis; what says what else could stand there.
func (p *parser) closing(what string) error {
	if p.peek() != ')' {
		return p.expected(what)
	}
	p.skip(1)
	return nil
}

// test reads a function or a comparison.
func (p *parser) test(n *node) error {
	start := p.at
	name := p.name()
	if name == "" {
		return p.expected(`a label, has(), all(), global() or "("`)
	}
	if p.peek() != '(' {
		n.label = name
		return p.comparison(n)
	}
	switch name {
	case "all":
		n.op = opAll
	case "global":
		n.op = opGlobal
	case "has":
		n.op = opHas
	default:
		return p.fail(start, fmt.Sprintf("unknown function %s(), expected has(), all() or global()", clip(name)))
	}
	p.skip(1)
	if n.op == opHas {
		if n.label = p.name(); n.label == "" {
			return p.expected("a label")
		}
	}
	return p.closing(`")"`)
}

// comparison reads what follows a label.
func (p *parser) comparison(n *node) (err error) {
	if n.op, err = p.operator(); err != nil {
		return err
	}
	if n.op == opIn || n.op == opNotIn {
		n.set, err = p.set()
	} else {
		n.value, err = p.quoted()
	}
	return err
}

func (p *parser) operator() (op, error) {
	switch {
	case p.operatorIs("=="):
		p.skip(2)
		return opEqual, nil
	case p.operatorIs("!="):
		p.skip(2)
		return opNotEqual, nil
	case p.peek() == '=':
		return opNone, p.expected(`"=="`)
	}
	start := p.at
	switch p.name() {
	case "in":
		return opIn, nil
	case "notin":
		return opNotIn, nil
	case "not":
		return opNotIn, p.word("in")
	case "contains":
		return opContains, nil
	case "startswith":
		return opStartsWith, nil
	case "starts":
		return opStartsWith, p.word("with")
	case "endswith":
		return opEndsWith, nil
	case "ends":
		return opEndsWith, p.word("with")
	}
	p.at = start
	return opNone, p.expected("==, !=, in, not in, contains, starts with or ends with")
}

// word reads the second word of an operator.
func (p *parser) word(w string) error {
	start := p.at
	if p.name() == w {
		return nil
	}
	p.at = start
	return p.expected(fmt.Sprintf("%q", w))
}

// set reads a set literal and returns its values sorted, each once.
func (p *parser) set() ([]string, error) {
	if p.peek() != '{' {
		return nil, p.expected(`a set such as {"a", "b"}`)
	}
	p.skip(1)
	var values []string
	for p.peek() != '}' {
		v, err := p.quoted()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if p.peek() == ',' {
			p.skip(1)
		} else if p.peek() != '}' {
			return nil, p.expected(`"," or "}"`)
		}
	}
	p.skip(1)
	return unique(values), nil
}

// unique sorts the values and drops repetitions, in place.
func unique(values []string) []string {
	slices.Sort(values)
	return slices.Compact(values)
}

func (p *parser) quoted() (string, error) {
	quote := p.peek()
	if quote != '"' && quote != '\'' {
		return "", p.expected("a quoted string")
	}
	length := strings.IndexByte(p.input[p.at+1:], quote)
	if length < 0 {
		return "", p.fail(p.at, "the string that starts here has no closing "+string(quote))
	}
	v := p.input[p.at+1 : p.at+1+length]
	p.skip(length + 2)
	return v, nil
}

// name reads a label or a word, and the white space behind it; "" if there is none.
func (p *parser) name() string {
	n := nameLength(p.input[p.at:])
	s := p.input[p.at : p.at+n]
	p.skip(n)
	return s
}

// nameLength counts the leading bytes of s that may stand in a label's name.
func nameLength(s string) int {
	for i := 0; i < len(s); i++ {
		if !nameBytes[s[i]] {
			return i
		}
	}
	return len(s)
}

var nameBytes = func() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") {
		t[c] = true
	}
	return t
}()

// peek returns the byte at hand, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.input) {
		return p.input[p.at]
	}
	return 0
}

// skip passes n bytes and the white space behind them.
func (p *parser) skip(n int) {
	p.at += n
	p.space()
}

func (p *parser) space() {
	for p.at < len(p.input) {
		switch p.input[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) expected(what string) error {
	return p.fail(p.at, "expected "+what+", found "+p.found())
}

func (p *parser) tooDeep(offset int) error {
	return p.fail(offset, fmt.Sprintf("parentheses nest deeper than %d levels", maxDepth))
}

func (p *parser) fail(offset int, msg string) error {
	return &Error{Column: column(p.input, offset), Msg: msg, Input: p.input}
}

// found describes what stands at hand.
func (p *parser) found() string {
	rest := p.input[p.at:]
	if rest == "" {
		return "the end"
	}
	if n := nameLength(rest); n > 0 {
		return clip(rest[:n])
	}
	for _, w := range []string{"==", "!=", "&&", "||"} {
		if strings.HasPrefix(rest, w) {
			return w
		}
	}
	if rest[0] == '"' {
		return `'"'`
	}
	_, size := utf8.DecodeRuneInString(rest)
	return strconv.Quote(rest[:size])
}

// clip shortens a name for a message.
func clip(name string) string {
	const most = 40
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}
