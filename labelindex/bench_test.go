package labelindex

import (
	"fmt"
	"testing"

	"github.com/calicogo/calico/selector"
)

// byApp returns n selectors as policies have them.
func byApp(n int) []*selector.Selector {
	all := make([]*selector.Selector, n)
	for i := range all {
		all[i] = selector.MustParse(fmt.Sprintf("projectcalico.org/orchestrator == 'k8s' && app == 'app-%d' && tier in {'front', 'back'}", i))
	}
	return all
}

// podLabels returns the labels of pod i of an app, nearly those of a real one.
func podLabels(app, i int) map[string]string {
	return map[string]string{
		"app":                              fmt.Sprintf("app-%d", app),
		"tier":                             []string{"front", "back", "db"}[app%3],
		"pod-template-hash":                fmt.Sprintf("%x", app*7919),
		"rev":                              fmt.Sprint(i),
		"projectcalico.org/namespace":      fmt.Sprintf("ns-%d", app%100),
		"projectcalico.org/serviceaccount": "default",
		"projectcalico.org/orchestrator":   "k8s",
	}
}

// BenchmarkSetItem changes one endpoint's labels under 10,000 selectors. Every
// change makes a class and ends one.
func BenchmarkSetItem(b *testing.B) {
	x := New(func(int, int, bool) {})
	for i, s := range byApp(10_000) {
		x.AddSelector(i, s)
	}
	one, other := podLabels(1, 0), podLabels(3, 1)
	parents := []string{"kns.ns-1", "ksa.ns-1.default"}
	b.ReportAllocs()
	for b.Loop() {
		x.SetItem(1, one, parents)
		x.SetItem(1, other, parents)
	}
}

// BenchmarkAddSelector adds and removes one policy beside 10,000 endpoints.
func BenchmarkAddSelector(b *testing.B) {
	x := New(func(int, int, bool) {})
	for i := range 10_000 {
		x.SetItem(i, podLabels(i%1000, i), []string{"kns"})
	}
	s := selector.MustParse("projectcalico.org/orchestrator == 'k8s' && app == 'app-7' && tier != 'x'")
	b.ReportAllocs()
	for b.Loop() {
		x.AddSelector(1, s)
		x.RemoveSelector(1)
	}
}

// BenchmarkSetParent changes the labels of a namespace with 1,000 endpoints in
// 10 classes, under 10,000 selectors.
func BenchmarkSetParent(b *testing.B) {
	x := New(func(int, int, bool) {})
	for i, s := range byApp(10_000) {
		x.AddSelector(i, s)
	}
	for i := range 1000 {
		x.SetItem(i, podLabels(i%10, 0), []string{"kns"})
	}
	one, other := map[string]string{"pcns.a": "1"}, map[string]string{"pcns.a": "2"}
	b.ReportAllocs()
	for b.Loop() {
		x.SetParent("kns", one)
		x.SetParent("kns", other)
	}
}

// BenchmarkSnapshot fills an index with 250,000 endpoints and 10,000
// selectors: shared has 100 endpoints with the same labels each, as replicas
// have; unique has none.
func BenchmarkSnapshot(b *testing.B) {
	selectors := byApp(10_000)
	for _, c := range []struct {
		name string
		rev  func(i int) int
	}{
		{"shared", func(int) int { return 0 }},
		{"unique", func(i int) int { return i }},
	} {
		b.Run(c.name, func(b *testing.B) {
			all := make([]map[string]string, 250_000)
			for i := range all {
				all[i] = podLabels(i%2500, c.rev(i))
			}
			parents := []string{"kns.default", "ksa.default.default"}
			b.ReportAllocs()
			for b.Loop() {
				x := New(func(int, int, bool) {})
				for i, s := range selectors {
					x.AddSelector(i, s)
				}
				for i, l := range all {
					x.SetItem(i, l, parents)
				}
				b.ReportMetric(float64(x.Stats().Evaluations), "evaluations/op")
			}
		})
	}
}
