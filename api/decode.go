package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// decodeInto decodes n into the value that v points at, strictly: a field that v's type
// does not have, or a value of the wrong type, is an error that names path and line.
func decodeInto(n *node, v any) error {
	d := &decoder{}
	d.value(n, reflect.TypeOf(v).Elem(), "")
	if len(d.errs) > 0 {
		return joinLines(d.errs)
	}
	if err := json.Unmarshal(d.out.Bytes(), v); err != nil {
		return &lineError{n.line, err.Error()}
	}
	return nil
}

// joinLines orders errors by line, and keeps the first few.
func joinLines(errs []*lineError) error {
	slices.SortStableFunc(errs, func(a, b *lineError) int { return a.line - b.line })
	const most = 5
	var msgs []string
	for i, e := range errs {
		switch {
		case i == 0:
			msgs = append(msgs, e.msg)
		case i < most:
			msgs = append(msgs, e.Error())
		case i == most:
			msgs = append(msgs, fmt.Sprintf("and %d more errors", len(errs)-most))
		}
	}
	return &lineError{errs[0].line, strings.Join(msgs, "; ")}
}

// decoder writes a node as JSON in the form that a Go type asks for, and notes what does
// not fit the type.
type decoder struct {
	out  bytes.Buffer
	errs []*lineError
}

func (d *decoder) errorf(n *node, path, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if path != "" {
		msg = path + ": " + msg
	}
	d.errs = append(d.errs, &lineError{n.line, msg})
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func (d *decoder) value(n *node, t reflect.Type, path string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n == nil:
		d.out.WriteString("null")
	case reflect.PointerTo(t).Implements(unmarshaler):
		d.custom(n, t, path)
	default:
		d.plain(n, t, path)
	}
}

func (d *decoder) plain(n *node, t reflect.Type, path string) {
	switch t.Kind() {
	case reflect.Struct:
		d.object(n, t, path)
	case reflect.Map:
		d.mapping(n, t, path)
	case reflect.Slice:
		d.list(n, t, path)
	case reflect.String:
		d.text(n, path)
	case reflect.Bool:
		d.literal(n, t, path, "true or false")
	case reflect.Interface:
		d.out.Write(n.json())
	case reflect.Float32, reflect.Float64:
		d.literal(n, t, path, "a number")
	default:
		d.literal(n, t, path, "a whole number"+integerRange(t))
	}
}

func integerRange(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return fmt.Sprintf(" from 0 to %d", uint64(1)<<t.Bits()-1)
	case reflect.Uint, reflect.Uint64:
		return " that is not negative"
	}
	return ""
}

// custom decodes a type that reads itself.
func (d *decoder) custom(n *node, t reflect.Type, path string) {
	raw := n.json()
	if err := json.Unmarshal(raw, reflect.New(t).Interface()); err != nil {
		if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) {
			err = fmt.Errorf("is %s, which does not fit", n.kind())
		}
		d.errorf(n, path, "%v", err)
		raw = []byte("null")
	}
	d.out.Write(raw)
}

// literal decodes a bool or number.
func (d *decoder) literal(n *node, t reflect.Type, path, want string) {
	raw := []byte("null")
	if n.fields == nil && n.seq == nil {
		raw = n.json()
		if i, ok := n.scalar.(int); ok && !json.Valid([]byte(n.text)) {
			raw = strconv.AppendInt(nil, int64(i), 10)
		}
	}
	if string(raw) == "null" || json.Unmarshal(raw, reflect.New(t).Interface()) != nil {
		d.errorf(n, path, "is %s, but must be %s", n.kind(), want)
		raw = []byte("null")
	}
	d.out.Write(raw)
}

// text takes any scalar as it was written: a label's value may be 1 or true.
func (d *decoder) text(n *node, path string) {
	if n.fields != nil || n.seq != nil {
		d.errorf(n, path, "is %s, but must be a string", n.kind())
	}
	writeString(&d.out, n.text)
}

func (d *decoder) list(n *node, t reflect.Type, path string) {
	if n.seq == nil {
		d.errorf(n, path, "is %s, but must be a list", n.kind())
	}
	d.out.WriteByte('[')
	for i, e := range n.seq {
		comma(&d.out, i)
		d.value(e, t.Elem(), path+"["+strconv.Itoa(i)+"]")
	}
	d.out.WriteByte(']')
}

func (d *decoder) mapping(n *node, t reflect.Type, path string) {
	d.entries(n, path, func(string) (reflect.Type, bool) { return t.Elem(), true }, nil)
}

func (d *decoder) object(n *node, t reflect.Type, path string) {
	known := fieldsOf(t)
	typeOf := func(k string) (reflect.Type, bool) { ft, ok := known[k]; return ft, ok }
	d.entries(n, path, typeOf, func(k string) string { return didYouMean(k, known) })
}

// didYouMean names the known field that k comes close to, if there is one.
func didYouMean(k string, known map[string]reflect.Type) string {
	for _, f := range sortedKeys(known) {
		prefix := len(k) > 2 && strings.HasPrefix(f, k)
		if strings.EqualFold(f, k) || prefix {
			return fmt.Sprintf("; did you mean %q?", f)
		}
	}
	return ""
}

func (d *decoder) entries(n *node, path string, typeOf func(string) (reflect.Type, bool), hint func(string) string) {
	if n.fields == nil {
		d.errorf(n, path, "is %s, but must be a mapping", n.kind())
	}
	d.out.WriteByte('{')
	i := 0
	for k, f := range n.fields {
		p := strings.TrimPrefix(path+"."+k, ".")
		t, ok := typeOf(k)
		if !ok {
			d.errs = append(d.errs, &lineError{f.line, fmt.Sprintf("unknown field %q%s", p, hint(k))})
			continue
		}
		comma(&d.out, i)
		writeString(&d.out, k)
		d.out.WriteByte(':')
		d.value(f.value, t, p)
		i++
	}
	d.out.WriteByte('}')
}

var fieldCache sync.Map // reflect.Type → map[string]reflect.Type

// fieldsOf returns the types of the fields of a struct by their JSON names.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if m, ok := fieldCache.Load(t); ok {
		return m.(map[string]reflect.Type)
	}
	m := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-":
		case f.Anonymous && tag == "":
			for k, v := range fieldsOf(f.Type) {
				m[k] = v
			}
		case tag != "":
			m[tag] = f.Type
		}
	}
	fieldCache.Store(t, m)
	return m
}
