package difftest

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
)

// TestSetsChangeWithTheirRules sends packets that are denied whether their source is in both
// sets or in neither, while all of it changes: large sets that stand, and the rules that use
// them, in one delta.
func TestSetsChangeWithTheirRules(t *testing.T) {
	for name, bits := range map[string]int{"addresses": 0, "prefixes": 8} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := newTogether(t, w, bits)
			if n := s.passed(); n != 400 {
				t.Fatalf("%d of 400 packets pass where policy allows them: the test would say nothing", n)
			}
			s.change(s.in(true), s.sources(true, "s:deny"))
			done := make(chan error, 1)
			go func() { done <- s.run(Count(t, "DIFFTEST_TOGETHER", 150)) }()
			for {
				if n := s.passed(); n != 0 {
					t.Errorf("%d denied packets passed", n)
				}
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					checkQuiet(t, s.d)
					return
				default:
				}
			}
		})
	}
}

// together is a node with two sets, of which one allows and one denies.
type together struct {
	*restless
	bits int // how much shorter than an address the sets' prefixes are
}

// otherProfile uses the sets as well, so that they stand whatever the policy does.
var otherProfile = dataplane.PolicyID{Kind: "Profile", Name: "other"}

func newTogether(t *testing.T, w *world, bits int) *together {
	s := &together{newRestless(t, w), bits}
	d := s.in(false)
	d.Policies[otherProfile] = &dataplane.Policy{ID: otherProfile, Ingress: []dataplane.Rule{
		{Action: dataplane.Deny, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:deny"}}},
		{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:allow"}}},
	}}
	ep := restlessEndpoint(Pods - 1)
	ep.Profiles = []dataplane.PolicyID{otherProfile}
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

// in returns the policy that denies one set first; else it allows the other one alone. Rules
// that match nothing come before, so that many packets are under way between the time when the
// kernel chose the rules for them and when they meet the sets.
func (s *together) in(deny bool) *dataplane.Delta {
	rules := []dataplane.Rule{{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:allow"}}}}
	if deny {
		rules = append([]dataplane.Rule{{Action: dataplane.Deny, Src: dataplane.Peer{Sets: []dataplane.SetID{"s:deny"}}}}, rules...)
	}
	p := &dataplane.Policy{ID: restlessPolicy}
	for range 60 {
		p.Ingress = append(p.Ingress, dataplane.Rule{Action: dataplane.Deny, Protocol: 77})
	}
	p.Ingress = append(p.Ingress, rules...)
	d := dataplane.NewDelta()
	d.Policies[restlessPolicy] = p
	return d
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
