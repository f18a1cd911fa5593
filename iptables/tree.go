package iptables

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicogo/calico/filter"
)

// treeID says what a tree of chains is for. iptables has no maps, and no sets of devices: a device's
// name is looked up letter by letter, by chains that each go to one for a longer beginning of it.
//
// Networks by device are a tree, too: hash:net,iface does not go on to a shorter prefix once it has met a longer
// one of another device.
type treeID struct {
	source string       // the map; or with set, the set
	field  filter.Field // of a set
	not    bool         // of a set: notes in the scratch bit what it has; true: what it has not
	set    bool
}

// root names the first chain.
func (id treeID) root() string {
	if !id.set {
		return id.source
	}
	name := id.source + map[filter.Field]string{
		filter.InIface: ".in", filter.OutIface: ".out", filter.InIfaceSrc: ".src",
	}[id.field]
	if id.not {
		name += ".not"
	}
	return name
}

// few is how many names one chain may list.
const few = 8

// build returns the tree's chains. They depend on the keys alone, not on the way they came.
func (l *lowering) build(id treeID, p *filter.Program) (map[string][]filter.Rule, error) {
	b := treeBuilder{id: id, field: id.field, out: map[string][]filter.Rule{}}
	found := func(string) filter.Rule { return filter.Rule{Verdict: filter.Return} }
	note := filter.Rule{Actions: []filter.Action{filter.SetMark{Mask: l.scratch, Value: l.scratch}}}
	var keys []string
	switch {
	case !id.set:
		m := p.Maps[id.source]
		if m == nil {
			return nil, fmt.Errorf("there is no map %s", id.source)
		}
		b.field = m.Field
		keys = slices.Sorted(maps.Keys(m.Chains))
		found = func(key string) filter.Rule { return filter.Rule{Verdict: filter.Goto, Target: m.Chains[key]} }
	default:
		s := p.Sets[id.source]
		if s == nil {
			return nil, fmt.Errorf("there is no set %s", id.source)
		}
		if id.not {
			b.end = []filter.Rule{note}
		} else {
			found = func(string) filter.Rule { return note }
		}
		if s.Kind == filter.IfaceNets {
			b.field, b.nets = filter.InIface, netsOf(s)
		}
		for e := range s.Elements {
			keys = append(keys, e.Iface)
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
	}
	for _, k := range keys {
		if err := checkDevice(k); err != nil {
			return nil, err
		}
	}
	b.found = found
	b.node(id.root(), keys)
	return b.out, nil
}

type treeBuilder struct {
	id    treeID
	field filter.Field
	found func(key string) filter.Rule
	nets  map[string][]netip.Prefix // of a key; nil: the key alone decides
	end   []filter.Rule             // of each chain, for what is not there
	out   map[string][]filter.Rule
}

// node makes the chain for the sorted keys, and those below it.
func (b *treeBuilder) node(name string, keys []string) {
	var rules []filter.Rule
	if len(keys) <= few {
		for _, k := range keys {
			rules = append(rules, b.leaf(k)...)
		}
		b.out[name] = append(rules, b.end...)
		return
	}
	at := len(common(keys))
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && at < len(keys[0]) && keys[n][at] == keys[0][at] {
			n++
		}
		rules = append(rules, b.branch(keys[:n])...)
		keys = keys[n:]
	}
	b.out[name] = append(rules, b.end...)
}

func (b *treeBuilder) leaf(key string) []filter.Rule {
	r := b.found(key)
	device := filter.Match{Field: b.field, Value: filter.Iface{Name: key}}
	if b.nets == nil {
		r.Match = []filter.Match{device}
		return []filter.Rule{r}
	}
	var out []filter.Rule
	for _, n := range b.nets[key] {
		one := r
		one.Match = []filter.Match{device, {Field: filter.SrcAddr, Value: filter.Prefix{Prefix: n}}}
		out = append(out, one)
	}
	return out
}

// netsOf returns the prefixes of a set by their devices, in order.
func netsOf(s *filter.Set) map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for e := range s.Elements {
		out[e.Iface] = append(out[e.Iface], e.Prefix)
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
	}
	return out
}

// branch returns the way on for keys that begin alike.
func (b *treeBuilder) branch(keys []string) []filter.Rule {
	if len(keys) == 1 {
		return b.leaf(keys[0])
	}
	prefix := common(keys)
	name := b.id.root() + "-" + prefix
	b.node(name, keys)
	return []filter.Rule{{
		Match:   []filter.Match{{Field: b.field, Value: filter.Iface{Name: prefix, Prefix: true}}},
		Verdict: filter.Goto, Target: name,
	}}
}

// common is what all sorted keys begin with.
func common(keys []string) string {
	a, z := keys[0], keys[len(keys)-1]
	n := 0
	for n < len(a) && n < len(z) && a[n] == z[n] {
		n++
	}
	return a[:n]
}

// checkDevice refuses a name that iptables or ipset would take for something else.
func checkDevice(name string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\,`, r) }
	if name == "" || len(name) > 15 || strings.HasSuffix(name, "+") || strings.ContainsAny(name[:1], "-!") || strings.IndexFunc(name, odd) >= 0 {
		return fmt.Errorf("device %q: iptables cannot name it; give it a name of letters, digits and dashes", name)
	}
	return nil
}
