package selector

import (
	"strings"
	"testing"
)

// TestCanonical holds the table of canonical forms and ids that upstream gives.
func TestCanonical(t *testing.T) {
	for _, c := range []struct{ in, canonical, id string }{
		{"", `all()`, "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"},
		{`a=='b'`, `a == "b"`, "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ"},
		{`a=='b'&&has(c)`, `(a == "b" && has(c))`, "s:a7YG9G3XyFzmdwcUzkbtw0ffcKn8o5bm1xsGyQ"},
		{`! a not in {'y',"x"}`, `!a not in {"x", "y"}`, ""},
		{`a contains "x" || a starts with "y"`, `(a contains "x" || a starts with "y")`, ""},

		{" \t\n\r", `all()`, "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"},
		{" (all() )", `all()`, "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"},
		{`! (has( b)||! has(a ))`, `!(has(b) || !has(a))`, "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"},
		{`! (a == "b"&&! c != "d")`, `!(a == "b" && !c != "d")`, "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"},
		{"global( )", `global()`, ""},
		{"!global()", `!global()`, ""},
		{`a == "'"`, `a == "'"`, ""},
		{`a == '"'`, `a == '"'`, ""},
		{`a == ''`, `a == ""`, ""},
		{`a!='"'`, `a != '"'`, ""},
		{`a startswith '"'`, `a starts with '"'`, ""},
		{"a ends\nwith\"'\"", `a ends with "'"`, ""},
		{`a notin{}`, `a not in {}`, ""},
		{`a in {"d","a",'b','a',}`, `a in {"a", "b", "d"}`, ""},
		{`a in {'"', "'"}`, `a in {'"', "'"}`, ""},
		{`!!! has(a)`, `!has(a)`, ""},
		{`! !has(a)`, `has(a)`, ""},
		{`!(!has(a))`, `has(a)`, ""},
		{`a=="1"||b=="2"&&c=="3"`, `(a == "1" || (b == "2" && c == "3"))`, ""},
		{`has(a) && has(b) && has(c)`, `(has(a) && has(b) && has(c))`, ""},
		{`(has(a) && has(b)) && has(c)`, `((has(a) && has(b)) && has(c))`, ""},
		{`((has(a)))`, `has(a)`, ""},
		{`in in {"in"} && has == "x" || not not in {"y"}`, `((in in {"in"} && has == "x") || not not in {"y"})`, ""},
		{`contains contains "contains"`, `contains contains "contains"`, ""},
		{`has (in) && all ( )`, `(has(in) && all())`, ""},
		{`has(calico/k8s_NS-.1/role)`, `has(calico/k8s_NS-.1/role)`, ""},
		{`!(!(k == 'v' && has(t) || all()) && (a in {'b', 'c'}))`, `!(!((k == "v" && has(t)) || all()) && a in {"b", "c"})`, ""},
		{"a == \"\xff\n\"", "a == \"\xff\n\"", ""},
	} {
		s, err := Parse(c.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.in, err)
			continue
		}
		if s.String() != c.canonical {
			t.Errorf("Parse(%q) is %q, want %q", c.in, s, c.canonical)
		}
		if c.id != "" && s.ID() != c.id {
			t.Errorf("Parse(%q) has id %q, want %q", c.in, s.ID(), c.id)
		}
		checkStable(t, s)
	}
}

