package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// samples are measurements of one thing, in any unit, unordered.
type samples []float64

func (s *samples) add(x float64)         { *s = append(*s, x) }
func (s *samples) took(d time.Duration)  { s.add(ms(d)) }
func (s *samples) since(start time.Time) { s.took(time.Since(start)) }
func ms(d time.Duration) float64         { return float64(d) / float64(time.Millisecond) }
func (s samples) median() float64        { return s.quantile(0.5) }

func one(x float64) samples                    { return samples{x} }
func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// quantile is the smallest measurement that a share q of all do not exceed; 0 of none.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// result is a line of the table.
type result struct {
	Row, What string
	Unit      string
	Ours      samples `json:"-"`
	Floor     samples `json:"-"` // may be empty
	Aim       string  // of the ratio, or of the figure
	More      bool    // more is better: the ratio is of floor to ours
}

// ratio of the medians: 1 is the floor, 2 is twice as bad. 0 if there is no floor.
func (r *result) ratio() float64 {
	o, f := r.Ours.median(), r.Floor.median()
	if r.More {
		o, f = f, o
	}
	if f == 0 || len(r.Floor) == 0 {
		return 0
	}
	return o / f
}

func (r *result) worst(s samples) float64 {
	if r.More {
		return s.quantile(0.01)
	}
	return s.quantile(0.99)
}

// figures are p50 and p99, or the one figure. Of what is better when more, p99 is what all
// but a hundredth exceed.
func (r *result) figures(s samples) (p50, p99 string) {
	switch len(s) {
	case 0:
		return "", ""
	case 1:
		return number(s[0]), ""
	}
	return number(s.median()), number(r.worst(s))
}

// number has three digits that mean something.
func number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// table aligns the lines of results in columns.
func table(rs []*result) string {
	lines := [][]string{{"row", "what", "unit", "ours p50", "p99", "floor p50", "p99", "ratio", "aim", "n"}}
	for _, r := range rs {
		o50, o99 := r.figures(r.Ours)
		f50, f99 := r.figures(r.Floor)
		ratio := ""
		if x := r.ratio(); x != 0 {
			ratio = number(x)
		}
		lines = append(lines, []string{r.Row, r.What, r.Unit, o50, o99, f50, f99, ratio, r.Aim, fmt.Sprint(len(r.Ours))})
	}
	return align(lines, 3)
}

// align pads columns: the first left ones to the left, the others to the right.
func align(lines [][]string, left int) string {
	width := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, c := range l {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		for i, c := range l {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i < left {
				b.WriteString(c + pad + "  ")
			} else {
				b.WriteString(pad + c + "  ")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// record is a result as -o json prints it.
type record struct {
	Row, What, Unit                      string
	OursP50, OursP99, FloorP50, FloorP99 float64
	Ratio                                float64
	Aim                                  string
	Samples                              int
}

func records(rs []*result) (out []record) {
	for _, r := range rs {
		out = append(out, record{
			Row: r.Row, What: r.What, Unit: r.Unit, Aim: cmp.Or(r.Aim, ""), Samples: len(r.Ours), Ratio: r.ratio(),
			OursP50: r.Ours.median(), OursP99: r.worst(r.Ours), FloorP50: r.Floor.median(), FloorP99: r.worst(r.Floor),
		})
	}
	return out
}
