package selector

import (
	"testing"
)

func TestConstructors(t *testing.T) {
	a, b, c := Equal("a", "1"), Has("b"), In("c", "z", "y", "z")
	for _, test := range []struct {
		got  *Selector
		want string
	}{
		{a, `a == "1"`},
		{b, `has(b)`},
		{c, `c in {"y", "z"}`},
		{NotEqual("a", "1"), `a != "1"`},
		{NotIn("a", "1"), `a not in {"1"}`},
		{In("a"), `a in {}`},
		{Not(a), `!a == "1"`},
		{Not(Not(a)), `a == "1"`},
		{Not(And(a, b)), `!(a == "1" && has(b))`},
		{And(), `all()`},
		{And(All(), a, All()), `a == "1"`},
		{And(a, And(b, c), All()), `(a == "1" && has(b) && c in {"y", "z"})`},
		{And(a, Not(And(b, c))), `(a == "1" && !(has(b) && c in {"y", "z"}))`},
		{And(a, Or(b, c)), `(a == "1" && (has(b) || c in {"y", "z"}))`},
		{Or(), `!all()`},
		{Or(a, Or(b, Not(All())), c), `(a == "1" || has(b) || c in {"y", "z"})`},
		{Or(a, All()), `(a == "1" || all())`},

		{MustParse(`k == 'v' && (has(x) || y in {'z'}) && !all()`).WithPrefix("pcns."),
			`(pcns.k == "v" && (has(pcns.x) || pcns.y in {"z"}) && !all())`},
		{MustParse(`!(!(k == 'v' && has(t) || all()) && (a not in {'b', 'c'}))`).WithPrefix("v/"),
			`!(!((v/k == "v" && has(v/t)) || all()) && v/a not in {"b", "c"})`},
		{MustParse(`all()`).Replace(b, nil), `has(b)`},
		{MustParse(`!all() || global()`).Replace(b, nil), `(!has(b) || global())`},
		{MustParse(`global() && all()`).Replace(b, Not(b)), `(!has(b) && has(b))`},
		{MustParse(`!global()`).Replace(b, Not(b)), `has(b)`},
		{MustParse(`has(all)`).Replace(b, b), `has(all)`},
	} {
		if test.got.String() != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
		checkStable(t, test.got)
	}
}

// TestRewriteCopies checks that rewriting leaves the original as it was.
func TestRewriteCopies(t *testing.T) {
	const text = `(a == "b" && (all() || has(c)))`
	s := MustParse(text)
	s.WithPrefix("x.")
	s.Replace(Has("d"), nil)
	And(s, Has("e"))
	if got := And(s).String(); got != text {
		t.Errorf("became %s", got)
	}
}

// TestUnwritable checks that what the language cannot write never prints as
// something else.
func TestUnwritable(t *testing.T) {
	evil := `x' || b != "y" || c != 'z`
	l := Map{"a": "x"}
	for _, test := range []struct {
		s    *Selector
		want bool
	}{
		{Equal("a", evil), false},
		{Equal("", "x"), false},
		{Equal("a b", "x"), false},
		{Equal("a==", "x"), false},
		{Has(`a) || has(b`), false},
		{Has("é"), false},
		{In("a", evil), false},
		{In("a", evil, "x"), true},
		{In("", "x"), false},
		{NotEqual("a", evil), true},
		{NotEqual("", "x"), true},
		{NotIn("a", evil), true},
		{NotIn("a", evil, "x"), false},
		{NotIn("", "x"), true},
	} {
		checkStable(t, test.s)
		if test.s.Matches(l) != test.want {
			t.Errorf("%s: want %v", test.s, test.want)
		}
	}
}

func TestIsAll(t *testing.T) {
	for text, want := range map[string]bool{"": true, "all()": true, "((all()))": true, "!all()": false, "global()": false, "has(a)": false} {
		if MustParse(text).IsAll() != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}