// checkStable checks that a canonical form parses back to itself.
func checkStable(t *testing.T, s *Selector) {
	t.Helper()
	again, err := Parse(s.String())
	if err != nil {
		t.Errorf("canonical form does not parse: %v", err)
		return
	}
	if again.String() != s.String() || again.ID() != s.ID() {
		t.Errorf("canonical form %q parses to %q, ids %q and %q", s, again, s.ID(), again.ID())
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		sel string
		yes []Map
		no  []Map
	}{
		{`a == "b"`, []Map{{"a": "b"}, {"a": "b", "c": "d"}}, []Map{nil, {"a": "c"}, {"c": "b"}, {"a": ""}}},
		{`a == ""`, []Map{{"a": ""}}, []Map{nil, {"a": "x"}}},
		{`a != "b"`, []Map{nil, {"a": "c"}, {"c": "b"}}, []Map{{"a": "b"}}},
		{`!a == "b"`, []Map{nil, {"a": "c"}}, []Map{{"a": "b"}}},
		{`!a != "b"`, []Map{{"a": "b"}}, []Map{nil, {"a": "c"}}},
		{`a in {"b", "c"}`, []Map{{"a": "b"}, {"a": "c"}}, []Map{nil, {"a": "d"}, {"a": ""}}},
		{`a in {}`, nil, []Map{nil, {"a": "d"}}},
		{`a not in {"b", "c"}`, []Map{nil, {"a": "d"}}, []Map{{"a": "b"}, {"a": "c"}}},
		{`a not in {}`, []Map{nil, {"a": "d"}}, nil},
		{`a in {"'", '"', "c"}`, []Map{{"a": "'"}, {"a": `"`}, {"a": "c"}}, []Map{nil, {"a": "e"}}},
		{`has(a)`, []Map{{"a": ""}, {"a": "b"}}, []Map{nil, {"b": "a"}}},
		{`!has(a)`, []Map{nil, {"b": "a"}}, []Map{{"a": ""}}},
		{`a contains "a"`, []Map{{"a": "a"}, {"a": "bab"}}, []Map{nil, {"a": "b"}, {"b": "a"}}},
		{`a contains ""`, []Map{{"a": ""}, {"a": "bab"}}, []Map{nil}},
		{`a starts with "ab"`, []Map{{"a": "ab"}, {"a": "abc"}}, []Map{nil, {"a": "a"}, {"a": "cab"}}},
		{`a ends with "ab"`, []Map{{"a": "ab"}, {"a": "cab"}}, []Map{nil, {"a": "b"}, {"a": "abc"}}},
		{`all()`, []Map{nil, {"a": "b"}}, nil},
		{`!all()`, nil, []Map{nil, {"a": "b"}}},
		{`global()`, []Map{nil, {"a": "b"}}, nil},
		{`!global()`, nil, []Map{nil, {"a": "b"}}},
		{`a == "1" && b == "2"`, []Map{{"a": "1", "b": "2"}}, []Map{nil, {"a": "1"}, {"b": "2"}, {"a": "1", "b": "1"}}},
		{`a == "1" || b == "2"`, []Map{{"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}}, []Map{nil, {"a": "2", "b": "1"}}},
		{`a == "1" || b == "2" && c == "3"`, []Map{{"a": "1"}, {"b": "2", "c": "3"}}, []Map{{"b": "2"}, {"c": "3"}}},
		{`(a == "1" || b == "2") && c == "3"`, []Map{{"a": "1", "c": "3"}}, []Map{{"a": "1"}}},
		{`!(a == "1" && b == "2")`, []Map{nil, {"a": "1"}}, []Map{{"a": "1", "b": "2"}}},
		{`!(!has(a) || has(b))`, []Map{{"a": "1"}}, []Map{nil, {"a": "1", "b": "2"}}},
	} {
		s := MustParse(c.sel)
		for _, l := range c.yes {
			if !s.Matches(l) {
				t.Errorf("%s does not match %v", c.sel, l)
			}
		}
		for _, l := range c.no {
			if s.Matches(l) {
				t.Errorf("%s matches %v", c.sel, l)
			}
		}
	}
	if (&Selector{}).Matches(Map{"a": "b"}) {
		t.Error("the zero Selector matches")
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		in     string
		column int
		part   string
	}{
		{`b == b`, 6, `expected a quoted string, found b`},
		{`b contains b`, 12, `expected a quoted string`},
		{`b starts with b`, 15, `expected a quoted string`},
		{`b starts b`, 10, `expected "with", found b`},
		{`b not "b"`, 7, `expected "in", found '"'`},
		{`b`, 2, `found the end`},
		{`b `, 3, `found the end`},
		{`a b`, 3, `expected ==, !=, in, not in, contains, starts with or ends with, found b`},
		{`a = "b"`, 3, `expected "==", found "="`},
		{`a & "b"`, 3, `found "&"`},
		{`'b1' == b`, 1, `expected a label, has(), all(), global() or "("`},
		{`!`, 2, `found the end`},
		{`!= "a"`, 1, `found !=`},
		{`foo == "bar" &`, 14, `expected "&&", "||" or the end, found "&"`},
		{`foo == "bar" has(x)`, 14, `found has`},
		{`foo == "bar" )`, 14, `found ")"`},
		{`foo != ||`, 8, `expected a quoted string, found ||`},
		{`foo in {"", ||`, 13, `expected a quoted string`},
		{`foo in {"a" "b"}`, 13, `expected "," or "}"`},
		{`foo in {,}`, 9, `expected a quoted string`},
		{`foo in {"a"`, 12, `expected "," or "}", found the end`},
		{`foo in ""`, 8, `expected a set such as`},
		{`a == "FOO'`, 6, `no closing "`},
		{`a == 'FOO`, 6, `no closing '`},
		{`(`, 2, `found the end`},
		{`()`, 2, `found ")"`},
		{`)`, 1, `found ")"`},
		{`(a == "foo"`, 12, `expected "&&", "||" or ")"`},
		{`has()`, 5, `expected a label`},
		{`has(a b)`, 7, `expected ")"`},
		{`all(a)`, 5, `expected ")"`},
		{`has(foo) &&`, 12, `found the end`},
		{`a == "b" && %`, 13, `found "%"`},
		{`like(foo)`, 1, `unknown function like()`},
		{`a == "é" && ü`, 13, `found "ü"`},
		{"a == \"b\"\x00", 9, `found "\x00"`},
		{strings.Repeat("(", maxDepth+1), maxDepth + 1, `parentheses nest deeper`},
	} {
		_, err := Parse(c.in)
		e, ok := err.(*Error)
		if !ok {
			t.Errorf("Parse(%q): %v, want an *Error", c.in, err)
			continue
		}
		if e.Column != c.column || !strings.Contains(e.Msg, c.part) || e.Input != c.in {
			t.Errorf("Parse(%q): column %d, %q, want %d, %q", c.in, e.Column, e.Msg, c.column, c.part)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%q): more than one line: %v", c.in, err)
		}
	}
}

func TestErrorText(t *testing.T) {
	_, err := Parse(`a == "b" && c = "d"`)
	want := `selector column 15: expected "==", found "=", at » in: a == "b" && c »= "d"`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err = Parse(strings.Repeat("has(a) && ", 1000) + "?" + strings.Repeat(" && has(a)", 1000))
	if n := len(err.Error()); n > 200 || !strings.Contains(err.Error(), "&& has(a) && »? && has(a) &&") || !strings.Contains(err.Error(), "column 10001") {
		t.Errorf("%d bytes: %v", n, err)
	}
}

// TestDepth checks that the canonical form of whatever parses, parses, though
// chains that mix && and || gain parentheses in it.
func TestDepth(t *testing.T) {
	nest := func(n int) string {
		return strings.Repeat(`has(a) || has(b) && (`, n) + `has(c)` + strings.Repeat(")", n)
	}
	s, err := Parse(nest(maxDepth / 2))
	if err != nil {
		t.Fatal(err)
	}
	checkStable(t, s)
	if _, err := Parse(nest(maxDepth/2 + 1)); err == nil {
		t.Error("canonical form deeper than the limit was accepted")
	}
	if _, err := Parse(strings.Repeat("!", 1_000_000) + "has(a)"); err != nil {
		t.Error(err)
	}
	if _, err := Parse(strings.Repeat("(", 1_000_000)); err == nil {
		t.Error("no depth limit")
	}
}

func TestMatchesAllocatesNothing(t *testing.T) {
	s := MustParse(`a == "b" && (c in {"d", "e"} || !has(f)) && g contains "h"`)
	l := Map{"a": "b", "f": "x", "c": "e", "g": "xhx"}
	if n := testing.AllocsPerRun(100, func() {
		if !s.Matches(l) {
			t.Error("does not match")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
