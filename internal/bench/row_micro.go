package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/calicogo/calico/labelindex"
	"github.com/calicogo/calico/selector"
)

// runMicro measures single functions: many calls a sample.
func runMicro(_ context.Context, b *bench) error {
	const expression = `a == "b" && (has(c) || d in {"e", "f"}) && !g starts with "h"`
	sel, err := selector.Parse(expression)
	if err != nil {
		return err
	}
	labels := selector.Map{"a": "b", "d": "f", "g": "x", "pod-template-hash": "1234", "app": "web"}
	quoted := got(json.Marshal(expression))
	var s string
	b.compare("selector, parse (floor: the text from JSON)", "1 µs", 2000,
		func(int) { _, err = selector.Parse(expression) },
		func(int) { must(json.Unmarshal(quoted, &s)) })
	found := false
	b.compare("selector, evaluate (floor: its look-ups in a map)", "0.05 µs", 20_000,
		func(int) { found = sel.Matches(labels) },
		func(int) { _ = labels["a"] == "b" && labels["d"] == "f" && labels["g"] == "x" && labels["c"] == "" })
	if err != nil || !found {
		return fmt.Errorf("selector: %v, matches: %v", err, found)
	}
	b.labelIndex()
	return nil
}

// labelIndex changes one endpoint's labels under 10,000 selectors.
func (b *bench) labelIndex() {
	changes := 0
	x := labelindex.New(func(int, int, bool) { changes++ })
	for i := range 10_000 {
		x.AddSelector(i, selector.MustParse(fmt.Sprintf("projectcalico.org/orchestrator == 'k8s' && app == 'app-%d' && tier in {'front', 'back'}", i)))
	}
	var labels [2]map[string]string
	var bodies [2][]byte
	for i := range labels {
		labels[i] = map[string]string{"app": fmt.Sprint("app-", i), "tier": "front", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}
		bodies[i] = got(json.Marshal(labels[i]))
	}
	b.compare("label index, an endpoint's labels under 10,000 selectors (floor: the labels from JSON)", "50 µs", 200,
		func(i int) { x.SetItem(1, labels[i%2], []string{"kns.default"}) },
		func(i int) { must(json.Unmarshal(bodies[i%2], &map[string]string{})) })
	if changes == 0 {
		must(fmt.Errorf("the label index saw no change"))
	}
}

// compare reports microseconds a call, in samples of n calls.
func (b *bench) compare(what, aim string, n int, ours, floor func(i int)) {
	r := result{What: what, Unit: "µs", Aim: aim}
	timed := func(f func(int)) float64 {
		start := time.Now()
		for i := range n {
			f(i)
		}
		return 1000 * ms(time.Since(start)) / float64(n)
	}
	for range b.n(30, 200) {
		r.Ours.add(timed(ours))
		r.Floor.add(timed(floor))
	}
	b.report(r)
}
