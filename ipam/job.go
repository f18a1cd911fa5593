package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/calicogo/calico/store"
)

const (
	maxTries      = 100 // as upstream
	maxExtraTries = 5   // of a job whose own extra ops fail
	maxOps        = 100 // of a batch; etcd takes 128 in a transaction
)

// job is one call that waits for its part of a commit. Those that wait at the same time
// are committed together by one of them, the leader, which has the turn.
type job struct {
	stage func(context.Context, *batch) (*change, error)
	extra func([]netip.Addr) ([]store.Op, error)
	now   time.Time
	fixed bool // the extra ops are the same in each try, so that it is vain to try again

	// Of the leader:
	fresh      bool // read the handle from the datastore
	tries      int
	extraTries int

	mu   sync.Mutex // held while extra runs
	gone bool       // guarded by mu: its caller has left

	// Results, to be read after done is closed:
	done  chan struct{}
	addrs []netip.Addr
	err   error
}

var (
	errGone = errors.New("caller has left")
	errWait = errors.New("an earlier job of the batch writes the same handle")
)

// extraOps calls the caller's function, unless the caller has left.
func (j *job) extraOps(addrs []netip.Addr) ([]store.Op, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return nil, errGone
	}
	if j.extra == nil {
		return nil, nil
	}
	return j.extra(slices.Clone(addrs))
}

func (j *job) isGone() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.gone
}

func (j *job) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.gone = true
}

func (j *job) isDone() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

func (j *job) finish(addrs []netip.Addr, err error) {
	j.addrs, j.err = addrs, err
	close(j.done)
}

// submit waits until the job is done, be it by another caller or by this one.
func (a *Allocator) submit(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.push(j)
	for !j.isDone() {
		select {
		case <-j.done:
		case a.turn <- struct{}{}:
			a.lead(ctx, j)
			<-a.turn
		case <-ctx.Done():
			j.leave()
			return ctx.Err()
		}
	}
	return j.err
}

func (a *Allocator) push(js ...*job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wait = append(a.wait, js...)
}

// take removes all waiting jobs, less those whose callers have left.
func (a *Allocator) take() []*job {
	a.mu.Lock()
	defer a.mu.Unlock()
	js := a.wait
	a.wait = nil
	return slices.DeleteFunc(js, (*job).isGone)
}

// lead works until own is done. It must have the turn.
func (a *Allocator) lead(ctx context.Context, own *job) {
	for !own.isDone() {
		if ctx.Err() != nil {
			// A job of this caller that is not done is waiting: it leaves the queue.
			own.leave()
			own.finish(nil, ctx.Err())
			return
		}
		a.round(ctx, own, a.take())
	}
}

// round stages the jobs, commits what they stage, and puts back those that must wait.
func (a *Allocator) round(ctx context.Context, own *job, js []*job) {
	b := newBatch(a)
	var later []*job
	for _, j := range js {
		if !a.stageJob(ctx, own, b, j) {
			later = append(later, j)
		}
	}
	if len(b.changes) > 0 {
		later = append(b.settle(ctx, b.commit(ctx)), later...)
	}
	a.push(later...)
}

// stageJob adds the job to the batch or ends it; false if it must wait.
func (a *Allocator) stageJob(ctx context.Context, own *job, b *batch, j *job) bool {
	c, err := j.prepare(ctx, a, b)
	switch {
	case err == nil:
		return b.add(j, c)
	case errors.Is(err, errWait):
		return false
	case ctx.Err() != nil && j != own:
		a.loaded = false
		return false // it is the leader's time that is up, not this job's
	}
	j.finish(nil, err)
	return true
}

func (j *job) prepare(ctx context.Context, a *Allocator, b *batch) (*change, error) {
	if err := a.load(ctx, j.now); err != nil {
		return nil, err
	}
	return j.stage(ctx, b)
}

// retry counts a try that failed for err and tells whether there is another.
func (j *job) retry(err error) bool {
	if j.tries++; j.tries < maxTries {
		return true
	}
	j.finish(nil, fmt.Errorf("gave up after %d tries: %w", maxTries, err))
	return false
}
