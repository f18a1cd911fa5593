package felix

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
)

// Watch has the agent mend at once what others change in what its drivers hold in the kernel, in
// the namespace of descriptor ns or netlink.Current, until ctx ends. What the agent itself
// changes costs nothing, what is not the agent's next to nothing.
func (a *Agent) Watch(ctx context.Context, ns int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watchTables(ctx, ns) })
	g.Go(func() error { return a.watchLinks(ctx, ns) })
	return g.Wait()
}

// driver returns the agent's driver of that type, if it has one.
func driver[T any](a *Agent) (d T, ok bool) {
	for _, x := range a.cfg.Drivers {
		if d, ok = x.Driver.(T); ok {
			return d, true
		}
	}
	return d, false
}

// watchTables has the rules put right when somebody changed them. Who goes on changing them is
// answered with growing pauses, and named in a problem.
func (a *Agent) watchTables(ctx context.Context, ns int) error {
	rules, ok := driver[*rules](a)
	if !ok || rules.nft == nil {
		return nil
	}
	m, err := netlink.NewTableMonitor(ns, nft.TableName, rules.nft.Port())
	if err != nil {
		return err
	}
	a.Resync(DriverRules) // nothing, unless it was read before there was a monitor
	pace := &pacer{
		answer: func() { a.Resync(DriverRules, DriverFlows) }, // flows, too: what the table lacked may have let some begin
		quiet:  func() { a.note("table", "") },
	}
	defer pace.stop()
	return m.Run(ctx, func(c netlink.TableChange) {
		keeps := pace.change()
		if c.Lost {
			return
		}
		what := strings.Join(c.Objects, ", ")
		if keeps {
			a.noteOnce("table", fmt.Sprintf("%s keeps changing table %s (%s); it is put back, but between its changes the policy is not what it should be: stop it",
				c.Process, nft.TableName, what))
			return
		}
		a.cfg.Log.Warn("somebody changed our table; putting it back", "table", nft.TableName, "what", what, "by", c.By())
	})
}

// noteOnce notes a problem of a part that has none yet.
func (a *Agent) noteOnce(part, message string) {
	a.mu.Lock()
	has := a.notes[part] != ""
	a.mu.Unlock()
	if !has {
		a.note(part, message)
	}
}

// note has the status show a problem that no driver tells of; "": there is none.
func (a *Agent) note(part, message string) {
	a.mu.Lock()
	same := a.notes[part] == message
	if message == "" {
		delete(a.notes, part)
	} else {
		a.notes[part] = message
	}
	a.mu.Unlock()
	if !same {
		a.loop.Bell.Ring()
	}
}
