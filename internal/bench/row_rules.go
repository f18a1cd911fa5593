package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
)

// The state that the rows of rules are about.
const (
	rulesEndpoints = 1000
	rulesEach      = 10 // policies that govern an endpoint
	rulesMembers   = 10 // of the set that each policy has
	bigSet         = 10_000
)

// runRules measures the driver of nftables alone, from a delta to the kernel's answer, beside the same
// objects by a bare batch in another namespace.
func runRules(ctx context.Context, b *bench) error {
	b.rules(ctx, rulesEndpoints/100, rulesEndpoints/100)
	b.rules(ctx, rulesEndpoints, 1)
	b.rules(ctx, rulesEndpoints, rulesEndpoints)
	return nil
}

// rules measures with so many endpoints, governed in so many ways.
func (b *bench) rules(ctx context.Context, endpoints, ways int) {
	what := fmt.Sprintf("%d policies, %d endpoints, %d members", ways*rulesEach, endpoints, ways*rulesEach*rulesMembers)
	state := rulesState(endpoints, ways)
	w := b.newRulesWorld(ctx, state)
	b.startOf(ctx, what, state, w)
	for _, c := range b.rulesChanges(state, endpoints) {
		w.measure(c, what)
	}
}

// rulesChange is a change that is made and taken back, n times.
type rulesChange struct {
	what   string
	n      int
	change func(d *dataplane.Delta, on bool)
}

// Only the first has the kernel look at all rules.
const oneMore, oneLess = "one endpoint more, governed like another", "one endpoint less"

func (b *bench) rulesChanges(state *dataplane.State, endpoints int) []rulesChange {
	p := state.Policies[rulesPolicy(7)]
	return []rulesChange{
		{"one policy's rule changed", b.n(40, 200), func(d *dataplane.Delta, on bool) {
			q := *p
			q.Ingress = append([]dataplane.Rule(nil), p.Ingress...)
			if on {
				q.Ingress[0].Protocol = dataplane.UDP
			}
			d.Policies[p.ID] = &q
		}},
		{oneMore, b.n(40, 200), func(d *dataplane.Delta, on bool) {
			ep := rulesEndpoint(endpoints)
			ep.Ingress = state.Endpoints[rulesEndpoint(0).Interface].Ingress
			if d.Endpoints[ep.Interface] = nil; on {
				d.Endpoints[ep.Interface] = ep
			}
		}},
		{"a label that moves 1 member", b.n(40, 200), moves(1)},
		{fmt.Sprintf("a label that moves %d members", bigSet), b.n(10, 40), moves(bigSet)},
	}
}

// moves puts so many members into a set, or takes them out.
func moves(n int) func(*dataplane.Delta, bool) {
	var list []dataplane.Member
	for _, a := range addresses(40, bigSet)[:n] {
		list = append(list, dataplane.Member{Prefix: netip.PrefixFrom(a, 32)})
	}
	return func(d *dataplane.Delta, on bool) {
		sd := &dataplane.SetDelta{Remove: list}
		if on {
			sd = &dataplane.SetDelta{Add: list}
		}
		d.Sets[rulesSet(5)] = sd
	}
}

// rulesWorld is a driver, and beside it a namespace with the same objects.
type rulesWorld struct {
	ctx    context.Context
	bench  *bench
	ours   *netns
	driver *nft.Driver
	floor  *nfnetlink
	reader *nfnetlink // of ours
	base   []*ruleset
}

var families = []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}

func (b *bench) newRulesWorld(ctx context.Context, state *dataplane.State) *rulesWorld {
	w := &rulesWorld{ctx: ctx, bench: b, ours: got(newNS())}
	b.cleanup(w.ours.close)
	w.driver = got(nft.New(int(w.ours.Fd()), nft.Config{}))
	b.cleanup(w.driver.Close)
	w.driver.Update(state.Delta())
	must(w.driver.Sync(ctx))
	w.reader = b.nfnetlinkIn(w.ours)
	w.base = w.read()
	n := got(newNS())
	b.cleanup(n.close)
	w.floor = b.nfnetlinkIn(n)
	must(w.floor.commit(whole(w.base)...))
	return w
}

func (b *bench) nfnetlinkIn(n *netns) (s *nfnetlink) {
	must(netlink.Do(int(n.Fd()), func() (err error) {
		s, err = openNFNetlink()
		return err
	}))
	b.cleanup(s.close)
	return s
}

func (w *rulesWorld) read() (out []*ruleset) {
	for _, f := range families {
		out = append(out, got(w.reader.readRuleset(f)))
	}
	return out
}

func whole(all []*ruleset) (ms []message) {
	for _, r := range all {
		ms = append(ms, r.whole()...)
	}
	return ms
}

