package config

import (
	"fmt"
	"strings"
)

// Param is one parameter.
type Param struct {
	Name    string // as in the environment, FELIX_ before it and upper case
	Field   string // as in FelixConfiguration; empty if it cannot be set there
	Type    Type
	Default string // text of the built-in default; empty for the type's zero value
	Local   bool   // taken from the environment and the file only
	Doc     string // one line, if there is one
	nonZero bool   // none is refused
}

type section struct {
	title  string
	params []Param
}

var byName, byField = index()

func index() (name, field map[string]*Param) {
	name, field = map[string]*Param{}, map[string]*Param{}
	for i := range sections {
		for j := range sections[i].params {
			p := &sections[i].params[j]
			name[strings.ToLower(p.Name)] = p
			if p.Field != "" {
				field[p.Field] = p
			}
		}
	}
	return name, field
}

// Params returns every parameter, in the order of the documentation.
func Params() []Param {
	var all []Param
	for _, s := range sections {
		all = append(all, s.params...)
	}
	return all
}

// value parses the text of the parameter's value.
func (p *Param) value(s string) (any, error) {
	v, err := p.Type.Value(s)
	isNone := strings.EqualFold(s, "none") && v != any("None") // an enumeration may have its own None
	switch {
	case isNone && p.nonZero:
		return nil, fmt.Errorf("%s: %q: must be %s", p.Name, s, p.Type.Want)
	case isNone:
		return p.Type.zero, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return v, nil
}

// builtIn is the parameter's value where nobody sets it.
func (p *Param) builtIn() any {
	if p.Default == "" {
		return p.Type.zero
	}
	v, err := p.Type.Value(p.Default)
	if err != nil {
		panic("config: default of " + p.Name + ": " + err.Error()) // a test holds that there is none
	}
	return v
}

// Markdown documents every parameter: a table for each section.
func Markdown() string {
	var b strings.Builder
	cell := strings.NewReplacer("|", `\|`, "\n", " ").Replace
	for _, s := range sections {
		fmt.Fprintf(&b, "## %s\n\n| environment, file | FelixConfiguration | must be | default | |\n|---|---|---|---|---|\n", s.title)
		for _, p := range s.params {
			field, def := "", ""
			if p.Field != "" {
				field = "`" + p.Field + "`"
			}
			if p.Default != "" {
				def = "`" + cell(p.Default) + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", p.Name, field, cell(p.Type.Want), def, cell(p.Doc))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
