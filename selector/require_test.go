package selector

import (
	"fmt"
	"strings"
	"testing"
)

func TestRequiresOneOf(t *testing.T) {
	for _, c := range []struct{ sel, want string }{
		{`all()`, "unknown"},
		{`global()`, "unknown"},
		{`!all()`, "nothing"},
		{`a in {}`, "nothing"},
		{`a == "b"`, "a=b"},
		{`a in {"b", "c"}`, "a=b a=c"},
		{`has(a)`, "a"},
		{`a contains "x"`, "a"},
		{`a starts with "x"`, "a"},
		{`a ends with "x"`, "a"},
		{`a != "b"`, "unknown"},
		{`a not in {"b"}`, "unknown"},
		{`!has(a)`, "unknown"},
		{`!a == "b"`, "unknown"},
		{`!a in {"b"}`, "unknown"},
		{`!a contains "b"`, "unknown"},
		{`!a != "b"`, "a=b"},
		{`!a not in {"b", "c"}`, "a=b a=c"},
		{`has(a) && b == "c"`, "b=c"},
		{`b == "c" && has(a)`, "b=c"},
		{`b in {"c", "d"} && e == "f"`, "e=f"},
		{`all() && a != "b" && has(c)`, "c"},
		{`all() && a != "b"`, "unknown"},
		{`a == "b" && c in {}`, "nothing"},
		{`a == "b" || has(c)`, "a=b c"},
		{`a == "b" || all()`, "unknown"},
		{`a == "b" || !all()`, "a=b"},
		{`(a == "b" && has(c)) || (d == "e" && f != "g")`, "a=b d=e"},
		{`!(a == "b" && c == "d")`, "unknown"},
		{`!(a != "b" || !has(c))`, "a=b"},
		{`!(a != "b" && !has(c))`, "a=b c"},
		{`!(!(a == "b" || c == "d") || all())`, "nothing"},
		{`has(x) && (a == "b" || c != "d") && (e == "f" || g == "h")`, "e=f g=h"},
	} {
		if got := describe(MustParse(c.sel).RequiresOneOf(nil)); got != c.want {
			t.Errorf("%s requires %s, want %s", c.sel, got, c.want)
		}
	}
	for sel, want := range map[string]bool{
		`has(a)`: true, `a == "b"`: true, `a in {"b", "c"}`: true, `a in {}`: true,
		`!has(a)`: false, `!a == "b"`: false, `a contains "b"`: false, `a != "b"`: false, `all()`: false, `has(a) && has(b)`: false,
	} {
		if got := MustParse(sel).RequiresNoMore(); got != want {
			t.Errorf("%s requires no more: %v", sel, got)
		}
	}
	dear := func(r Requirement) int {
		if r.Label == "namespace" {
			return 100
		}
		return 10
	}
	s := MustParse(`namespace == "a" && (app == "b" || app == "c")`)
	if got := describe(s.RequiresOneOf(dear)); got != "app=b app=c" {
		t.Errorf("got %s", got)
	}
}

func describe(list []Requirement, known bool) string {
	if !known {
		return "unknown"
	}
	if len(list) == 0 {
		return "nothing"
	}
	var parts []string
	for _, r := range list {
		if r.Any {
			parts = append(parts, r.Label)
		} else {
			parts = append(parts, fmt.Sprintf("%s=%s", r.Label, r.Value))
		}
	}
	return strings.Join(parts, " ")
}

// met tells whether the labels meet one of the requirements.
func met(list []Requirement, l Labels) bool {
	for _, r := range list {
		if v, ok := l.Get(r.Label); ok && (r.Any || v == r.Value) {
			return true
		}
	}
	return false
}
