package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Kind describes one kind of resource. The variables of this package are all there are.
type Kind struct {
	Name       string   // as in the field kind: "IPPool"
	Group      string   // the apiVersion of a kind that is not Calico's own: "v1"; else empty
	Plural     string   // lower case, as in etcd paths and on the command line: "ippools"
	Short      []string // further names that the command line takes: "gnp"
	Namespaced bool
	Internal   bool // written by Calico itself; the command line lists but does not create it
	New        func() Object
	Columns    []Column // of a table of this kind, in order
}

// Column is one column of a table of objects of a kind.
type Column struct {
	Header string
	Wide   bool // shown only in the wide form
	Narrow bool // shown only in the narrow form
	Value  func(Object) string
}

var kinds = map[string]*Kind{} // by Name; complete when package initialisation ends

func register(k *Kind) *Kind {
	if _, ok := kinds[k.Name]; ok {
		panic("api: kind " + k.Name + " registered twice")
	}
	kinds[k.Name] = k
	return k
}

// Kinds returns every kind, ordered by name.
func Kinds() []*Kind {
	all := make([]*Kind, 0, len(kinds))
	for _, k := range kinds {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *Kind) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// KindNamed returns the kind whose Name is exactly name.
func KindNamed(name string) (*Kind, bool) {
	k, ok := kinds[name]
	return k, ok
}

// FindKind returns the kind that a user calls s: its name, plural or a short name, in
// any case.
func FindKind(s string) (*Kind, error) {
	l := strings.ToLower(s)
	for _, k := range Kinds() {
		if l == strings.ToLower(k.Name) || l == k.Plural || slices.Contains(k.Short, l) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("unknown kind %q; known kinds: %s", s, strings.Join(plurals(), ", "))
}

func plurals() []string {
	var s []string
	for _, k := range Kinds() {
		s = append(s, k.Plural)
	}
	return s
}

// KindOf returns the kind of o. It panics if o is of no kind of this package.
func KindOf(o Object) *Kind {
	k, ok := kinds[o.GetObjectKind().GroupVersionKind().Kind]
	if !ok {
		panic(fmt.Sprintf("api: %T %q has no known kind", o, o.GetName()))
	}
	return k
}

// APIVersion is the apiVersion that objects of the kind carry.
func (k *Kind) APIVersion() string { return cmp.Or(k.Group, GroupVersion) }
