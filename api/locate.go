package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// At is err, found in the object that d holds, with where it is: "FILE: document 2, line 17: ".
// If err comes from Validate, the line is that of the field that it names first or, where that
// was not written, of what should have held it; else it is d's first.
func (d Document) At(err error) error { return d.AtField(firstField(err), err) }

// AtField is At for an error about the field at a path such as spec.ports[0].
func (d Document) AtField(path string, err error) error {
	return fmt.Errorf("%s: %w", d.where(d.root.lineOf(path)), err)
}

// firstField is the path of the field that err names first, empty if it names none.
func firstField(err error) string {
	var list interface{ Errors() []error }
	if errors.As(err, &list) && len(list.Errors()) > 0 {
		err = list.Errors()[0]
	}
	if e := (*field.Error)(nil); errors.As(err, &e) {
		return e.Field
	}
	return ""
}

// lineOf is the line of the field at path, such as spec.ingress[0].source.nets[1] or
// metadata.labels[a.b/c], or of the nearest that was written and holds it.
func (n *node) lineOf(path string) int {
	line := n.line
	for path != "" {
		var step string
		step, path = cutStep(path)
		var at int
		if n, at = n.child(step); at == 0 {
			break
		}
		line = at
		if n == nil {
			break
		}
	}
	return line
}

// child is the field or element of that name, and its line; 0 if there is none.
func (n *node) child(step string) (*node, int) {
	if f, ok := n.fields[step]; ok {
		return f.value, f.line
	}
	if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.seq) && n.seq[i] != nil {
		return n.seq[i], n.seq[i].line
	}
	return nil, 0
}

// cutStep splits the first step from a path.
func cutStep(path string) (step, rest string) {
	if key, isKey := strings.CutPrefix(path, "["); isKey {
		step, rest, _ = strings.Cut(key, "]")
		return step, strings.TrimPrefix(rest, ".")
	}
	i := strings.IndexAny(path, ".[")
	if i < 0 {
		return path, ""
	}
	return path[:i], strings.TrimPrefix(path[i:], ".")
}
