package config

import (
	"bufio"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/calicogo/calico/api"
)

// Layer is what one source sets.
type Layer struct {
	Source string            // for messages: "environment"
	Values map[string]string // the text of each value by Name in lower case; see [Param]
	errs   []error           // values that cannot be written as text
}

// Get returns the text that the layer gives a parameter.
func (l Layer) Get(name string) (string, bool) {
	v, ok := l.Values[strings.ToLower(name)]
	return v, ok
}

// set records a value. An empty one is none at all: a manifest may leave it so.
func (l Layer) set(name, text string) {
	if text = strings.TrimSpace(text); text != "" {
		l.Values[strings.ToLower(name)] = text
	}
}

// FromEnviron takes the variables FELIX_NAME=VALUE, in any case, from a list as
// os.Environ gives.
func FromEnviron(environ []string) Layer {
	l := Layer{Source: "environment", Values: map[string]string{}}
	for _, e := range environ {
		k, v, _ := strings.Cut(e, "=")
		if name, ok := strings.CutPrefix(strings.ToLower(k), "felix_"); ok {
			l.set(name, v)
		}
	}
	return l
}

// FromFile takes lines NAME = VALUE from the text of a configuration file (felix.cfg).
// Sections, comments and empty lines are passed over.
func FromFile(source, text string) Layer {
	l := Layer{Source: source, Values: map[string]string{}}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.ContainsAny(line[:1], "#;[") {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			l.errs = append(l.errs, fmt.Errorf("%s: line %d: %q: must be NAME = VALUE", source, n, line))
			continue
		}
		l.set(strings.TrimSpace(k), strings.Trim(strings.TrimSpace(v), `"'`))
	}
	if err := lines.Err(); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", source, err))
	}
	return l
}

// FromResource takes what a FelixConfiguration sets.
func FromResource(o *api.FelixConfiguration) Layer {
	return fromSpec("FelixConfiguration "+o.Name, o.Spec)
}

func fromSpec(source string, spec api.FelixConfigurationSpec) Layer {
	l := Layer{Source: source, Values: map[string]string{}}
	for _, field := range slices.Sorted(maps.Keys(spec)) {
		raw := spec[field]
		p, ok := byField[field]
		if !ok {
			l.errs = append(l.errs, fmt.Errorf("%s: spec.%s: unknown parameter%s", source, field, localOnly(field)))
			continue
		}
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		text, err := p.Type.yaml(raw)
		if err == nil && text != "" {
			_, err = p.value(text)
		}
		if err != nil {
			msg := strings.TrimPrefix(err.Error(), p.Name+": ")
			l.errs = append(l.errs, fmt.Errorf("%s: spec.%s: %s", source, field, msg))
			continue
		}
		l.set(p.Name, text)
	}
	return l
}

func localOnly(field string) string {
	if p, ok := byName[strings.ToLower(field)]; ok && p.Field == "" {
		return ": it can only be set in the environment or the file"
	}
	if p, ok := byName[strings.ToLower(field)]; ok {
		return fmt.Sprintf("; did you mean %q?", p.Field)
	}
	return ""
}

// Errors returns what is wrong with the layer, in a stable order; its other values count.
func (l Layer) Errors() []error {
	errs := slices.Clone(l.errs)
	for _, name := range slices.Sorted(maps.Keys(l.Values)) {
		p, ok := byName[name]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: unknown parameter %q", l.Source, name))
			continue
		}
		if _, err := p.value(l.Values[name]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.Source, err))
		}
	}
	return errs
}
