package calc

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// liveSet is a set in the state: what its holders (endpoints, pools, nodes) put into it. A
// node has many sets of few members and some of many, so members are packed and lie in
// sorted lists, at a tenth of what maps take.
type liveSet struct {
	set
	uses    int32 // by policies and profiles in use
	indexed bool  // the index of members has it
	fresh   bool  // not in a Delta yet
	touched bool  // on the list of ruleTables
	gone    bool  // out of use
	v4      multiset[packed4]
	v6      multiset[packed6]
}

func newLiveSet(s set) *liveSet { return &liveSet{set: s, fresh: true} }

// hold notes that m got one holder more (in) or fewer.
func (s *liveSet) hold(m dataplane.Member, in bool) {
	if m.Prefix.Addr().Is4() {
		s.v4.note(pack4(m), in)
	} else {
		s.v6.note(pack6(m), in)
	}
}

// delta is the change since the last call; nil if there is none.
func (s *liveSet) delta() *dataplane.SetDelta {
	d := &dataplane.SetDelta{}
	if s.fresh {
		d.Add = make([]dataplane.Member, 0, s.v4.coming()+s.v6.coming())
	}
	note := func(m dataplane.Member, in bool) {
		if in {
			d.Add = append(d.Add, m)
		} else {
			d.Remove = append(d.Remove, m)
		}
	}
	s.v4.settle(func(x packed4, in bool) { note(x.member(), in) })
	s.v6.settle(func(x packed6, in bool) { note(x.member(), in) })
	if !s.fresh && len(d.Add)+len(d.Remove) == 0 {
		return nil
	}
	s.fresh = false
	return d
}

// packed4 is a member of IPv4: address, length of the prefix, protocol and port.
type packed4 uint64

func pack4(m dataplane.Member) packed4 {
	a := m.Prefix.Addr().As4()
	return packed4(binary.BigEndian.Uint32(a[:]))<<32 | packed4(packRest(m))
}

func (x packed4) member() dataplane.Member {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(x>>32))
	return unpackRest(netip.AddrFrom4(a), uint32(x))
}

func (x packed4) compare(y packed4) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// packed6 is the like of IPv6.
type packed6 struct {
	addr [16]byte
	rest uint32
}

func pack6(m dataplane.Member) packed6 { return packed6{m.Prefix.Addr().As16(), packRest(m)} }

func (x packed6) member() dataplane.Member { return unpackRest(netip.AddrFrom16(x.addr), x.rest) }

func (x packed6) compare(y packed6) int {
	if c := slices.Compare(x.addr[:], y.addr[:]); c != 0 {
		return c
	}
	return int(int64(x.rest) - int64(y.rest))
}

func packRest(m dataplane.Member) uint32 {
	return uint32(max(0, m.Prefix.Bits()))<<24 | uint32(m.Protocol)<<16 | uint32(m.Port)
}

func unpackRest(a netip.Addr, rest uint32) dataplane.Member {
	return dataplane.Member{Prefix: netip.PrefixFrom(a, int(rest>>24)), Protocol: dataplane.Protocol(rest >> 16), Port: uint16(rest)}
}
