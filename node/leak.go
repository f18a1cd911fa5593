package node

import (
	"context"
	"errors"
	"time"

	"github.com/calicogo/calico/cni"
	"github.com/calicogo/calico/store"
)

const (
	sweepPeriod = 5 * time.Minute
	// sweepAgain is when what looked like a leak is looked at once more.
	sweepAgain = 10 * time.Second
)

// leaks is what the node knows of what pods may have left behind.
type leaks struct {
	inventory *cni.Inventory
	adopted   bool // pods without a record were looked for; the update stream's own
}

// leaksUpdate keeps the inventory. When it is whole for the first time pods that live here
// without a record are given one, before the agent makes the first rules of this update.
func (r *runtime) leaksUpdate(u store.Update) {
	r.leaks.inventory.Update(u)
	if !u.InSync || r.leaks.adopted {
		return
	}
	r.leaks.adopted = true
	foreign, err := r.cni.Adopt(r.leaks.inventory)
	r.noteForeign(foreign, err)
}

func (r *runtime) noteForeign(foreign []error, err error) {
	if all := errors.Join(append(foreign, err)...); r.board.note("pods", oneLine(all)) && all != nil {
		r.log.Warn("pods without a record", "error", all)
	}
}

// oneLine joins what errors.Join joined, for a condition's message.
func oneLine(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	text := ""
	for i, e := range joined.Unwrap() {
		if i > 0 {
			text += "; "
		}
		text += e.Error()
	}
	return errors.New(text)
}

// watchLeaks looks for leaks when the node has become ready, and then every while.
func (r *runtime) watchLeaks(ctx context.Context) error {
	r.board.wait(ctx, func(s Status) bool { return s.Ready })
	period := r.cfg.Sweep
	if period == 0 {
		period = sweepPeriod
	}
	for {
		pause := period
		if r.sweep(ctx) {
			pause = min(period, sweepAgain)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// sweep removes leaks and gives back blocks that are empty; it returns whether to do so
// again soon. While the datastore does not answer nothing is judged: the view may be old.
func (r *runtime) sweep(ctx context.Context) (again bool) {
	if r.board.unable() != nil {
		return true
	}
	f, err := r.cni.Sweep(ctx, r.leaks.inventory)
	r.noteForeign(f.Foreign, nil)
	if r.leaks.inventory.Surplus() {
		gone, errBlocks := r.alloc.ReleaseEmptyBlocks(ctx, time.Now())
		if len(gone) > 0 {
			r.log.Info("empty blocks were given back", "blocks", gone)
		}
		err = errors.Join(err, errBlocks)
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("what pods left behind cannot be removed yet", "error", err)
	}
	return f.Again || err != nil
}
