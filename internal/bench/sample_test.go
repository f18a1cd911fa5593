package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var hundred samples
	for i := range 100 {
		hundred.add(float64(100 - i))
	}
	for _, c := range []struct {
		s        samples
		p50, p99 float64
	}{
		{nil, 0, 0},
		{samples{7}, 7, 7},
		{samples{2, 1}, 1, 2},
		{samples{3, 1, 2}, 2, 3},
		{hundred, 50, 99},
	} {
		before := slices.Clone(c.s)
		if p50, p99 := c.s.median(), (&result{}).worst(c.s); p50 != c.p50 || p99 != c.p99 {
			t.Errorf("%v: p50 %v, p99 %v; want %v, %v", c.s, p50, p99, c.p50, c.p99)
		}
		if !slices.Equal(before, c.s) {
			t.Errorf("%v was put into order", before)
		}
	}
}

func TestWorstOfRatesIsTheLeast(t *testing.T) {
	if got := (&result{More: true}).worst(samples{3, 1, 2}); got != 1 {
		t.Errorf("%v", got)
	}
}

func TestRatioIsWorseAboveOne(t *testing.T) {
	for _, c := range []struct {
		r    result
		want float64
	}{
		{result{Ours: samples{4}, Floor: samples{2}}, 2},
		{result{Ours: samples{2}, Floor: samples{4}, More: true}, 2}, // half as many a second
		{result{Ours: samples{2}}, 0},
		{result{Floor: samples{2}, More: true}, 0},
	} {
		if got := c.r.ratio(); got != c.want {
			t.Errorf("%+v: ratio %v, want %v", c.r, got, c.want)
		}
	}
}

func TestTableIsAligned(t *testing.T) {
	lines := strings.Split(strings.TrimRight(table([]*result{
		{Row: "cni", What: "ADD", Unit: "ms", Ours: samples{1, 2}, Floor: samples{0.5}, Aim: "2x"},
		{Row: "calc", What: "one pod", Unit: "µs", Ours: samples{1234}},
	}), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines[1:] {
		if got, want := len([]rune(l)), len([]rune(lines[0])); got != want {
			t.Errorf("a line of %d columns below one of %d:\n%s\n%s", got, want, lines[0], l)
		}
	}
	if f := strings.Fields(lines[1]); !slices.Equal(f, []string{"cni", "ADD", "ms", "1.00", "2.00", "0.500", "2.00", "2x", "2"}) {
		t.Errorf("%q", f)
	}
}

func TestParallelWorkIsDoneOnceAndFailsWhole(t *testing.T) {
	done := make([]int, 50)
	atOnce(len(done), 8, func(i int) { done[i]++ })
	if slices.Min(done) != 1 || slices.Max(done) != 1 {
		t.Errorf("done %v times, want once each", done)
	}
	defer func() {
		if x := recover(); x == nil {
			t.Error("a failure in one of many was lost")
		}
	}()
	atOnce(len(done), 8, func(i int) {
		if i == 7 {
			must(errTest)
		}
	})
}

var errTest = errors.New("on purpose")

func TestPerSecond(t *testing.T) {
	if got := perSecond(30, 100*time.Millisecond); got != 300 {
		t.Errorf("%v", got)
	}
}
