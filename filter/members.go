package filter

import (
	"maps"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// members is what a set of dataplane's has of one family, by kind, and who uses it. The
// program's sets share its maps.
type members struct {
	addrs, triples map[Element]struct{}
	nets           nets
	sets           []string       // of the program, that follow it
	chains         map[string]int // how often chains refer to it: their rules depend on its kinds
}

func newMembers() *members { return &members{chains: map[string]int{}} }

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

// use adds n to the count of the chain's references.
func (m *members) use(chain string, n int) {
	if m.chains[chain] += n; m.chains[chain] <= 0 {
		delete(m.chains, chain)
	}
}

// unused tells whether nothing is lost without m.
func (m *members) unused() bool {
	return len(m.addrs)+len(m.triples)+len(m.sets)+len(m.chains) == 0 && m.nets.empty()
}

// apply changes m as a State's Apply does, and adds to out what comes and goes of it, by
// kind. nil: everything goes.
func (m *members) apply(sd *dataplane.SetDelta, f dataplane.Family, out map[SetKind]*flips) {
	if sd == nil {
		for k, have := range map[SetKind]map[Element]struct{}{Addrs: m.addrs, Triples: m.triples, Nets: m.nets.shown} {
			out[k].remove = slices.AppendSeq(out[k].remove, maps.Keys(have))
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

func (m *members) add(x dataplane.Member, f dataplane.Family, out map[SetKind]*flips) {
	k, e := element(x, f)
	switch k {
	case 0:
	case Nets:
		m.of(k)
		m.nets.add(x.Prefix, out[k])
	default:
		if _, ok := m.of(k)[e]; !ok {
			m.of(k)[e] = struct{}{}
			out[k].add = append(out[k].add, e)
		}
	}
}

func (m *members) remove(x dataplane.Member, f dataplane.Family, out map[SetKind]*flips) {
	k, e := element(x, f)
	switch k {
	case 0:
	case Nets:
		m.nets.remove(x.Prefix, out[k])
	default:
		if _, ok := m.of(k)[e]; ok {
			delete(m.of(k), e)
			out[k].remove = append(out[k].remove, e)
		}
	}
}

func newFlips() map[SetKind]*flips { return map[SetKind]*flips{Addrs: {}, Nets: {}, Triples: {}} }

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
