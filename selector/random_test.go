package selector

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")

var (
	someLabels = []string{"a", "b", "in", "has", "x/y.z-1_"}
	someValues = []string{"", "a", "b", "ab", "ba", `"`, "'"}
)

// plain is the language's definition, written as a tree of closures beside the
// text it stands for; it shares nothing with the package but Labels.
type plain struct {
	text  string
	match func(Map) bool
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// space is any white space, often none.
func space(r *rand.Rand) string { return pick(r, []string{"", "", " ", "\t ", "\n"}) }

func quote(r *rand.Rand, v string) string {
	if strings.Contains(v, `"`) || (!strings.Contains(v, "'") && r.IntN(2) == 0) {
		return "'" + v + "'"
	}
	return `"` + v + `"`
}

// randomPlain makes a selector with up to depth levels of chains.
func randomPlain(r *rand.Rand, depth int) plain {
	if depth > 0 && r.IntN(2) == 0 {
		return randomChain(r, depth)
	}
	label, v := pick(r, someLabels), pick(r, someValues)
	q := space(r) + quote(r, v) + space(r)
	switch r.IntN(9) {
	case 0:
		return plain{"all(" + space(r) + ")" + space(r), func(Map) bool { return true }}
	case 1:
		return plain{"has(" + space(r) + label + space(r) + ")", func(m Map) bool { _, ok := m[label]; return ok }}
	case 2:
		return plain{label + space(r) + "==" + q, func(m Map) bool { w, ok := m[label]; return ok && w == v }}
	case 3:
		return plain{label + space(r) + "!=" + q, func(m Map) bool { w, ok := m[label]; return !ok || w != v }}
	case 4:
		return plain{label + " contains" + q, func(m Map) bool { w, ok := m[label]; return ok && strings.Contains(w, v) }}
	case 5:
		return plain{label + " starts" + space(r) + "with" + q, func(m Map) bool { w, ok := m[label]; return ok && strings.HasPrefix(w, v) }}
	case 6:
		return plain{label + " ends" + space(r) + "with" + q, func(m Map) bool { w, ok := m[label]; return ok && strings.HasSuffix(w, v) }}
	case 7:
		inner := randomPlain(r, depth)
		return plain{"!" + space(r) + "(" + inner.text + ")" + space(r), func(m Map) bool { return !inner.match(m) }}
	}
	return randomSet(r, label)
}

func randomSet(r *rand.Rand, label string) plain {
	set := map[string]bool{}
	var items []string
	for range r.IntN(4) {
		v := pick(r, someValues)
		set[v] = true
		items = append(items, space(r)+quote(r, v)+space(r))
	}
	body := "{" + strings.Join(items, ",") + "}" + space(r)
	if r.IntN(2) == 0 {
		return plain{label + " in" + space(r) + body, func(m Map) bool { w, ok := m[label]; return ok && set[w] }}
	}
	return plain{label + " not" + space(r) + "in" + space(r) + body, func(m Map) bool { w, ok := m[label]; return !ok || !set[w] }}
}

// randomChain joins operands without parentheses, so that precedence counts.
func randomChain(r *rand.Rand, depth int) plain {
	var or []plain
	for range 1 + r.IntN(3) {
		var and []plain
		var texts []string
		for range 1 + r.IntN(3) {
			kid := randomPlain(r, depth-1)
			kid.text = "(" + kid.text + ")"
			and, texts = append(and, kid), append(texts, kid.text)
		}
		or = append(or, plain{strings.Join(texts, space(r)+"&&"+space(r)), func(m Map) bool {
			for _, k := range and {
				if !k.match(m) {
					return false
				}
			}
			return true
		}})
	}
	var texts []string
	for _, k := range or {
		texts = append(texts, k.text)
	}
	return plain{strings.Join(texts, space(r)+"||"+space(r)), func(m Map) bool {
		for _, k := range or {
			if k.match(m) {
				return true
			}
		}
		return false
	}}
}

func randomLabels(r *rand.Rand) Map {
	m := Map{}
	for _, l := range someLabels {
		if r.IntN(2) == 0 {
			m[l] = pick(r, someValues)
		}
	}
	return m
}

// TestRandom holds parsing, matching, the canonical form, the constructors and
// the requirements against the plain definition.
func TestRandom(t *testing.T) {
	t.Logf("-seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 0))
	for range 1500 {
		p, q := randomPlain(r, 3), randomPlain(r, 1)
		s, other := mustParse(t, p.text), mustParse(t, q.text)
		checkStable(t, s)
		list, known := s.RequiresOneOf(func(Requirement) int { return r.IntN(3) })
		for range 10 {
			m := randomLabels(r)
			want := p.match(m)
			if s.Matches(m) != want || mustParse(t, s.String()).Matches(m) != want {
				t.Fatalf("%q on %v: want %v", p.text, m, want)
			}
			if want && known && !met(list, m) {
				t.Fatalf("%q matches %v, which meets none of %v", p.text, m, list)
			}
			if s.RequiresNoMore() && (!known || met(list, m) != want) {
				t.Fatalf("%q requires no more than %v and on %v is %v", p.text, list, m, want)
			}
			if And(s, other).Matches(m) != (want && q.match(m)) || Or(s, other).Matches(m) != (want || q.match(m)) || Not(s).Matches(m) == want {
				t.Fatalf("%s with %s on %v: wrong And, Or or Not", s, other, m)
			}
			prefixed := Map{}
			for k, v := range m {
				prefixed["p."+k] = v
			}
			if s.WithPrefix("p.").Matches(prefixed) != want {
				t.Fatalf("%s with a prefix on %v: want %v", s, prefixed, want)
			}
		}
		checkStable(t, And(s, other))
		checkStable(t, Not(Or(s, other)))
	}
}

func mustParse(t *testing.T, text string) *Selector {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		``, `all()`, `global()`, `!has(a)`, `a == 'b'`, `a in {"x", 'y',}`, `a not in {}`, `!(!(a != ""))`,
		`a contains "x" && (b starts with 'y' || c endswith "z")`, `a == "b" && %`, `((((has(a)))))`, `in in {"in"}`,
		"a == \"\xff\"", `a == 'x' || b != "y`, `has(`, `a not`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			e := err.(*Error)
			if n := len([]rune(text)); e.Column < 1 || e.Column > n+1 {
				t.Fatalf("column %d of %d characters", e.Column, n)
			}
			if strings.ContainsAny(e.Error(), "\r\n") {
				t.Fatalf("more than one line: %v", e)
			}
			return
		}
		checkStable(t, s)
		list, known := s.RequiresOneOf(nil)
		for _, m := range []Map{nil, {"a": "b"}, {"a": "x", "b": "yy", "c": "z", "in": "in"}} {
			if s.Matches(m) && known && !met(list, m) {
				t.Fatalf("%v is matched and meets none of %v", m, list)
			}
			if Not(s).Matches(m) == s.Matches(m) {
				t.Fatalf("negation agrees on %v", m)
			}
		}
	})
}
