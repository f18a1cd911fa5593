package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v2"
)

// A node is a YAML value and the line it stands on. A nil *node is null.
//
// The parser is the one that Kubernetes uses (YAML 1.1), so that a document means here
// what it means to kubectl; it expands aliases, and refuses documents that would explode.
type node struct {
	line   int              // from 1
	scalar any              // string, bool, int, int64, uint64 or float64; nil in a mapping or sequence
	text   string           // a scalar as it was written, without quotes
	seq    []*node          // a sequence, if not nil
	fields map[string]entry // a mapping, if not nil
}

// entry is a field of a mapping. Its line is that of its name.
type entry struct {
	line  int
	value *node
}

// keyName is the key of a mapping's entry.
type keyName struct {
	text string
	line int
}

// UnmarshalYAML implements the parser's interface.
func (n *keyName) UnmarshalYAML(unmarshal func(any) error) error {
	n.line = lineOf(unmarshal)
	if err := unmarshal(&n.text); err != nil {
		return fmt.Errorf("line %d: a field's name must be a string", n.line)
	}
	return nil
}

// UnmarshalYAML implements the parser's interface.
func (n *node) UnmarshalYAML(unmarshal func(any) error) error {
	n.line = lineOf(unmarshal)
	var any map[keyName]*node
	switch err := unmarshal(&any); {
	case err == nil:
		return n.setFields(any)
	case !mismatch(err, n.line):
		return err
	}
	var seq []*node
	switch err := unmarshal(&seq); {
	case err == nil:
		n.seq = slices.Grow(seq, 1) // an empty sequence is not nil
		return nil
	case !mismatch(err, n.line):
		return err
	}
	if err := unmarshal(&n.scalar); err != nil {
		return err
	}
	if s, ok := n.scalar.(string); ok {
		n.text = s
		return nil
	}
	return unmarshal(&n.text)
}

func (n *node) setFields(m map[keyName]*node) error {
	n.fields = make(map[string]entry, len(m))
	for k, v := range m {
		if was, ok := n.fields[k.text]; ok {
			return fmt.Errorf("line %d: field %q is already given on line %d", max(k.line, was.line), k.text, min(k.line, was.line))
		}
		n.fields[k.text] = entry{line: k.line, value: v}
	}
	return nil
}

// lineOf finds the line of the value that is being decoded. The parser tells it only in
// its errors, so we make it fail: nothing decodes into a channel.
func lineOf(unmarshal func(any) error) int {
	var never chan int
	return errorLine(unmarshal(&never))
}

var atLine = regexp.MustCompile(`line (\d+): `)

func errorLine(err error) int {
	if err == nil {
		return 0
	}
	m := atLine.FindStringSubmatch(err.Error())
	if m == nil {
		return 0
	}
	line, _ := strconv.Atoi(m[1])
	return line
}

// mismatch tells whether err says no more than that the value on this line is no mapping
// or no sequence.
func mismatch(err error, line int) bool {
	e, ok := err.(*yaml.TypeError)
	return ok && len(e.Errors) == 1 && errorLine(e) == line && strings.Contains(e.Errors[0], "cannot unmarshal !!")
}

// parseYAML parses one document. Lines of its errors count from 1.
func parseYAML(doc []byte) (*node, error) {
	if t := bytes.TrimSpace(doc); len(t) > 0 && t[0] == '{' && json.Valid(t) {
		doc = bytes.ReplaceAll(doc, []byte{'\t'}, []byte{' '}) // JSON may be indented by tabs, YAML may not
	}
	var root *node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, yamlError(err)
	}
	return root, nil
}

// A lineError is an error on a line of a document.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.msg) }

// The parser counts from 0 in the errors of its parser proper, and from 1 in those of
// its scanner and decoder.
var countedFromZero = regexp.MustCompile(`did not find expected (<.*>|node content|'-' indicator|key|',' or '[\]}]')|undefined tag handle|found duplicate`)

// aTag finds what was meant as a negation: selector: !has(a).
var aTag = regexp.MustCompile("cannot unmarshal (!(?:[^! ][^ ]*)?) `(.*)` into ")

func yamlError(err error) error {
	msg := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
	msg, _, _ = strings.Cut(msg, "\n")
	line := errorLine(err)
	msg = atLine.ReplaceAllString(msg, "")
	if m := aTag.FindStringSubmatch(msg); m != nil {
		msg = fmt.Sprintf("a value that begins with ! must be in quotes: %q", strings.TrimSpace(m[1]+" "+m[2]))
	}
	if line == 0 || countedFromZero.MatchString(msg) {
		line++
	}
	return &lineError{line, "malformed YAML: " + strings.TrimPrefix(msg, "malformed YAML: ")}
}

// kind says what n is, for messages.
func (n *node) kind() string {
	switch {
	case n == nil:
		return "nothing"
	case n.fields != nil:
		return "a mapping"
	case n.seq != nil:
		return "a list"
	}
	if s, ok := n.scalar.(string); ok {
		return strconv.Quote(s)
	}
	return n.text
}

// json writes n as JSON. Numbers stay as they were written where JSON allows it.
func (n *node) json() []byte {
	var b bytes.Buffer
	n.writeJSON(&b)
	return b.Bytes()
}

func (n *node) writeJSON(b *bytes.Buffer) {
	switch {
	case n == nil:
		b.WriteString("null")
	case n.fields != nil:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(n.fields)) {
			comma(b, i)
			writeString(b, k)
			b.WriteByte(':')
			n.fields[k].value.writeJSON(b)
		}
		b.WriteByte('}')
	case n.seq != nil:
		b.WriteByte('[')
		for i, e := range n.seq {
			comma(b, i)
			e.writeJSON(b)
		}
		b.WriteByte(']')
	default:
		n.writeScalar(b)
	}
}

func (n *node) writeScalar(b *bytes.Buffer) {
	_, isString := n.scalar.(string)
	_, isBool := n.scalar.(bool)
	if !isString && !isBool && json.Valid([]byte(n.text)) {
		b.WriteString(n.text)
		return
	}
	v, err := json.Marshal(n.scalar)
	if err != nil { // .inf and .nan
		v, _ = json.Marshal(n.text)
	}
	b.Write(v)
}

func comma(b *bytes.Buffer, i int) {
	if i > 0 {
		b.WriteByte(',')
	}
}

func writeString(b *bytes.Buffer, s string) {
	v, _ := json.Marshal(s) // a string always has a JSON form
	b.Write(v)
}
