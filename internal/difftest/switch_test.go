package difftest

import (
	"context"
	"testing"
)

// TestNothingPassesWhileBackendsChange sends packets that policy denies while the rules go from one
// backend to another, as felix has them go: the new one adopts the compilers and brings the kernel
// there, and then the old one cleans up.
func TestNothingPassesWhileBackendsChange(t *testing.T) {
	t.Parallel()
	r := newRestless(t, newJudge(t, backends[0]))
	r.mustPass()
	r.change(r.deny(0))
	r.nonePasses(func() error {
		for i := range Count(t, "DIFFTEST_SWITCHES", 12) {
			next := backends[0]
			if i%2 == 0 { // from one variant of iptables to the other it goes by itself
				next = backends[1+i/2%(len(backends)-1)]
			}
			if err := r.become(next); err != nil {
				return err
			}
			r.d.Update(r.deny(r.g.IntN(3)))
			if err := r.d.Sync(context.Background()); err != nil {
				return err
			}
		}
		return nil
	})
	r.w.must(r.quiet(r.d))
}

// become has another backend take the place of the present one.
func (j *judge) become(b backend) error {
	next, err := b.open(j.w.node)
	if err != nil {
		return err
	}
	old := j.d
	defer old.Close()
	next.Adopt(old.Compilers())
	j.backend, j.d = b, next
	if err := next.Sync(context.Background()); err != nil {
		return err
	}
	return old.Clean(context.Background())
}
