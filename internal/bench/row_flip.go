package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

// flips measures from a write in etcd to the packets, for an agent and its floor.
type flips struct {
	ctx         context.Context
	bench       *bench
	agent       *agent
	machine     *machine // the floor's
	ours, floor *stream
	object      api.Object                    // what is changed, as stored
	change      func(o api.Object, pass bool) // makes it say pass or not
	key         string                        // the floor's
	prefix      string                        // of what is reported
}

// runPolicy measures the change of a policy's rule.
func runPolicy(ctx context.Context, b *bench) error {
	return b.policyFlips(ctx, "", []int{1000, mostPolices})
}

func (b *bench) policyFlips(ctx context.Context, what string, sizes []int, env ...string) error {
	f := b.newFlips(ctx, env...)
	client, served := got(newPod("client", nil)), got(newPod("flip", map[string]string{"pod": "flip"}))
	b.cleanup(client.close)
	b.cleanup(served.close)
	got(client.add())
	got(served.add())
	f.key = ruleKey
	f.ours = got(newStream(int(client.Fd()), client.addr, served.netns, served.addr))
	b.cleanup(f.ours.close)
	f.object = policy("flip", "pod == 'flip'", api.Allow, "")
	f.change = func(o api.Object, pass bool) {
		r := &o.(*api.GlobalNetworkPolicy).Spec.Ingress[0]
		if r.Action = api.Deny; pass {
			r.Action = api.Allow
		}
	}
	a, c := f.floorPod(floorClient, "client"), f.floorPod(floorPod, "pod")
	f.floor = got(newStream(int(a.Fd()), floorClient, c, floorPod))
	b.cleanup(f.floor.close)
	f.prefix = what
	f.sizes("policy changed to first packet", sizes)
	return nil
}

// runSet measures the change of an endpoint's labels, that of a pod of another node which
// by them is in a set or not.
func runSet(ctx context.Context, b *bench) error {
	f := b.newFlips(ctx)
	served := got(newPod("flip", map[string]string{"pod": "flip"}))
	b.cleanup(served.close)
	got(served.add())
	f.key = setKey
	f.ours = got(newStream(netlink.Current, member, served.netns, served.addr))
	b.cleanup(f.ours.close)
	create(ctx, f.agent.server.store, []api.Object{policy("flip", "pod == 'flip'", api.Allow, "joined == 'yes'")})
	f.object = remoteEndpoint("member", member, map[string]string{"joined": "yes"})
	f.change = func(o api.Object, pass bool) {
		l := o.(*api.WorkloadEndpoint).Labels
		if l["joined"] = "no"; pass {
			l["joined"] = "yes"
		}
	}
	c := f.floorPod(floorSetPod, "pod")
	f.floor = got(newStream(netlink.Current, member, c, floorSetPod))
	b.cleanup(f.floor.close)
	f.sizes("member of a set changed to first packet", []int{1000, mostPolices})
	return nil
}

// newFlips makes an agent, and the machine and process beside it.
func (b *bench) newFlips(ctx context.Context, env ...string) *flips {
	f := &flips{ctx: ctx, bench: b, agent: b.newAgent(ctx, env...)}
	m := got(newMachine(1))
	b.cleanup(m.close)
	b.floorProcess(f.agent.server, m)
	f.machine = m
	world := got(netlink.Open(netlink.Current))
	defer world.Close()
	for dst, via := range map[string]netip.Addr{"10.65.0.0/16": f.agent.addr, "10.64.0.0/16": m.addr} {
		must(world.RouteReplace(&vnl.Route{Dst: netlink.IPNet(netip.MustParsePrefix(dst)), Gw: netlink.IP(via)}))
	}
	for _, n := range []*machine{f.agent.machine, m} { // the flows of a stream are many and short
		must(netlink.SetSysctls(int(n.Fd()), netlink.Sysctl{Name: "net/netfilter/nf_conntrack_udp_timeout", Value: "1", IfPresent: true}))
	}
	return f
}

// floorPod wires a pod of the floor's machine.
func (f *flips) floorPod(a netip.Addr, name string) *netns {
	n := got(newNS())
	f.bench.cleanup(n.close)
	must(bareWire(f.machine, n, name, a))
	return n
}

// sizes measures with no other policies, and with as many as sizes has.
func (f *flips) sizes(what string, sizes []int) {
	store, n := f.agent.server.store, f.bench.n(60, 400)
	must(f.agent.holds(f.ctx, create(f.ctx, store, []api.Object{f.object})))
	must(f.writeFloor(true))
	f.measure(what+", 0 policies active", n)
	f.agent.populate(f.ctx, f.bench)
	have := 0
	for _, want := range sizes {
		start := time.Now()
		must(f.agent.holds(f.ctx, create(f.ctx, store, policies(have, want))))
		f.bench.report(result{What: fmt.Sprintf("%s%d policies created, first write to all enforced", f.prefix, want-have), Unit: "ms", Ours: one(ms(time.Since(start)))})
		have = want
		f.measure(fmt.Sprintf("%s, %d policies active", what, want), n)
	}
}

// measure takes n samples of each.
func (f *flips) measure(what string, n int) {
	var ours, floor samples
	pass := true
	for range n {
		pass = !pass
		ours.took(got(f.ours.flip(pass, func() error { return f.write(pass) })))
		floor.took(got(f.floor.flip(pass, func() error { return f.writeFloor(pass) })))
		time.Sleep(2 * time.Millisecond) // the next write is no part of this one
	}
	f.bench.report(result{What: f.prefix + what, Unit: "ms", Ours: ours, Floor: floor, Aim: "2x, 1.5 ms"})
}

// write changes the object in etcd, with one request.
func (f *flips) write(pass bool) error {
	f.change(f.object, pass)
	_, err := f.agent.server.store.Commit(f.ctx, []store.Op{store.Replace(f.object)})
	return err
}

// writeFloor changes the floor's key, to a value of the same size.
func (f *flips) writeFloor(pass bool) error {
	b, err := json.Marshal(f.object)
	if err != nil {
		return err
	}
	v := bytes.Repeat([]byte{no}, len(b))
	if pass {
		v[0] = yes
	}
	_, err = f.agent.server.raw.Put(f.ctx, f.key, string(v))
	return err
}
