package nft

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// manySets is a state whose one policy uses so many sets of so many addresses each.
func manySets(sets, members int) *dataplane.State {
	s := sample()
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	p := &dataplane.Policy{ID: id}
	for i := range sets {
		name := dataplane.SetID(fmt.Sprintf("s:%d", i))
		m := dataplane.Members{}
		for j := range members {
			a := netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), byte(j)})
			if sets == 1 {
				a = netip.AddrFrom4([4]byte{20, byte(j >> 16), byte(j >> 8), byte(j)})
			}
			m[dataplane.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
		s.Sets[name] = m
		p.Ingress = append(p.Ingress, dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.TCP, Src: dataplane.Peer{Sets: []dataplane.SetID{name}}})
	}
	s.Policies[id] = p
	return s
}

// Reading back what is right: 2,000 sets of 100 addresses.
func BenchmarkReadBack(b *testing.B) {
	d, err := New(nstest.New(b), Config{LogGroup: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	d.Update(manySets(2000, 100).Delta())
	if err := d.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d.Resync()
		if err := d.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// A transaction of our own costs the watcher nothing: the kernel keeps back what tells of
// it, so that the watcher's buffer does not overflow, though nobody empties it.
func TestOwnTransactionsAreKeptBack(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	m, err := netlink.NewTableMonitor(ns, TableName, d.Port())
	if err != nil {
		t.Fatal(err)
	}
	d.Update(manySets(1, 30_000).Delta())
	mustSync(t, d)
	delta := dataplane.NewDelta()
	delta.Sets["s:0"] = nil
	d.Update(delta)
	mustSync(t, d)
	nft(t, ns, "add chain ip calico foreign")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var told []netlink.TableChange
	_ = m.Run(ctx, func(c netlink.TableChange) {
		told = append(told, c)
		cancel()
	})
	if len(told) != 1 || told[0].Lost || told[0].Process != "nft" || len(told[0].Objects) != 1 {
		t.Errorf("told %+v, want the chain that nft added alone", told)
	}
}

// manyPolicies is a state of so many policies, each with a set of its own, on 100 endpoints.
func manyPolicies(n int) *dataplane.State {
	s := sample()
	eps := make([]*dataplane.Endpoint, 100)
	for i := range eps {
		a := netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})
		eps[i] = &dataplane.Endpoint{
			Interface: difftest.Iface(i), Addrs: []netip.Addr{a},
			Ingress: []dataplane.TierPolicies{{Tier: "default", Default: dataplane.Deny}},
		}
		s.Endpoints[eps[i].Interface] = eps[i]
	}
	for i := range n {
		set := dataplane.SetID(fmt.Sprint("s:abcdefghijklmnopqrstuvwxyz", i))
		p := &dataplane.Policy{ID: dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("policy", i)}}
		p.Ingress = []dataplane.Rule{{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{set}}}}
		s.Policies[p.ID] = p
		s.Sets[set] = dataplane.Members{}
		for j := range 10 {
			x := 10*i + j
			a := netip.AddrFrom4([4]byte{11, byte(x >> 16), byte(x >> 8), byte(x)})
			s.Sets[set][dataplane.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
		t := &eps[i%len(eps)].Ingress[0]
		t.Policies = append(t.Policies, p.ID)
	}
	return s
}

// BenchmarkStart starts with 10,000 policies, in an empty kernel and in one that has it all.
func BenchmarkStart(b *testing.B) {
	delta := manyPolicies(10_000).Delta()
	for _, stands := range []bool{false, true} {
		b.Run(fmt.Sprint("stands=", stands), func(b *testing.B) {
			ns := nstest.New(b)
			start := func() {
				d, err := New(ns, Config{LogGroup: 1})
				if err != nil {
					b.Fatal(err)
				}
				defer d.Close()
				d.Update(delta)
				if err := d.Sync(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			start()
			b.ReportAllocs()
			for b.Loop() {
				if !stands {
					b.StopTimer()
					clearAll(b, ns)
					b.StartTimer()
				}
				start()
			}
		})
	}
}

func clearAll(b *testing.B, ns int) {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		b.Fatal(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPolicyOfMany changes one of 10,000 policies on 100 endpoints.
func BenchmarkPolicyOfMany(b *testing.B) {
	d, err := New(nstest.New(b), Config{LogGroup: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	s := manyPolicies(10_000)
	d.Update(s.Delta())
	if err := d.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	p := *s.Policies[dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: "policy7"}]
	b.ReportAllocs()
	kernelTime(b, func() {
		for i := 0; b.Loop(); i++ {
			q := p
			q.Ingress = append([]dataplane.Rule{{Action: dataplane.Deny, Protocol: dataplane.Protocol(100 + i%2)}}, p.Ingress...)
			delta := dataplane.NewDelta()
			delta.Policies[p.ID] = &q
			d.Update(delta)
			if err := d.Sync(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
