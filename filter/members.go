package filter

import "net/netip"

// members is a live set: what it was told, and what of it is shown. In a set of nets a
// prefix is shown while no shorter one contains it: kernels take no overlaps.
type members struct {
	nets    bool
	count   map[Element]int
	bits    [129]int         // how many elements have a prefix of that length
	touched map[Element]bool // what may have changed since take: whether it was shown
}

func newMembers(k SetKind) *members {
	return &members{nets: k == Nets, count: map[Element]int{}, touched: map[Element]bool{}}
}

func (m *members) add(e Element) {
	if m.count[e] == 0 {
		m.touch(e)
		m.bits[e.Prefix.Bits()]++
	}
	m.count[e]++
}

func (m *members) remove(e Element) {
	switch m.count[e] {
	case 0:
	case 1:
		m.touch(e)
		delete(m.count, e)
		m.bits[e.Prefix.Bits()]--
	default:
		m.count[e]--
	}
}

// touch notes whether e, and what it contains, are shown, before e comes or goes.
func (m *members) touch(e Element) {
	m.note(e)
	if !m.nets || e.Prefix.IsSingleIP() {
		return
	}
	for x := range m.count {
		if e.Prefix.Contains(x.Prefix.Addr()) && x.Prefix.Bits() > e.Prefix.Bits() {
			m.note(x)
		}
	}
}

func (m *members) note(e Element) {
	if _, ok := m.touched[e]; !ok {
		m.touched[e] = m.shown(e)
	}
}

func (m *members) shown(e Element) bool {
	if m.count[e] == 0 {
		return false
	}
	if !m.nets {
		return true
	}
	for bits := range e.Prefix.Bits() {
		if m.bits[bits] > 0 && m.count[Element{Prefix: outer(e.Prefix, bits)}] > 0 {
			return false
		}
	}
	return true
}

// take returns what has come and gone of what is shown since it was last called.
func (m *members) take() (add, remove []Element) {
	for e, was := range m.touched {
		switch is := m.shown(e); {
		case is && !was:
			add = append(add, e)
		case was && !is:
			remove = append(remove, e)
		}
	}
	clear(m.touched)
	return add, remove
}

// outer returns the prefix of that length, which is smaller, that contains p.
func outer(p netip.Prefix, bits int) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}
