package selector

import "testing"

const benchText = `a == "b" && (has(c) || d in {"e", "f"}) && !g starts with "h"`

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(benchText); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCanonical(b *testing.B) {
	text := `(projectcalico.org/namespace == "default" && app == "web")`
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	s := MustParse(benchText)
	l := Map{"a": "b", "d": "f", "g": "x", "pod-template-hash": "1234", "app": "web"}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Matches(l) {
			b.Fatal("does not match")
		}
	}
}
