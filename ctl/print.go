package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/calicogo/calico/api"
)

// format is a form in which get shows objects. Its values are the words of the command
// line.
type format string

const (
	formatTable format = "ps"
	formatWide  format = "wide"
	formatYAML  format = "yaml"
	formatJSON  format = "json"
)

func parseFormat(s string) (format, error) {
	switch f := format(s); f {
	case formatTable, formatWide, formatYAML, formatJSON:
		return f, nil
	case "yml":
		return formatYAML, nil
	}
	return "", usagef("--output %q: want ps, wide, yaml or json", s)
}

// printer writes what was found.
type printer struct {
	out        io.Writer
	namespaces bool // tables of namespaced kinds say them
}

func (p printer) print(form format, a answer) error {
	if len(a.objects) == 0 && len(a.missing) > 0 {
		return nil // the errors say it
	}
	if form == formatTable || form == formatWide {
		return p.tables(a, form == formatWide)
	}
	var v any = listOf(a)
	if a.single {
		v = a.objects[0]
	}
	if form == formatYAML {
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = p.out.Write(text)
		return err
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s\n", text)
	return err
}

// objectList is the form of several objects; every command reads it.
type objectList struct {
	APIVersion string       `json:"apiVersion"`
	Items      []api.Object `json:"items"`
	Kind       string       `json:"kind"`
	Metadata   listMeta     `json:"metadata"`
}

type listMeta struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// listOf is a's objects as a list of their kind, or of Kubernetes' kind List if they are of
// several.
func listOf(a answer) objectList {
	l := objectList{APIVersion: "v1", Kind: "List", Items: a.objects}
	if a.kind != nil {
		l.APIVersion, l.Kind = a.kind.APIVersion(), a.kind.Name+"List"
	}
	if l.Items == nil {
		l.Items = []api.Object{}
	}
	if a.revision != 0 {
		l.Metadata.ResourceVersion = strconv.FormatInt(a.revision, 10)
	}
	return l
}

// tables writes a table for each kind, with an empty line between.
func (p printer) tables(a answer, wide bool) error {
	if a.kind != nil {
		return p.table(a.kind, a.objects, wide)
	}
	first := true
	for _, kind := range api.Kinds() {
		var objects []api.Object
		for _, o := range a.objects {
			if api.KindOf(o) == kind {
				objects = append(objects, o)
			}
		}
		if len(objects) == 0 {
			continue
		}
		if !first {
			fmt.Fprintln(p.out)
		}
		first = false
		if err := p.table(kind, objects, wide); err != nil {
			return err
		}
	}
	return nil
}

func (p printer) table(kind *api.Kind, objects []api.Object, wide bool) error {
	columns := columnsOf(kind, wide, p.namespaces && kind.Namespaced)
	rows := make([][]string, 1+len(objects))
	for _, c := range columns {
		rows[0] = append(rows[0], c.Header)
		for i, o := range objects {
			rows[1+i] = append(rows[1+i], printable(c.Value(o)))
		}
	}
	_, err := io.WriteString(p.out, align(rows))
	return err
}

func columnsOf(kind *api.Kind, wide, namespaces bool) []api.Column {
	var columns []api.Column
	if namespaces {
		columns = append(columns, api.Column{Header: "NAMESPACE", Value: api.Object.GetNamespace})
	}
	for _, c := range kind.Columns {
		if !(c.Wide && !wide) && !(c.Narrow && wide) {
			columns = append(columns, c)
		}
	}
	return columns
}

// align writes rows in columns that are three spaces apart. No line ends in spaces.
func align(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	return b.String()
}
