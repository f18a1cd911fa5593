package api

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Document is one object in a file of YAML or JSON, not yet decoded: a document of the
// file, or an item of a list in it.
type Document struct {
	APIVersion, Kind string

	file   string // empty if it does not come from a file
	number int    // of the document in the file, from 1
	offset int    // lines of the file before the document's first
	root   *node
}

// Documents splits a file into its objects. Documents are parted by ---; a List, or an
// IPPoolList and the like, stands for its items; empty documents are left out. Errors
// begin with "FILE: document 2, line 17: ".
func Documents(file string, text []byte) ([]Document, error) {
	var docs []Document
	number := 0
	for _, c := range split(text) {
		root, err := parseYAML(c.text)
		d := Document{file: file, number: number + 1, offset: c.offset, root: root}
		if err != nil {
			return nil, d.at(err)
		}
		if root == nil {
			continue
		}
		number++
		if err := d.identify(); err != nil {
			return nil, err
		}
		items, err := d.items()
		if err != nil {
			return nil, err
		}
		docs = append(docs, items...)
	}
	return docs, nil
}

// Decode decodes one object of a kind of this package from YAML or JSON, strictly: an
// unknown kind or field is an error. It neither defaults nor validates.
func Decode(doc []byte) (Object, error) {
	docs, err := Documents("", doc)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("want one object, found %d", len(docs))
	}
	return docs[0].Object()
}

// DecodeAll decodes every object of a file. See [Documents] and [Decode].
func DecodeAll(file string, text []byte) ([]Object, error) {
	docs, err := Documents(file, text)
	if err != nil {
		return nil, err
	}
	var all []Object
	for _, d := range docs {
		o, err := d.Object()
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// Object decodes d if it is of one of Calico's own kinds.
func (d Document) Object() (Object, error) {
	k, ok := KindNamed(d.Kind)
	if d.APIVersion != GroupVersion {
		return nil, d.errorAt("apiVersion", "apiVersion %q with kind %q: want apiVersion %s", d.APIVersion, d.Kind, GroupVersion)
	}
	if !ok || k.Group != "" {
		return nil, d.errorAt("kind", "unknown kind %q; known kinds: %s", d.Kind, strings.Join(kindNames(), ", "))
	}
	o := k.New()
	if err := d.Into(o); err != nil {
		return nil, err
	}
	return o, nil
}

// Into decodes d strictly into the value that v points at.
func (d Document) Into(v any) error {
	if err := decodeInto(d.root, v); err != nil {
		return d.at(err)
	}
	return nil
}

// Where says where d begins: "FILE: document 2, line 17".
func (d Document) Where() string { return d.where(d.root.line) }

func (d Document) where(line int) string {
	s := fmt.Sprintf("line %d", d.offset+line)
	if d.file != "" {
		s = fmt.Sprintf("%s: document %d, %s", d.file, d.number, s)
	}
	return s
}

func (d Document) at(err error) error {
	if e := (*lineError)(nil); errors.As(err, &e) {
		return fmt.Errorf("%s: %s", d.where(e.line), d.shift(e.msg))
	}
	return fmt.Errorf("%s: %w", d.Where(), err)
}

// shift corrects the lines that stand within a message.
func (d Document) shift(msg string) string {
	return atLine.ReplaceAllStringFunc(msg, func(s string) string {
		return fmt.Sprintf("line %d: ", errorLine(errors.New(s))+d.offset)
	})
}

func (d Document) errorAt(key, format string, args ...any) error {
	line := d.root.line
	if f, ok := d.root.fields[key]; ok {
		line = f.line
	}
	return fmt.Errorf("%s: %s", d.where(line), fmt.Sprintf(format, args...))
}

// identify reads apiVersion and kind.
func (d *Document) identify() error {
	if d.root.fields == nil {
		return d.errorAt("", "is %s, but an object is a mapping with apiVersion, kind, metadata and spec", d.root.kind())
	}
	for _, f := range []struct {
		key string
		to  *string
	}{{"apiVersion", &d.APIVersion}, {"kind", &d.Kind}} {
		n := d.root.fields[f.key].value
		if n == nil || n.text == "" {
			return d.errorAt(f.key, "field %q is missing", f.key)
		}
		*f.to = n.text
	}
	return nil
}

// items returns the items of a list, or d itself.
func (d Document) items() ([]Document, error) {
	kind, isList := strings.CutSuffix(d.Kind, "List")
	if _, ok := KindNamed(kind); !isList || (kind != "" && !ok) {
		return []Document{d}, nil
	}
	for _, k := range sortedKeys(d.root.fields) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "items"}, k) {
			return nil, d.errorAt(k, "unknown field %q in a %s", k, d.Kind)
		}
	}
	list := d.root.fields["items"].value
	if list != nil && list.seq == nil {
		return nil, d.errorAt("items", "items: is %s, but must be a list", list.kind())
	}
	var items []Document
	for i, n := range d.seqOf(list) {
		if n == nil {
			return nil, d.errorAt("items", "items[%d] is empty", i)
		}
		item := d
		item.root = n
		if kind != "" {
			n.inherit("apiVersion", d.APIVersion)
			n.inherit("kind", kind)
		}
		if err := item.identify(); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

func (d Document) seqOf(n *node) []*node {
	if n == nil {
		return nil
	}
	return n.seq
}

// inherit sets a field that is missing.
func (n *node) inherit(key, value string) {
	if _, ok := n.fields[key]; !ok && n.fields != nil {
		n.fields[key] = entry{line: n.line, value: &node{line: n.line, scalar: value, text: value}}
	}
}

// chunk is the text of a document.
type chunk struct {
	offset int // lines before it
	text   []byte
}

// split parts a YAML stream at its document markers. A document keeps its own --- line.
func split(text []byte) []chunk {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var all []chunk
	cur := chunk{}
	blank := true // cur has no line but comments and directives
	for i, line := range bytes.SplitAfter(text, []byte("\n")) {
		end := isMarker(line, "...")
		if end || isMarker(line, "---") {
			if !blank {
				all = append(all, cur)
			}
			cur, blank = chunk{offset: i}, true
		}
		if t := bytes.TrimSpace(line); !end && len(t) > 0 && t[0] != '#' && t[0] != '%' && string(t) != "---" {
			blank = false
		}
		if end {
			cur.offset++
			continue
		}
		cur.text = append(cur.text, line...)
	}
	if !blank {
		all = append(all, cur)
	}
	return all
}

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

func kindNames() []string {
	var s []string
	for _, k := range Kinds() {
		if k.Group == "" {
			s = append(s, k.Name)
		}
	}
	return s
}
