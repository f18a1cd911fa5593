package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/iptables"
)

// runIptables measures the driver of iptables as runRules does that of nftables, beside one run of
// iptables-restore and of ipset restore with the same objects in another namespace; and the agent with it.
func runIptables(ctx context.Context, b *bench) error {
	b.iptables(ctx, rulesEndpoints/100, rulesEndpoints/100)
	b.iptables(ctx, rulesEndpoints, 1)
	if b.options.Long {
		b.iptables(ctx, rulesEndpoints, rulesEndpoints)
	}
	return b.policyFlips(ctx, "iptables: ", []int{1000}, "FELIX_NFTABLESMODE=Disabled")
}

// iptablesWorld is a driver, and beside it a namespace with the same objects.
type iptablesWorld struct {
	ctx         context.Context
	bench       *bench
	ours, floor *netns
	driver      *iptables.Driver
	base        *saved
}

func (b *bench) iptables(ctx context.Context, endpoints, ways int) {
	what := fmt.Sprintf("%d policies, %d endpoints, %d members", ways*rulesEach, endpoints, ways*rulesEach*rulesMembers)
	state := rulesState(endpoints, ways)
	w := &iptablesWorld{ctx: ctx, bench: b, ours: got(newNS()), floor: got(newNS())}
	b.cleanup(w.ours.close)
	b.cleanup(w.floor.close)
	empty := savedIn(w.ours)
	w.driver = got(iptables.New(int(w.ours.Fd()), iptables.Config{}))
	b.cleanup(w.driver.Close)
	w.driver.Update(state.Delta())
	must(w.driver.Sync(ctx))
	w.base = savedIn(w.ours)
	all := empty.to(w.base)
	all.commit(w.floor)
	b.iptablesStart(ctx, what, state, all)
	w.readBack(what)
	for _, c := range b.rulesChanges(state, endpoints) {
		w.measure(c, what)
	}
}

// iptablesStart measures the first Sync of a driver in an empty namespace.
func (b *bench) iptablesStart(ctx context.Context, what string, state *dataplane.State, all edit) {
	delta := state.Delta()
	var ours, floor samples
	b.turns(b.n(3, 10), func(int) {
		n, bare := got(newNS()), got(newNS())
		defer n.close()
		defer bare.close()
		runtime.GC()
		start := time.Now()
		d := got(iptables.New(int(n.Fd()), iptables.Config{}))
		d.Update(delta)
		must(d.Sync(ctx))
		ours.since(start)
		d.Close()
		start = time.Now()
		all.commit(bare)
		floor.since(start)
	})
	b.report(result{What: "iptables start, " + what, Unit: "ms", Ours: ours, Floor: floor, Aim: "2x"})
}

func (w *iptablesWorld) readBack(what string) {
	var ours, floor samples
	for range w.bench.n(3, 10) {
		w.driver.Resync()
		start := time.Now()
		must(w.driver.Sync(w.ctx))
		ours.since(start)
		start = time.Now()
		savedIn(w.floor)
		floor.since(start)
	}
	w.bench.report(result{What: "iptables read-back, " + what, Unit: "ms", Ours: ours, Floor: floor})
}

// measure has something change and change back.
func (w *iptablesWorld) measure(c rulesChange, what string) {
	flip := func(on bool) {
		d := dataplane.NewDelta()
		c.change(d, on)
		w.driver.Update(d)
		must(w.driver.Sync(w.ctx))
	}
	flip(false)
	off := savedIn(w.ours)
	flip(true)
	on := savedIn(w.ours)
	there, back := off.to(on), on.to(off)
	first := w.base.to(off)
	first.commit(w.floor)
	flip(false)
	var ours, floor samples
	w.bench.turns(c.n, func(i int) {
		e := &back
		if i%2 == 0 {
			e = &there
		}
		start := time.Now()
		flip(i%2 == 0)
		ours.since(start)
		start = time.Now()
		e.commit(w.floor)
		floor.since(start)
	})
	flip(false)
	if len(ours)%2 == 1 {
		back.commit(w.floor)
	}
	w.base = off
	w.bench.report(result{What: "iptables: " + c.what + ", " + what, Unit: "ms", Ours: ours, Floor: floor, Aim: "2x"})
}
