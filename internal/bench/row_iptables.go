package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/iptables"
)

// runIptables measures the driver of iptables as runRules does that of nftables, in both variants, beside one run of
// iptables-restore and of ipset restore with the same objects in another namespace; and the agent with it.
func runIptables(ctx context.Context, b *bench) error {
	for _, v := range []iptables.Variant{iptables.Legacy, iptables.NFT} {
		b.iptables(ctx, v, rulesEndpoints/100, rulesEndpoints/100)
		b.iptables(ctx, v, rulesEndpoints, 1)
		if b.options.Long {
			b.iptables(ctx, v, rulesEndpoints, rulesEndpoints)
		}
	}
	b.largeSet(ctx)
	return b.policyFlips(ctx, "iptables: ", []int{1000}, "FELIX_NFTABLESMODE=Disabled")
}

// iptablesWorld is a driver, and beside it a namespace with the same objects.
type iptablesWorld struct {
	ctx         context.Context
	bench       *bench
	variant     iptables.Variant
	ours, floor *netns
	driver      *iptables.Driver
	base        *saved
}

func (b *bench) iptables(ctx context.Context, v iptables.Variant, endpoints, ways int) {
	what := fmt.Sprintf("%d policies, %d endpoints, %d members", ways*rulesEach, endpoints, ways*rulesEach*rulesMembers)
	state := rulesState(endpoints, ways)
	w := b.iptablesWorld(ctx, v, what, state)
	for _, c := range b.rulesChanges(state, endpoints) {
		w.measure(c, what)
	}
}

// largeSet measures with one set of 100,000 addresses. It is ipset's in either variant.
func (b *bench) largeSet(ctx context.Context) {
	const n = 100_000
	state := rulesState(1, 1)
	for _, a := range addresses(50, n) {
		state.Sets[rulesSet(5)][dataplane.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
	}
	what := fmt.Sprintf("one set of %d", n)
	w := b.iptablesWorld(ctx, iptables.NFT, what, state)
	w.measure(rulesChange{"a label that moves 1 member", b.n(40, 200), moves(1)}, what)
}

// iptablesWorld has a driver hold a state, and the tools the same, and measures their starts and that they read it back.
func (b *bench) iptablesWorld(ctx context.Context, v iptables.Variant, what string, state *dataplane.State) *iptablesWorld {
	w := &iptablesWorld{ctx: ctx, bench: b, variant: v, ours: got(newNS()), floor: got(newNS())}
	b.cleanup(w.ours.close)
	b.cleanup(w.floor.close)
	empty := savedIn(w.ours, v)
	w.driver = got(iptables.New(int(w.ours.Fd()), iptables.Config{Variant: v}))
	b.cleanup(w.driver.Close)
	w.driver.Update(state.Delta())
	must(w.driver.Sync(ctx))
	w.base = savedIn(w.ours, v)
	all := empty.to(w.base)
	all.commit(w.floor)
	w.start(what, state, all)
	w.readBack(what)
	return w
}

func (w *iptablesWorld) report(what string, ours, floor samples) {
	w.bench.report(result{What: fmt.Sprintf("iptables (%v) %s", w.variant, what), Unit: "ms", Ours: ours, Floor: floor, Aim: "2x"})
}

// start measures the first Sync of a driver in an empty namespace.
func (w *iptablesWorld) start(what string, state *dataplane.State, all edit) {
	delta := state.Delta()
	var ours, floor samples
	w.bench.turns(w.bench.n(3, 10), func(int) {
		n, bare := got(newNS()), got(newNS())
		defer n.close()
		defer bare.close()
		runtime.GC()
		start := time.Now()
		d := got(iptables.New(int(n.Fd()), iptables.Config{Variant: w.variant}))
		d.Update(delta)
		must(d.Sync(w.ctx))
		ours.since(start)
		d.Close()
		start = time.Now()
		all.commit(bare)
		floor.since(start)
	})
	w.report("start, "+what, ours, floor)
}

func (w *iptablesWorld) readBack(what string) {
	var ours, floor samples
	for range w.bench.n(3, 10) {
		w.driver.Resync()
		start := time.Now()
		must(w.driver.Sync(w.ctx))
		ours.since(start)
		start = time.Now()
		savedIn(w.floor, w.variant)
		floor.since(start)
	}
	w.report("read-back, "+what, ours, floor)
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
	off := savedIn(w.ours, w.variant)
	flip(true)
	on := savedIn(w.ours, w.variant)
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
	w.report(c.what+", "+what, ours, floor)
}
