package filter

import (
	"github.com/calicogo/calico/dataplane"
)

// members is what a set of dataplane's has of one family, by kind, and who uses it. The
// program's sets share its maps.
type members struct {
	addrs, triples map[Element]struct{}
	nets           nets
	sets           []string // of the program, that follow it
	chains         users    // whose rules depend on its kinds
}

// users are chains, and how often each refers to a set: mostly one.
type users struct {
	one  string
	n    int
	more map[string]int
}

// add adds n to the count of a chain's references.
func (u *users) add(chain string, n int) {
	if u.one == "" && u.more[chain] == 0 {
		u.one = chain
	}
	if u.one == chain {
		if u.n += n; u.n <= 0 {
			u.one, u.n = "", 0
		}
		return
	}
	if u.more == nil {
		u.more = map[string]int{}
	}
	if u.more[chain] += n; u.more[chain] <= 0 {
		delete(u.more, chain)
	}
}

func (u *users) len() int {
	if u.one == "" {
		return len(u.more)
	}
	return 1 + len(u.more)
}

// each calls f with every chain.
func (u *users) each(f func(chain string)) {
	if u.one != "" {
		f(u.one)
	}
	for chain := range u.more {
		f(chain)
	}
}

// of returns the elements of that kind, in a map that stays the same. Most sets need but one.
func (m *members) of(k SetKind) map[Element]struct{} {
	at := &m.nets.shown
	switch k {
	case Addrs:
		at = &m.addrs
	case Triples:
		at = &m.triples
	}
	if *at == nil {
		*at = map[Element]struct{}{}
	}
	return *at
}

// expect makes room for the single addresses of a list.
func (m *members) expect(list []dataplane.Member, f dataplane.Family) {
	if m.addrs != nil {
		return
	}
	n := 0
	for _, x := range list {
		if k, _ := element(x, f); k == Addrs {
			n++
		}
	}
	if n > 0 {
		m.addrs = make(map[Element]struct{}, n)
	}
}

// kinds are those that a match of addresses refers to.
func (m *members) kinds() []SetKind { return kinds(len(m.addrs) > 0, !m.nets.empty()) }

func kinds(addrs, nets bool) []SetKind {
	switch {
	case addrs && nets:
		return []SetKind{Addrs, Nets}
	case nets:
		return []SetKind{Nets}
	}
	return []SetKind{Addrs}
}

// unused tells whether nothing is lost without m.
func (m *members) unused() bool {
	return len(m.addrs)+len(m.triples)+len(m.sets)+m.chains.len() == 0 && m.nets.empty()
}

// apply changes m as a State's Apply does, and adds to out what comes and goes of it, by
// kind; nil: nobody asks. sd is nil if everything goes.
func (m *members) apply(sd *dataplane.SetDelta, f dataplane.Family, out *allFlips) {
	if sd == nil {
		for k, have := range map[SetKind]map[Element]struct{}{Addrs: m.addrs, Triples: m.triples, Nets: m.nets.shown} {
			for e := range have {
				out.of(k).gone(e)
			}
			clear(have)
		}
		m.nets.root = nil
		return
	}
	for _, x := range sd.Add {
		m.add(x, f, out)
	}
	for _, x := range sd.Remove {
		m.remove(x, f, out)
	}
}

func (m *members) add(x dataplane.Member, f dataplane.Family, out *allFlips) {
	k, e := element(x, f)
	switch k {
	case 0:
	case Nets:
		m.of(k)
		m.nets.add(x.Prefix, out.of(k))
	default:
		if _, ok := m.of(k)[e]; !ok {
			m.of(k)[e] = struct{}{}
			out.of(k).come(e)
		}
	}
}

func (m *members) remove(x dataplane.Member, f dataplane.Family, out *allFlips) {
	k, e := element(x, f)
	switch k {
	case 0:
	case Nets:
		m.nets.remove(x.Prefix, out.of(k))
	default:
		if _, ok := m.of(k)[e]; ok {
			delete(m.of(k), e)
			out.of(k).gone(e)
		}
	}
}

// allFlips are those of each kind. A nil one is of those that nobody asks for.
type allFlips struct{ nets, addrs, triples flips }

func (a *allFlips) of(k SetKind) *flips {
	if a == nil {
		return nil
	}
	switch k {
	case Addrs:
		return &a.addrs
	case Triples:
		return &a.triples
	}
	return &a.nets
}

func (a *allFlips) net() {
	if a != nil {
		a.nets.net()
		a.addrs.net()
		a.triples.net()
	}
}

func (f *flips) come(e Element) {
	if f != nil {
		f.add = append(f.add, e)
	}
}

func (f *flips) gone(e Element) {
	if f != nil {
		f.remove = append(f.remove, e)
	}
}

// net drops what came and went again, or went and came.
func (f *flips) net() {
	if len(f.add) == 0 || len(f.remove) == 0 {
		return
	}
	times := map[Element]int{}
	for _, e := range f.add {
		times[e]++
	}
	for _, e := range f.remove {
		times[e]--
	}
	f.add, f.remove = f.add[:0], f.remove[:0]
	for e, n := range times {
		switch {
		case n > 0:
			f.add = append(f.add, e)
		case n < 0:
			f.remove = append(f.remove, e)
		}
	}
}
