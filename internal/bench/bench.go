package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// bench is the state of a run: what the rows share.
type bench struct {
	options options
	results []*result
	now     string // the row that runs
	closers []func()
}

func newBench(o options) (*bench, error) { return &bench{options: o}, nil }

// row runs one row and then ends whatever it started.
func (b *bench) row(ctx context.Context, r row) (err error) {
	b.now = r.name
	defer func() {
		for len(b.closers) > 0 {
			last := b.closers[len(b.closers)-1]
			b.closers = b.closers[:len(b.closers)-1]
			last()
		}
	}()
	defer func() {
		if x := recover(); x != nil {
			p, ok := x.(failure)
			if !ok {
				panic(x)
			}
			err = p.error
		}
	}()
	return r.run(ctx, b)
}

// cleanup has f called when the row ends, the last one first.
func (b *bench) cleanup(f func()) { b.closers = append(b.closers, f) }

// failure ends a row.
type failure struct{ error }

// must ends the row if there are errors.
func must(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		panic(failure{err})
	}
}

// got is must for a function's result.
func got[T any](x T, err error) T {
	must(err)
	return x
}

// report adds a line to the table.
func (b *bench) report(r result) {
	r.Row = b.now
	b.results = append(b.results, &r)
	fmt.Fprint(os.Stderr, "bench:   ", brief(&r), "\n")
}

func brief(r *result) string {
	p50, p99 := r.figures(r.Ours)
	f50, _ := r.figures(r.Floor)
	return fmt.Sprintf("%s: %s (p99 %s) %s, floor %s, ratio %s", r.What, p50, p99, r.Unit, f50, number(r.ratio()))
}

// n is how many samples: some, or in the long run more.
func (b *bench) n(short, long int) int {
	if b.options.Long {
		return long
	}
	return short
}

// turns calls f for each of up to n samples, fewer if they take too long: but one.
func (b *bench) turns(n int, f func(i int)) {
	limit := time.Duration(b.n(25, 180)) * time.Second
	start := time.Now()
	for i := range n {
		if f(i); time.Since(start) > limit {
			return
		}
	}
}
