package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// pkg is what `go list` says of a package. Names of ours are without the module's.
type pkg struct {
	name     string
	dir      string
	files    []string // without tests
	imports  []string // of these
	tests    []string // imports of tests
	packages map[string]*pkg
}

// check returns the ways in which a package breaks the law.
func (p *pkg) check() []string {
	bad := &complaints{pkg: p.name}
	for _, im := range slices.Concat(p.imports, p.tests) {
		if fits(im, never) {
			bad.add("must not import %s, nor may anything", im)
		}
	}
	if p.name == "internal/deps" {
		return bad.list
	}
	for _, im := range p.imports {
		p.checkEffect(bad, im)
	}
	if allowed, ok := testOnly[p.name]; ok {
		p.checkTestOnly(bad, allowed)
		return bad.list
	}
	at, ok := placeOf(p.name)
	if !ok {
		bad.add("has no place in the law: give it one in internal/archtest/law.go")
		return bad.list
	}
	for _, im := range p.imports {
		p.checkImport(bad, at, im)
	}
	if layers[at.layer].pure {
		p.checkPure(bad)
	}
	if libs, ok := thin[p.name]; ok {
		p.checkThin(bad, libs)
	}
	return bad.list
}

type complaints struct {
	pkg  string
	list []string
}

func (c *complaints) add(format string, args ...any) {
	c.list = append(c.list, c.pkg+" "+fmt.Sprintf(format, args...))
}

func (p *pkg) checkTestOnly(bad *complaints, allowed []string) {
	for _, im := range p.imports {
		if p.packages[im] != nil && !slices.Contains(allowed, im) {
			bad.add("must not import %s: it is for tests, of %s", im, strings.Join(allowed, ", "))
		}
	}
}

// checkImport checks an import of ours against the layers.
func (p *pkg) checkImport(bad *complaints, at place, im string) {
	if p.packages[im] == nil {
		return
	}
	if _, ok := testOnly[im]; ok {
		bad.add("must not import %s, which is for tests", im)
		return
	}
	to, ok := placeOf(im)
	if !ok {
		return // is complained of by itself
	}
	if only, ok := importers[to.name]; ok && !under(p.name, only) && !under(p.name, []string{to.name}) {
		bad.add("must not import %s: only %s may", im, strings.Join(only, ", "))
		return
	}
	if to == at || slices.Contains(exceptions[at.name], to.name) {
		return
	}
	own := layers[at.layer].own
	switch {
	case to.layer < at.layer || to.layer == at.layer && to.index < at.index:
		bad.add("must not import %s, which is above it", im)
	case to.layer == at.layer && !slices.Contains(own, to.name) && !slices.Equal(own, whole) && !under(im, []string{at.name}):
		bad.add("must not import %s, which is of its own layer (%s)", im, layers[at.layer].name)
	}
}

func (p *pkg) checkEffect(bad *complaints, im string) {
	for _, e := range effects {
		if !fits(im, []string{e.library}) {
			continue
		}
		if !under(p.name, e.places) {
			bad.add("must not import %s: only %s may", im, strings.Join(e.places, ", "))
		}
		return
	}
}

func (p *pkg) checkPure(bad *complaints) {
	for _, im := range p.imports {
		if fits(im, impure) && !fits(im, pureAfterAll) {
			bad.add("is pure and must not import %s", im)
		}
	}
	fset := token.NewFileSet()
	for _, name := range p.files {
		f, err := parser.ParseFile(fset, filepath.Join(p.dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			bad.add("cannot be parsed: %v", err)
			continue
		}
		for _, s := range impurities(fset, f) {
			bad.add("is pure and must not %s", s)
		}
	}
}

// impurities finds goroutines and clocks.
func impurities(fset *token.FileSet, f *ast.File) []string {
	var found []string
	say := func(n ast.Node, what string) {
		at := fset.Position(n.Pos())
		found = append(found, fmt.Sprintf("%s (%s:%d)", what, filepath.Base(at.Filename), at.Line))
	}
	clock := importName(f, "time")
	if clock == "." {
		say(f, "import time as a dot")
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n, "start a goroutine")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && clock != "" && x.Name == clock && slices.Contains(clocks, n.Sel.Name) {
				say(n, "use time."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// importName is what a file calls an import; empty if it does not import it.
func importName(f *ast.File, path string) string {
	for _, im := range f.Imports {
		if im.Path.Value != `"`+path+`"` {
			continue
		}
		if im.Name != nil {
			return im.Name.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:]
	}
	return ""
}

// checkThin checks what a command links through our packages.
func (p *pkg) checkThin(bad *complaints, libs []string) {
	seen := map[string]bool{}
	var walk func(q *pkg)
	walk = func(q *pkg) {
		for _, im := range q.imports {
			next := p.packages[im]
			switch {
			case seen[im]:
			case next != nil:
				seen[im] = true
				walk(next)
			case strings.Contains(strings.Split(im, "/")[0], ".") && !fits(im, libs):
				seen[im] = true
				bad.add("is thin and must not link %s (through %s)", im, q.name)
			}
		}
	}
	walk(p)
}

// place is where a package stands in the layers.
type place struct {
	name         string // the package that is named there
	layer, index int
}

// placeOf finds the place of a package or of the nearest directory above it that has one.
func placeOf(name string) (place, bool) {
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		for l := range layers {
			if i := slices.Index(layers[l].packages, dir); i >= 0 {
				return place{dir, l, i}, true
			}
		}
	}
	return place{}, false
}

func under(name string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return name == d || strings.HasPrefix(name, d+"/") })
}

func fits(im string, libs []string) bool {
	return slices.ContainsFunc(libs, func(l string) bool {
		return im == l || strings.HasSuffix(l, "/") && strings.HasPrefix(im, l)
	})
}
