package conntrack

import (
	"maps"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// scope is what changed.
type scope struct {
	all       bool                         // every flow may have another verdict
	denies    bool                         // what was allowed may be denied, whatever the rest says
	endpoints map[dataplane.Interface]bool // true: it has only just come
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

// endpoint notes that the endpoint is another than it was; old nil: there was none.
func (s *scope) endpoint(id dataplane.Interface, old *dataplane.Endpoint) {
	fresh, noted := s.endpoints[id]
	s.endpoints[id] = old == nil && (fresh || !noted)
}

func (s *scope) policy(id dataplane.PolicyID) {
	if !s.all {
		s.policies[id] = true
	}
}

func (s *scope) empty() bool {
	return !s.all && len(s.endpoints)+len(s.policies)+len(s.sets)+len(s.gone) == 0
}

// merge adds what o says.
func (s *scope) merge(o *scope) {
	s.all, s.denies = s.all || o.all, s.denies || o.denies
	maps.Copy(s.endpoints, o.endpoints)
	maps.Copy(s.policies, o.policies)
	maps.Copy(s.gone, o.gone)
	for id, m := range o.sets {
		if s.sets[id] == nil {
			s.sets[id] = m
		} else {
			s.sets[id].merge(m)
		}
	}
}

// maxMembers is how many changed members of a set are remembered one by one.
const maxMembers = 4096

// members are those of a set that came or went.
type members struct {
	prefixes map[netip.Prefix]bool
	lengths  [129]bool // that prefixes have
	any      bool      // too many, or it is not known which

	came, went bool // some did
}

// change adds what a delta says of a set.
func (s *scope) change(id dataplane.SetID, d *dataplane.SetDelta) {
	if s.all {
		return // no more can change
	}
	m := s.sets[id]
	if m == nil {
		m = &members{prefixes: map[netip.Prefix]bool{}}
		s.sets[id] = m
	}
	m.came = m.came || d != nil && len(d.Add) > 0
	m.went = m.went || d == nil || len(d.Remove) > 0
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

func (m *members) merge(o *members) {
	m.came, m.went = m.came || o.came, m.went || o.went
	if m.any = m.any || o.any || len(m.prefixes)+len(o.prefixes) > maxMembers; m.any {
		m.prefixes = nil
		return
	}
	for p := range o.prefixes {
		m.prefixes[p], m.lengths[p.Bits()] = true, true
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
