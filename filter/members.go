package filter

import "net/netip"

// members is a live set: what it was told. What of it is shown is the program's set: in one
// of nets a prefix is shown while no shorter one contains it, for kernels take no overlaps.
type members struct {
	nets    bool
	count   map[Element]int
	bits    [129]int             // how many elements have a prefix of that length
	touched map[Element]struct{} // come or gone since take
}

func newMembers(k SetKind) *members {
	return &members{nets: k == Nets, count: map[Element]int{}, touched: map[Element]struct{}{}}
}

func (m *members) add(e Element) {
	if m.count[e] == 0 {
		m.touched[e] = struct{}{}
		m.bits[e.Prefix.Bits()]++
	}
	m.count[e]++
}

func (m *members) remove(e Element) {
	switch m.count[e] {
	case 0:
	case 1:
		m.touched[e] = struct{}{}
		delete(m.count, e)
		m.bits[e.Prefix.Bits()]--
	default:
		m.count[e]--
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

// take returns what is to come and go of what is shown.
func (m *members) take(shown map[Element]struct{}) (add, remove []Element) {
	m.touchInner()
	for e := range m.touched {
		_, was := shown[e]
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

// touchInner touches what touched prefixes contain, in one pass over the set, however many
// they are; and in none if there is nothing longer than they.
func (m *members) touchInner() {
	if !m.nets {
		return
	}
	var lengths [129]bool
	shortest := len(lengths)
	for e := range m.touched {
		lengths[e.Prefix.Bits()] = true
		shortest = min(shortest, e.Prefix.Bits())
	}
	if !m.longer(shortest) {
		return
	}
	var inner []Element
	for e := range m.count {
		for bits := shortest; bits < e.Prefix.Bits(); bits++ {
			if !lengths[bits] {
				continue
			}
			if _, ok := m.touched[Element{Prefix: outer(e.Prefix, bits)}]; ok {
				inner = append(inner, e)
				break
			}
		}
	}
	for _, e := range inner {
		m.touched[e] = struct{}{}
	}
}

// longer tells whether there is a prefix longer than bits.
func (m *members) longer(bits int) bool {
	for n := bits + 1; n < len(m.bits); n++ {
		if m.bits[n] > 0 {
			return true
		}
	}
	return false
}

// outer returns the prefix of that length, which is smaller, that contains p.
func outer(p netip.Prefix, bits int) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}