func between(from, to []*ruleset) (ms []message) {
	for i := range from {
		ms = append(ms, from[i].to(to[i])...)
	}
	return ms
}

// startOf measures the first Sync of a driver in an empty namespace.
func (b *bench) startOf(ctx context.Context, what string, state *dataplane.State, w *rulesWorld) {
	delta, batch := state.Delta(), whole(w.base)
	var ours, floor samples
	b.turns(b.n(3, 10), func(int) {
		n, bare := got(newNS()), got(newNS())
		defer n.close()
		defer bare.close()
		runtime.GC()
		start := time.Now()
		d := got(nft.New(int(n.Fd()), nft.Config{}))
		d.Update(delta)
		must(d.Sync(ctx))
		ours.since(start)
		d.Close()
		s := b.nfnetlinkIn(bare)
		start = time.Now()
		must(s.commit(batch...))
		floor.since(start)
	})
	b.report(result{What: "nft start, " + what, Unit: "ms", Ours: ours, Floor: floor, Aim: "2x"})
	ours, floor = nil, nil
	for range b.n(3, 10) {
		w.driver.Resync()
		start := time.Now()
		must(w.driver.Sync(ctx))
		ours.since(start)
		start = time.Now()
		for _, f := range families {
			got(w.floor.readRuleset(f))
		}
		floor.since(start)
	}
	b.report(result{What: "nft read-back, " + what, Unit: "ms", Ours: ours, Floor: floor})
}

// measure has something change and change back.
func (w *rulesWorld) measure(c rulesChange, what string) {
	flip := func(on bool) {
		d := dataplane.NewDelta()
		c.change(d, on)
		w.driver.Update(d)
		must(w.driver.Sync(w.ctx))
	}
	flip(false)
	off := w.read()
	flip(true)
	on := w.read()
	there, back := between(off, on), between(on, off)
	must(w.floor.commit(append(between(w.base, off), w.marker())...))
	flip(false)
	var ours, floor [2]samples // there, and back
	turns := 0
	w.bench.turns(c.n, func(i int) {
		way, batch := i%2, [][]message{there, back}[i%2]
		start := time.Now()
		flip(way == 0)
		ours[way].since(start)
		start = time.Now()
		must(w.floor.commit(batch...))
		floor[way].since(start)
		turns++
	})
	flip(false)
	if turns%2 == 1 {
		must(w.floor.commit(back...))
	}
	w.base = off
	w.report(c, what, ours, floor)
}

func (w *rulesWorld) report(c rulesChange, what string, ours, floor [2]samples) {
	names := []string{c.what}
	if c.what == oneMore {
		names = append(names, oneLess)
	} else {
		ours[0], floor[0] = append(ours[0], ours[1]...), append(floor[0], floor[1]...)
	}
	for way, name := range names {
		w.bench.report(result{What: "nft: " + name + ", " + what, Unit: "ms", Ours: ours[way], Floor: floor[way], Aim: "3x"})
	}
}

// marker is a message that changes nothing, for a batch that may be empty.
func (w *rulesWorld) marker() message {
	return w.base[0].message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, w.base[0].table)
}

func rulesPolicy(i int) dataplane.PolicyID {
	return dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("p", i)}
}

func rulesSet(i int) dataplane.SetID { return dataplane.SetID(fmt.Sprint("s:set", i)) }

func rulesEndpoint(i int) *dataplane.Endpoint {
	return &dataplane.Endpoint{
		Interface: dataplane.Interface(fmt.Sprint("cali", i)), Name: fmt.Sprint("default/pod", i),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)})},
	}
}

// rulesState has rulesEach policies for each way in which endpoints are governed, and a set for each
// policy.
func rulesState(endpoints, ways int) *dataplane.State {
	s := dataplane.NewState()
	for i := range ways * rulesEach {
		id, set := rulesPolicy(i), rulesSet(i)
		s.Policies[id] = &dataplane.Policy{ID: id, Ingress: []dataplane.Rule{{
			Action: dataplane.Allow, Protocol: dataplane.TCP, Src: dataplane.Peer{Sets: []dataplane.SetID{set}},
			Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 80, Max: 80}}},
		}}}
		s.Sets[set] = dataplane.Members{}
		for _, a := range addresses(i, rulesMembers) {
			s.Sets[set][dataplane.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
	}
	for i := range endpoints {
		ep := rulesEndpoint(i)
		t := dataplane.TierPolicies{Tier: "default", Default: dataplane.Deny}
		for j := range rulesEach {
			t.Policies = append(t.Policies, rulesPolicy(rulesEach*(i%ways)+j))
		}
		ep.Ingress = []dataplane.TierPolicies{t}
		s.Endpoints[ep.Interface] = ep
	}
	return s
}
