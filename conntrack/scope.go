package conntrack

import (
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// scope is what changed since the last pass.
type scope struct {
	all       bool // every flow may have another verdict
	denies    bool // what was allowed may be denied, and packets that the old rules let pass be under way
	endpoints map[dataplane.Interface]bool
	policies  map[dataplane.PolicyID]bool
	sets      map[dataplane.SetID]*members
	gone      map[netip.Addr]bool // addresses that pods had
}

func newScope() *scope {
	return &scope{
		endpoints: map[dataplane.Interface]bool{}, policies: map[dataplane.PolicyID]bool{},
		sets: map[dataplane.SetID]*members{}, gone: map[netip.Addr]bool{},
	}
}

// everything has every flow judged.
func (s *scope) everything() { s.all, s.denies = true, true }

func (s *scope) policy(id dataplane.PolicyID, _ *dataplane.Policy) {
	if s.denies = true; !s.all {
		s.policies[id] = true
	}
}

func (s *scope) empty() bool {
	return !s.all && len(s.endpoints)+len(s.policies)+len(s.sets)+len(s.gone) == 0
}

// maxMembers is how many changed members of a set are remembered one by one.
const maxMembers = 4096

// members are those of a set that came or went.
type members struct {
	prefixes map[netip.Prefix]bool
	lengths  [129]bool // that prefixes have
	any      bool      // too many, or it is not known which
}

// change adds what a delta says of a set.
func (s *scope) change(id dataplane.SetID, d *dataplane.SetDelta) {
	if s.denies = true; s.all {
		return // no more can change
	}
	m := s.sets[id]
	if m == nil {
		m = &members{prefixes: map[netip.Prefix]bool{}}
		s.sets[id] = m
	}
	if m.any = m.any || d == nil || len(m.prefixes)+len(d.Add)+len(d.Remove) > maxMembers; m.any {
		m.prefixes = nil
		return
	}
	for _, list := range [][]dataplane.Member{d.Add, d.Remove} {
		for _, x := range list {
			p := x.Prefix.Masked()
			if p.IsValid() {
				m.prefixes[p] = true
				m.lengths[p.Bits()] = true
			}
		}
	}
}

// contain tells whether the address is in one of the members.
func (m *members) contain(a netip.Addr) bool {
	if m.any {
		return true
	}
	for bits := range a.BitLen() + 1 {
		if !m.lengths[bits] {
			continue
		}
		if p, err := a.Prefix(bits); err == nil && m.prefixes[p] {
			return true
		}
	}
	return false
}

// addrs returns the members, if they are single addresses, and few.
func (m *members) addrs() (out []netip.Addr, ok bool) {
	if m.any || len(m.prefixes) > 2*fewAddrs {
		return nil, false
	}
	for p := range m.prefixes {
		if !p.IsSingleIP() {
			return nil, false
		}
		out = append(out, p.Addr())
	}
	return out, true
}
