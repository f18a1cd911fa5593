package calc

import (
	"net/netip"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// netList is a list of prefixes, packed, in the order in which they came. There are as many
// lists as the cluster has pods, and most hold one address of IPv4, which lies in the list
// itself.
type netList struct {
	one  packed4 // 0: none; so 0.0.0.0/0 lies in more
	more *netLists
}

type netLists struct {
	v4 []packed4
	v6 []packed6
}

func (l *netList) add(p netip.Prefix) {
	m := dataplane.Member{Prefix: p}
	if p.Addr().Is4() && *l == (netList{}) && pack4(m) != 0 {
		l.one = pack4(m)
		return
	}
	if l.more == nil {
		l.more = &netLists{}
	}
	if p.Addr().Is4() {
		l.more.v4 = append(l.more.v4, pack4(m))
	} else {
		l.more.v6 = append(l.more.v6, pack6(m))
	}
}

// expect makes room for n prefixes, most of which are of IPv4.
func (l *netList) expect(n int) {
	if n > 1 {
		l.more = &netLists{v4: make([]packed4, 0, n)}
	}
}

// clip gives up what memory the list does not need.
func (l *netList) clip() {
	if l.more != nil {
		l.more.v4, l.more.v6 = clip(l.more.v4), clip(l.more.v6)
	}
}

func clip[T any](list []T) []T {
	if len(list) == cap(list) {
		return list
	}
	return append([]T(nil), list...)
}

// each calls f4 and f6 with every prefix, with those of IPv6 only if v6 is true.
func (l netList) each(v6 bool, f4 func(packed4), f6 func(packed6)) {
	if l.one != 0 {
		f4(l.one)
	}
	if l.more == nil {
		return
	}
	for _, x := range l.more.v4 {
		f4(x)
	}
	if !v6 {
		return
	}
	for _, x := range l.more.v6 {
		f6(x)
	}
}

func (l netList) equal(o netList) bool {
	a, b := l.lists(), o.lists()
	return l.one == o.one && slices.Equal(a.v4, b.v4) && slices.Equal(a.v6, b.v6)
}

func (l netList) lists() netLists {
	if l.more == nil {
		return netLists{}
	}
	return *l.more
}

// differing returns what is left of two lists without what they begin and end with alike: of
// two versions of a long list, about what has changed.
func differing(a, b netList) (netList, netList) {
	if a.one == b.one {
		a.one, b.one = 0, 0
	}
	x, y := a.lists(), b.lists()
	x.v4, y.v4 = trim(x.v4, y.v4)
	x.v6, y.v6 = trim(x.v6, y.v6)
	a.more, b.more = &x, &y
	return a, b
}

func trim[T comparable](a, b []T) ([]T, []T) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// eachPort calls f4 and f6 with the triple of every address, the protocol and the port.
func (l netList) eachPort(protocol dataplane.Protocol, port uint16, v6 bool, f4 func(packed4), f6 func(packed6)) {
	rest := packRest(dataplane.Member{Protocol: protocol, Port: port})
	l.each(v6, func(x packed4) { f4(x | packed4(rest)) }, func(x packed6) {
		x.rest |= rest
		f6(x)
	})
}
