package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
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

// in tells whether a program has what the tree is for.
func (id treeID) in(p *filter.Program) bool {
	return id.set && p.Sets[id.source] != nil || !id.set && p.Maps[id.source] != nil
}

// touched returns the keys of which changes say something, in order.
func (id treeID) touched(c *filter.Changes) (keys []string) {
	if mc := c.Maps[id.source]; mc != nil && !id.set {
		keys = slices.AppendSeq(slices.Collect(maps.Keys(mc.Remove)), maps.Keys(mc.Add))
	}
	if sc := c.Sets[id.source]; sc != nil && id.set {
		for _, e := range slices.Concat(sc.Remove, sc.Add) {
			keys = append(keys, e.Iface)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// tree is one that was built: what is looked up in it. Its chains depend on that alone, not on the way it came.
type tree struct {
	id   treeID
	keys []string                  // in order
	nets map[string][]netip.Prefix // of a set of networks by device: those of a key, in order
}

// newTree returns the tree of a program's map or set.
func newTree(id treeID, p *filter.Program) *tree {
	t := &tree{id: id}
	if !id.set {
		t.keys = slices.Sorted(maps.Keys(p.Maps[id.source].Chains))
		return t
	}
	set := p.Sets[id.source]
	if set.Kind == filter.IfaceNets {
		t.nets = map[string][]netip.Prefix{}
		t.changeNets(&filter.SetChange{Add: slices.Collect(maps.Keys(set.Elements))})
	}
	for e := range set.Elements {
		t.keys = append(t.keys, e.Iface)
	}
	slices.Sort(t.keys)
	t.keys = slices.Compact(t.keys)
	return t
}

// change takes in what became of touched keys.
func (t *tree) change(touched []string, p *filter.Program, c *filter.Changes) {
	if t.nets != nil {
		t.changeNets(c.Sets[t.id.source])
	}
	for _, k := range touched {
		var is bool
		switch {
		case t.nets != nil:
			is = len(t.nets[k]) > 0
		case t.id.set:
			_, is = p.Sets[t.id.source].Elements[filter.Element{Iface: k}]
		default:
			_, is = p.Maps[t.id.source].Chains[k]
		}
		at, was := slices.BinarySearch(t.keys, k)
		switch {
		case is && !was:
			t.keys = slices.Insert(t.keys, at, k)
		case !is && was:
			t.keys = slices.Delete(t.keys, at, at+1)
		}
	}
}

func (t *tree) changeNets(sc *filter.SetChange) {
	for _, e := range sc.Remove {
		t.nets[e.Iface] = slices.DeleteFunc(t.nets[e.Iface], func(p netip.Prefix) bool { return p == e.Prefix })
		if len(t.nets[e.Iface]) == 0 {
			delete(t.nets, e.Iface)
		}
	}
	for _, e := range sc.Add {
		list := t.nets[e.Iface]
		if at, ok := slices.BinarySearchFunc(list, e.Prefix, netip.Prefix.Compare); !ok {
			t.nets[e.Iface] = slices.Insert(list, at, e.Prefix)
		}
	}
}

// few is how many names one chain may list.
const few = 8

// treeBuilder makes a tree's chains, but for those that it has and that list no touched key: the letters after
// which a chain is called determine which keys it leads to.
type treeBuilder struct {
	*tree
	field   filter.Field
	found   func(key string) filter.Rule
	end     []filter.Rule // of each chain, for what is not there
	touched []string
	has     func(chain string) bool
	out     map[string][]filter.Rule
	kept    map[string]bool
}

// builder returns one whose touched keys are all. Set has and touched for less.
func (l *lowering) builder(t *tree) *treeBuilder {
	b := &treeBuilder{
		tree: t, field: t.id.field, touched: t.keys, has: func(string) bool { return false },
		out: map[string][]filter.Rule{}, kept: map[string]bool{},
	}
	note := filter.Rule{Actions: []filter.Action{filter.SetMark{Mask: l.scratch, Value: l.scratch}}}
	switch {
	case !t.id.set:
		m := l.program.Maps[t.id.source]
		b.field = m.Field
		b.found = func(key string) filter.Rule { return filter.Rule{Verdict: filter.Goto, Target: m.Chains[key]} }
	case t.id.not:
		b.found = func(string) filter.Rule { return filter.Rule{Verdict: filter.Return} }
		b.end = []filter.Rule{note}
	default:
		b.found = func(string) filter.Rule { return note }
	}
	if t.nets != nil {
		b.field = filter.InIface
	}
	return b
}

// build makes the chains.
func (b *treeBuilder) build() error {
	for _, k := range b.touched {
		if _, is := slices.BinarySearch(b.keys, k); !is {
			continue
		}
		if err := checkDevice(k); err != nil {
			return &filter.Refused{Object: filter.ObjectOf(k), Err: err}
		}
	}
	b.node(b.id.root(), b.keys)
	return nil
}

// touches tells whether a touched key begins with a prefix.
func (b *treeBuilder) touches(prefix string) bool {
	at, _ := slices.BinarySearch(b.touched, prefix)
	return at < len(b.touched) && strings.HasPrefix(b.touched[at], prefix)
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
	for at := len(common(keys)); len(keys) > 0; {
		n := 1
		if at < len(keys[0]) {
			letter := keys[0][at]
			n = sort.Search(len(keys), func(i int) bool { return keys[i][at] > letter })
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

// branch returns the way on for keys that begin alike.
func (b *treeBuilder) branch(keys []string) []filter.Rule {
	if len(keys) == 1 {
		return b.leaf(keys[0])
	}
	prefix := common(keys)
	name := b.id.root() + "-" + prefix
	if b.has(name) && !b.touches(prefix) {
		b.kept[name] = true
	} else {
		b.node(name, keys)
	}
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
