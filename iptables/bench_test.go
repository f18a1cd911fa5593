package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

func addr(first byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{first, byte(i >> 16), byte(i >> 8), byte(i)})
}

// large is a state of 1,000 endpoints, each with 10 of 100 policies, and of a set of 100,000 addresses.
func large() *dataplane.State {
	s := sample()
	members := dataplane.Members{}
	for i := range 100_000 {
		members[dataplane.Member{Prefix: netip.PrefixFrom(addr(20, i), 32)}] = struct{}{}
	}
	s.Sets["s:large"] = members
	for i := range 100 {
		p := &dataplane.Policy{ID: policyID(i)}
		for range 3 {
			p.Ingress = append(p.Ingress, dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.TCP, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:large"}}})
		}
		s.Policies[p.ID] = p
	}
	for i := range 1000 {
		s.Endpoints[difftest.Iface(i)] = endpoint(i)
	}
	return s
}

func policyID(i int) dataplane.PolicyID {
	return dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("policy", i)}
}

func endpoint(i int) *dataplane.Endpoint {
	e := &dataplane.Endpoint{Interface: difftest.Iface(i), Addrs: []netip.Addr{addr(10, i)}}
	e.Ingress = []dataplane.TierPolicies{{Tier: "default", Default: dataplane.Deny}}
	for j := range 10 {
		e.Ingress[0].Policies = append(e.Ingress[0].Policies, policyID((i+7*j)%100))
	}
	return e
}

// BenchmarkLarge has the time of a start, of a read-back, and of the changes there are.
func BenchmarkLarge(b *testing.B) {
	for _, v := range []Variant{Legacy, NFT} {
		b.Run(v.String(), func(b *testing.B) { benchmarkLarge(b, v) })
	}
}

func benchmarkLarge(b *testing.B, v Variant) {
	s := large()
	ns := nstest.New(b)
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			begin(b, nstest.New(b), v, s)
		}
	})
	d := begin(b, ns, v, s)
	b.Run("start stands", func(b *testing.B) {
		for b.Loop() {
			begin(b, ns, v, s)
		}
	})
	i := 0
	for name, change := range map[string]func(*dataplane.Delta){
		"member": func(c *dataplane.Delta) {
			c.Sets["s:large"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: netip.PrefixFrom(addr(21, i), 32)}}}
		},
		"policy": func(c *dataplane.Delta) {
			p := *s.Policies[policyID(0)]
			p.Ingress = p.Ingress[i%2:]
			c.Policies[p.ID] = &p
		},
		"endpoint": func(c *dataplane.Delta) {
			e := endpoint(1000)
			c.Endpoints[e.Interface] = e
			if i%2 == 0 {
				c.Endpoints[e.Interface] = nil
			}
		},
		"read back": func(*dataplane.Delta) { d.Resync() },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			own, tools := cpu(unix.RUSAGE_SELF), cpu(unix.RUSAGE_CHILDREN)
			for b.Loop() {
				i++
				c := dataplane.NewDelta()
				change(c)
				d.Update(c)
				bringUp(b, d)
			}
			b.ReportMetric(float64((cpu(unix.RUSAGE_SELF)-own).Microseconds())/float64(b.N), "own-cpu-µs/op")
			b.ReportMetric(float64((cpu(unix.RUSAGE_CHILDREN)-tools).Microseconds())/float64(b.N), "tools-cpu-µs/op")
		})
	}
}

// cpu is the processor's time that the process has taken, or that its children have.
func cpu(who int) time.Duration {
	var u unix.Rusage
	unix.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func begin(b *testing.B, ns int, v Variant, s *dataplane.State) *Driver {
	d, err := New(ns, Config{LogGroup: 1, Variant: v})
	if err != nil {
		b.Fatal(err)
	}
	d.Update(s.Delta())
	bringUp(b, d)
	return d
}

func bringUp(b *testing.B, d *Driver) {
	if err := d.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
}
