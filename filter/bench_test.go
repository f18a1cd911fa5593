package filter_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
)

// manyPolicies is a state of n policies on 100 endpoints, each with a set of ten addresses of
// its own.
func manyPolicies(n int) *dataplane.State {
	s := dataplane.NewState()
	for i := range 100 {
		s.Endpoints[difftest.Iface(i)] = &dataplane.Endpoint{
			Interface: difftest.Iface(i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})},
			Ingress: []dataplane.TierPolicies{{Tier: "default", Default: dataplane.Deny}},
		}
	}
	for i := range n {
		p := onePolicy(i, dataplane.TCP)
		s.Policies[p.ID] = p
		m := dataplane.Members{}
		for j := range 10 {
			x := 10*i + j
			m[dataplane.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(x >> 16), byte(x >> 8), byte(x)}), 32)}] = struct{}{}
		}
		s.Sets[p.Ingress[0].Src.Sets[0]] = m
		t := &s.Endpoints[difftest.Iface(i%100)].Ingress[0]
		t.Policies = append(t.Policies, p.ID)
	}
	return s
}

func onePolicy(i int, proto dataplane.Protocol) *dataplane.Policy {
	return &dataplane.Policy{
		ID: dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("policy", i)},
		Ingress: []dataplane.Rule{{
			Action: dataplane.Allow, Protocol: proto, Src: dataplane.Peer{Sets: []dataplane.SetID{dataplane.SetID(fmt.Sprint("s:", i))}},
		}},
	}
}

// BenchmarkChanges changes one thing among few policies and among many: it must cost the same.
func BenchmarkChanges(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		c := filter.NewCompiler(dataplane.IPv4)
		c.Update(manyPolicies(n).Delta())
		if err := c.Settle(); err != nil {
			b.Fatal(err)
		}
		run := func(name string, change func(i int) *dataplane.Delta) {
			b.Run(fmt.Sprint(name, "/policies=", n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					c.Update(change(i))
					ch, err := c.Changes()
					if err != nil || ch.Empty() {
						b.Fatal("nothing changed: ", err)
					}
				}
			})
		}
		run("policy", func(i int) *dataplane.Delta {
			d := dataplane.NewDelta()
			p := onePolicy(7, dataplane.UDP+dataplane.Protocol(i%2))
			d.Policies[p.ID] = p
			return d
		})
		run("member", func(i int) *dataplane.Delta {
			d := dataplane.NewDelta()
			list := []dataplane.Member{{Prefix: difftest.Prefix("9.9.9.9/32")}}
			d.Sets["s:7"] = &dataplane.SetDelta{Add: list}
			if i%2 == 1 {
				d.Sets["s:7"] = &dataplane.SetDelta{Remove: list}
			}
			return d
		})
	}
}

// BenchmarkTrace judges packets that are denied only after every policy of their endpoint was
// asked, and one against a set of many prefixes.
func BenchmarkTrace(b *testing.B) {
	s := manyPolicies(10_000)
	wide := dataplane.Members{}
	for i := range 100_000 {
		wide[dataplane.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{12, byte(i >> 15), byte(i >> 7), byte(i << 1)}), 31)}] = struct{}{}
	}
	s.Sets["s:7"] = wide
	c := filter.NewCompiler(dataplane.IPv4)
	c.Update(s.Delta())
	if err := c.Settle(); err != nil {
		b.Fatal(err)
	}
	for name, out := range map[string]int{"100 policies": 6, "100 policies, 100,000 prefixes": 7} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p := dataplane.Packet{
				In: difftest.Uplink, Out: string(difftest.Iface(out)), Src: netip.MustParseAddr("13.0.0.1"),
				Dst: netip.AddrFrom4([4]byte{10, 1, 1, byte(out)}), Protocol: dataplane.TCP, DstPort: 80,
			}
			for b.Loop() {
				if c.Program().Verdict(p) != dataplane.Drop {
					b.Fatal("not dropped")
				}
			}
		})
	}
}
