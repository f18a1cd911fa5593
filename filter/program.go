package filter

import (
	"maps"
	"net/netip"
	"reflect"

	"github.com/calicogo/calico/dataplane"
)

// Program is every chain, set and map of one family's table.
type Program struct {
	Family dataplane.Family
	Chains map[string]*Chain
	Sets   map[string]*Set
	Maps   map[string]*Map
}

// NewProgram returns the empty program of a family.
func NewProgram(f dataplane.Family) *Program {
	return &Program{Family: f, Chains: map[string]*Chain{}, Sets: map[string]*Set{}, Maps: map[string]*Map{}}
}

// Chain is a list of rules. It is not written to once it is in a program.
type Chain struct {
	Base  *Base // nil: reached by a jump only
	Rules []Rule
}

// Base says where packets enter a chain. Those that pass its last rule are accepted.
type Base struct {
	Hook     Hook
	Table    Table
	Priority int // as in nftables: smaller runs first
}

// Hook is a point on a packet's way.
type Hook uint8

const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// Table is what a base chain may do, by the names that iptables gave.
type Table uint8

const (
	RawTable Table = iota + 1
	MangleTable
	NATTable
	FilterTable
)

// Set is a set of elements of one kind, which rules use in one sense.
type Set struct {
	Kind     SetKind
	Sense    Sense
	Elements map[Element]struct{}
}

// SetKind says which fields of a set's elements are used.
type SetKind uint8

const (
	Nets       SetKind = iota + 1 // Prefix; none contains another
	Addrs                         // Prefix, a single address
	PortRanges                    // Ports; they do not overlap
	Triples                       // Prefix (an address), Protocol, Ports (one)
	Ifaces                        // Iface
	IfaceAddrs                    // Iface, Prefix (an address)
	IfaceNets                     // Iface, Prefix; no prefix contains another of the same interface
)

// Element is a member of a set.
type Element struct {
	Iface    string
	Prefix   netip.Prefix
	Protocol dataplane.Protocol
	Ports    dataplane.PortRange
}

// Sense says which way elements move the verdict of packets that they fit.
type Sense uint8

const (
	Neutral Sense = iota // in themselves none: the sets that are fixed, and those that endpoints fill
	Opens                // with an element more, no packet passes less
	Closes               // with an element more, no packet passes more
)

// inverse is the sense of a match's negation.
func (s Sense) inverse() Sense {
	return [...]Sense{Neutral: Neutral, Opens: Closes, Closes: Opens}[s]
}

// Map names the chain for each value of a field, which is InIface or OutIface.
type Map struct {
	Field  Field
	Chains map[string]string
}

// Changes leads from one program to another.
type Changes struct {
	Chains map[string]*Chain // nil: gone. A chain that stays keeps its Base.
	Sets   map[string]*SetChange
	Maps   map[string]*MapChange

	fresh map[string]bool // chains that were not there before
	opens bool            // see Opens
}

// SetChange changes a set.
type SetChange struct {
	Kind        SetKind
	Sense       Sense
	New, Gone   bool      // at most one of them
	Add, Remove []Element // of a set that goes: all that was in it
}

// MapChange changes a map.
type MapChange struct {
	Field     Field
	New, Gone bool
	Add       map[string]string
	Remove    map[string]string
}

func newChanges() *Changes {
	return &Changes{Chains: map[string]*Chain{}, Sets: map[string]*SetChange{}, Maps: map[string]*MapChange{}}
}

// chain notes that a chain is no longer the old one; nil: there is none.
func (c *Changes) chain(name string, old, now *Chain) {
	if _, again := c.Chains[name]; old == nil && !again {
		if c.fresh == nil {
			c.fresh = map[string]bool{}
		}
		c.fresh[name] = true
	}
	c.Chains[name] = now
}

// Empty tells whether c changes nothing.
func (c *Changes) Empty() bool { return len(c.Chains)+len(c.Sets)+len(c.Maps) == 0 }

// Apply changes p by c.
func (p *Program) Apply(c *Changes) {
	for name, ch := range c.Chains {
		if ch == nil {
			delete(p.Chains, name)
		} else {
			p.Chains[name] = ch
		}
	}
	for name, sc := range c.Sets {
		p.applySet(name, sc)
	}
	for name, mc := range c.Maps {
		p.applyMap(name, mc)
	}
}

func (p *Program) applySet(name string, sc *SetChange) {
	if sc.Gone {
		delete(p.Sets, name)
		return
	}
	if sc.New {
		p.Sets[name] = &Set{Kind: sc.Kind, Sense: sc.Sense, Elements: map[Element]struct{}{}}
	}
	for _, e := range sc.Remove {
		delete(p.Sets[name].Elements, e)
	}
	for _, e := range sc.Add {
		p.Sets[name].Elements[e] = struct{}{}
	}
}

func (p *Program) applyMap(name string, mc *MapChange) {
	if mc.Gone {
		delete(p.Maps, name)
		return
	}
	if mc.New {
		p.Maps[name] = &Map{Field: mc.Field, Chains: map[string]string{}}
	}
	for k := range mc.Remove {
		delete(p.Maps[name].Chains, k)
	}
	maps.Copy(p.Maps[name].Chains, mc.Add)
}

// Diff returns the changes that lead from p to q, both made by this package: what bears
// one name in both is of one kind and sense.
func (p *Program) Diff(q *Program) *Changes {
	c := newChanges()
	for name, ch := range q.Chains {
		if old := p.Chains[name]; old == nil || !old.equal(ch) {
			c.chain(name, old, ch)
		}
	}
	for name := range p.Chains {
		if q.Chains[name] == nil {
			c.chain(name, p.Chains[name], nil)
		}
	}
	p.diffSets(q, c)
	p.diffMaps(q, c)
	return c
}

func (ch *Chain) equal(o *Chain) bool { return reflect.DeepEqual(ch, o) }

func (p *Program) diffSets(q *Program, c *Changes) {
	for name, s := range q.Sets {
		old := p.Sets[name]
		sc := &SetChange{Kind: s.Kind, Sense: s.Sense, New: old == nil}
		if old == nil {
			old = &Set{}
		}
		sc.Add, sc.Remove = missing(s.Elements, old.Elements), missing(old.Elements, s.Elements)
		if sc.New || len(sc.Add)+len(sc.Remove) > 0 {
			c.Sets[name] = sc
		}
	}
	for name, s := range p.Sets {
		if q.Sets[name] == nil {
			c.Sets[name] = &SetChange{Kind: s.Kind, Sense: s.Sense, Gone: true, Remove: missing(s.Elements, nil)}
		}
	}
}

// missing returns what is in a and not in b.
func missing(a, b map[Element]struct{}) (out []Element) {
	for e := range a {
		if _, ok := b[e]; !ok {
			out = append(out, e)
		}
	}
	return out
}

func (p *Program) diffMaps(q *Program, c *Changes) {
	for name, m := range q.Maps {
		old := p.Maps[name]
		mc := &MapChange{Field: m.Field, New: old == nil}
		if old == nil {
			old = &Map{}
		}
		mc.Add, mc.Remove = missingKeys(m.Chains, old.Chains), missingKeys(old.Chains, m.Chains)
		if mc.New || len(mc.Add)+len(mc.Remove) > 0 {
			c.Maps[name] = mc
		}
	}
	for name, m := range p.Maps {
		if q.Maps[name] == nil {
			c.Maps[name] = &MapChange{Field: m.Field, Gone: true}
		}
	}
}

// missingKeys returns what a says and b says not, or says otherwise.
func missingKeys(a, b map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out[k] = v
		}
	}
	return out
}
