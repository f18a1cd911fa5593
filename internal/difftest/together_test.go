package difftest

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/calicogo/calico/dataplane"
)

// TestSetsChangeWithTheirRules sends packets that are denied whether their source is in both
// sets or in neither, while all of it changes: large sets that stand, and the rules that use
// them, in one delta.
func TestSetsChangeWithTheirRules(t *testing.T) {
	for _, b := range backends {
		for name, bits := range map[string]int{"addresses": 0, "prefixes": 8} {
			t.Run(b.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newTogether(t, newJudge(t, b), bits)
				s.mustPass()
				s.change(s.in(true), s.sources(true, "s:deny"))
				times := Count(t, "DIFFTEST_TOGETHER", 150)
				if !b.quick {
					times = max(times/10, 2)
				}
				s.nonePasses(func() error { return s.run(times) })
				s.w.must(s.quiet(s.d))
			})
		}
	}
}

// together is a node with two sets, of which one allows and one denies.
type together struct {
	*restless
	bits int // how much shorter than an address the sets' prefixes are
}

var (
	slowPolicy  = dataplane.PolicyID{Kind: "NetworkPolicy", Name: "slow"}
	denyPolicy  = dataplane.PolicyID{Kind: "NetworkPolicy", Name: "deny"}
	allowPolicy = dataplane.PolicyID{Kind: "NetworkPolicy", Name: "allow"}
)

func newTogether(t *testing.T, j *judge, bits int) *together {
	s := &together{newRestless(t, j), bits}
	d := s.in(false)
	s.policies(d, Count(t, "DIFFTEST_SLOW", 20_000))
	ep := restlessEndpoint(Pods - 1)
	ep.Ingress[0].Policies = []dataplane.PolicyID{denyPolicy, allowPolicy} // so that the sets stand, whatever the others do
	d.Endpoints[ep.Interface] = ep
	for _, id := range []dataplane.SetID{"s:deny", "s:allow"} {
		d.Sets[id] = &dataplane.SetDelta{Add: s.crowd(5000)}
	}
	s.change(d, s.sources(true, "s:allow"))
	return s
}

// crowd are members that no packet comes from.
func (s *together) crowd(n int) (out []dataplane.Member) {
	for i := range n {
		b := netip.MustParseAddr("fd0c::").As16()
		binary.BigEndian.PutUint32(b[12:], uint32(i)<<8)
		four := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x14000000+uint32(i)<<8)))
		out = append(out, s.member(four), s.member(netip.AddrFrom16(b)))
	}
	return out
}

func (s *together) member(a netip.Addr) dataplane.Member {
	return dataplane.Member{Prefix: netip.PrefixFrom(a, a.BitLen()-s.bits).Masked()}
}

// sources puts the packets' sources into the sets, or takes them out.
func (s *together) sources(in bool, ids ...dataplane.SetID) *dataplane.Delta {
	d := dataplane.NewDelta()
	for _, id := range ids {
		list := []dataplane.Member{s.member(outside[4][0]), s.member(outside[6][0])}
		d.Sets[id] = &dataplane.SetDelta{Add: list}
		if !in {
			d.Sets[id] = &dataplane.SetDelta{Remove: list}
		}
	}
	return d
}

// in has the pods be asked the policy that denies one set first; else the one alone that allows the
// other set. A policy of rules that match nothing comes before, so that a packet is under way, by
// the rules that the kernel chose for it, for longer than the next transactions take.
func (s *together) in(deny bool) *dataplane.Delta {
	policies := []dataplane.PolicyID{slowPolicy, allowPolicy}
	if deny {
		policies = []dataplane.PolicyID{slowPolicy, denyPolicy, allowPolicy}
	}
	d := dataplane.NewDelta()
	for i := range Pods - 1 {
		ep := restlessEndpoint(i)
		ep.Ingress[0].Policies = policies
		d.Endpoints[ep.Interface] = ep
	}
	return d
}

// policies are those of which the pods are asked some or all.
func (s *together) policies(d *dataplane.Delta, slow int) {
	from := func(set dataplane.SetID) dataplane.Peer { return dataplane.Peer{Sets: []dataplane.SetID{set}} }
	rules := map[dataplane.PolicyID][]dataplane.Rule{
		slowPolicy:  slices.Repeat([]dataplane.Rule{{Action: dataplane.Deny, Protocol: 77}}, slow),
		denyPolicy:  {{Action: dataplane.Deny, Src: from("s:deny")}},
		allowPolicy: {{Action: dataplane.Allow, Src: from("s:allow")}},
	}
	for id, r := range rules {
		d.Policies[id] = &dataplane.Policy{ID: id, Ingress: r}
	}
}

// change makes several deltas at once.
func (s *together) change(all ...*dataplane.Delta) {
	for _, d := range all {
		s.d.Update(d)
	}
	s.w.must(s.d.Sync(context.Background()))
}

// run has the sources leave both sets, and come back.
func (s *together) run(times int) error {
	for i := range times {
		in := i%2 == 1
		s.d.Update(s.in(in))
		s.d.Update(s.sources(in, "s:allow", "s:deny"))
		if err := s.d.Sync(context.Background()); err != nil {
			return err
		}
	}
	return nil
}
