package iptables

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// lowering turns rules of a program into rules that are one rule of iptables each: with at most one
// address, device and protocol of a kind, no sets of devices, and one thing to do. It keeps what it
// finds on the way that rules need beside them.
type lowering struct {
	family  dataplane.Family
	scratch uint32 // a bit of the mark that means nothing between rules of ours; 0: there is none
	helpers map[string][]filter.Rule
	trees   map[string]treeID
	program *filter.Program
}

func newLowering(f dataplane.Family, mask uint32) *lowering {
	_, _, spare := filter.Marks(mask)
	return &lowering{
		family: f, scratch: spare & -spare,
		helpers: map[string][]filter.Rule{}, trees: map[string]treeID{},
	}
}

// chain returns a chain's rules lowered.
func (l *lowering) chain(name string, ch *filter.Chain) ([]filter.Rule, error) {
	out := make([]filter.Rule, 0, len(ch.Rules))
	for i := range ch.Rules {
		rules, err := l.rule(&ch.Rules[i])
		if err != nil {
			return nil, fmt.Errorf("chain %s, rule %d: %w", name, i+1, err)
		}
		out = append(out, rules...)
	}
	return out, nil
}

// rule returns the rules that together do what r does: none if it fits nothing or does nothing.
// Conditions of which iptables takes only one in a rule come first, each noting in the
// scratch bit that it is violated.
func (l *lowering) rule(r *filter.Rule) ([]filter.Rule, error) {
	f, ok, err := l.fold(r.Match)
	if err != nil || !ok {
		return nil, err
	}
	end := l.effect(r)
	if len(end.Actions) == 0 && end.Verdict == filter.Continue {
		return nil, nil
	}
	if len(f.extra) == 0 {
		end.Match = f.fits
		return []filter.Rule{end}, nil
	}
	if l.scratch == 0 {
		return nil, errors.New("NftablesMarkMask, which stands for IptablesMarkMask: iptables needs 4 bits of the mark, one more than nftables; set more bits")
	}
	guard := f.devices()
	clear, set := filter.SetMark{Mask: l.scratch}, filter.SetMark{Mask: l.scratch, Value: l.scratch}
	out := []filter.Rule{{Match: guard, Actions: []filter.Action{clear}}}
	for _, m := range f.extra {
		note := filter.Rule{Match: guard, Verdict: filter.Jump}
		switch ref, ok := m.Value.(filter.SetRef); {
		case ok && ref.Kind == filter.PortRanges:
			note.Match = slices.Concat(guard, f.protocol())
			note.Target = l.portChain(m, f.protocol())
		case ok:
			note.Target = l.tree(treeID{source: ref.Name, field: m.Field, not: !m.Not, set: true})
		default:
			m.Not = !m.Not
			others := slices.DeleteFunc(slices.Clone(guard), func(g filter.Match) bool { return g.Field == m.Field })
			note = filter.Rule{Match: append(others, m), Actions: []filter.Action{set}}
		}
		out = append(out, note)
	}
	end.Match = append(f.fits, filter.Match{Field: filter.Mark, Value: filter.Bits{Mask: l.scratch}})
	return append(out, end), nil
}

// tree notes a tree and returns the name of its first chain.
func (l *lowering) tree(id treeID) string {
	l.trees[id.root()] = id
	return id.root()
}

// What names of chains begin with that rules need beside them.
const (
	doPrefix    = chainPrefix + "do-"
	portsPrefix = chainPrefix + "ports-"
)

func isHelper(key string) bool {
	return strings.HasPrefix(key, doPrefix) || strings.HasPrefix(key, portsPrefix)
}

// effect returns a rule without conditions that does what r does. What takes more than one target is in
// a chain of its own, so that a packet is matched once only.
func (l *lowering) effect(r *filter.Rule) filter.Rule {
	verdict, target := r.Verdict, r.Target
	if verdict == filter.Dispatch {
		verdict, target = filter.Jump, l.tree(treeID{source: target})
	}
	var actions []filter.Action
	for _, a := range r.Actions {
		if _, count := a.(filter.Count); !count { // iptables counts by itself
			actions = append(actions, a)
		}
	}
	if len(actions) > 0 && endsHook(actions[len(actions)-1]) {
		verdict, target = filter.Continue, ""
	}
	switch {
	case len(actions) == 0:
		return filter.Rule{Verdict: verdict, Target: target}
	case len(actions) == 1 && verdict == filter.Continue:
		return filter.Rule{Actions: actions}
	}
	return l.helper(actions, verdict, target)
}

func endsHook(a filter.Action) bool {
	switch a.(type) {
	case filter.Masquerade, filter.SNAT, filter.DNAT:
		return true
	}
	return false
}

// helper returns the way to a chain that does the actions and what the verdict says. A chain that is
// gone to returns where the one that went there would.
func (l *lowering) helper(actions []filter.Action, verdict filter.Verdict, target string) filter.Rule {
	way := filter.Rule{Verdict: filter.Goto}
	var rules []filter.Rule
	for _, a := range actions {
		rules = append(rules, filter.Rule{Actions: []filter.Action{a}})
	}
	last := filter.Rule{Verdict: verdict, Target: target}
	switch verdict {
	case filter.Continue:
		way.Verdict = filter.Jump
	case filter.Jump:
		way.Verdict, last.Verdict = filter.Jump, filter.Goto
	case filter.Reset:
		last.Match = []filter.Match{{Field: filter.Protocol, Value: filter.Number(dataplane.TCP)}}
	}
	if verdict != filter.Continue && verdict != filter.Return {
		rules = append(rules, last)
	}
	way.Target = doPrefix + hash(fmt.Sprintf("%#v", rules))[:20]
	l.helpers[way.Target] = rules
	return way
}

// folded are the conditions of a rule: those that fit in one of iptables, and those too many.
type folded struct{ fits, extra []filter.Match }

// devices are the conditions on devices that are in fits.
func (f *folded) devices() (out []filter.Match) {
	for _, m := range f.fits {
		if _, ok := m.Value.(filter.Iface); ok {
			out = append(out, m)
		}
	}
	return out
}

// protocol is the condition on the protocol that is in fits.
func (f *folded) protocol() (out []filter.Match) {
	for _, m := range f.fits {
		if m.Field == filter.Protocol {
			out = append(out, m)
		}
	}
	return out
}

// fold sorts out conditions; false: nothing fits them all.
func (l *lowering) fold(match []filter.Match) (*folded, bool, error) {
	f := &folded{}
	for _, field := range []filter.Field{filter.InIface, filter.OutIface, filter.Protocol, filter.SrcAddr, filter.DstAddr} {
		if !f.single(match, field) {
			return nil, false, nil
		}
	}
	for _, m := range match {
		switch v := m.Value.(type) {
		case filter.Iface, filter.Number, filter.Prefix:
			continue // taken above
		case filter.SetRef:
			switch {
			case v.Kind == filter.PortRanges:
				if err := l.portSet(f, m, v); err != nil {
					return nil, false, err
				}
				continue
			case setType(v.Kind) == "":
				f.extra = append(f.extra, m)
				continue
			case v.Kind == filter.Triples && m.Not:
				f.needPort(map[filter.Field]filter.Field{filter.SrcTriple: filter.SrcPort, filter.DstTriple: filter.DstPort}[m.Field])
			}
		}
		f.fits = append(f.fits, m)
	}
	return f, true, nil
}

// needPort has a packet without ports, which a set does not hold, not fit the negation either.
func (f *folded) needPort(field filter.Field) {
	f.fits = append(f.fits, filter.Match{Field: field, Value: filter.Ports{Max: 65535}})
}

// multiport is a list of ports as iptables' match of that name takes it.
type multiport struct {
	filter.Value // none; it makes the list one
	list         string
}

// portSet puts in a condition on ports, which do not change. Where multiport cannot take them at once, it is asked for
// parts. (ipset's bitmap:port holds ports of TCP and UDP only.)
func (l *lowering) portSet(f *folded, m filter.Match, ref filter.SetRef) error {
	parts, err := l.portParts(ref.Name)
	switch {
	case err != nil:
		return err
	case len(parts) > 1 && (!m.Not || len(parts) > maxParts):
		if m.Not {
			f.needPort(m.Field)
		}
		f.extra = append(f.extra, m)
		return nil
	}
	for _, part := range parts {
		m.Value = multiport{list: part}
		f.fits = append(f.fits, m)
	}
	return nil
}

const (
	slots    = 15 // how many ports multiport takes; a range counts twice
	maxParts = 8  // how many of multiport are in one rule; iptables-restore takes 255 words
)

// portParts returns the ports of a set in as many lists as it takes.
func (l *lowering) portParts(name string) (parts []string, err error) {
	set := l.program.Sets[name]
	if set == nil {
		return nil, fmt.Errorf("there is no set %s", name)
	}
	var ranges []dataplane.PortRange
	for e := range set.Elements {
		ranges = append(ranges, e.Ports)
	}
	slices.SortFunc(ranges, func(a, b dataplane.PortRange) int { return cmp.Compare(a.Min, b.Min) })
	used := slots
	for _, r := range ranges {
		n, s := 1, strconv.Itoa(int(r.Min))
		if r.Max != r.Min {
			n, s = 2, s+":"+strconv.Itoa(int(r.Max))
		}
		if used += n; used > slots {
			parts, used = append(parts, s), n
			continue
		}
		parts[len(parts)-1] += "," + s
	}
	return parts, nil
}

// portChain returns the name of a chain that notes in the scratch bit that a condition on ports is
// violated: that the port is in no part of a set, or with Not that it is in one.
func (l *lowering) portChain(m filter.Match, protocol []filter.Match) string {
	parts, _ := l.portParts(m.Value.(filter.SetRef).Name)
	note := filter.Rule{Actions: []filter.Action{filter.SetMark{Mask: l.scratch, Value: l.scratch}}}
	found := filter.Rule{Verdict: filter.Return}
	if m.Not {
		found = note
	}
	var rules []filter.Rule
	for _, part := range parts {
		found.Match = append(slices.Clone(protocol), filter.Match{Field: m.Field, Value: multiport{list: part}})
		rules = append(rules, found)
	}
	if !m.Not {
		rules = append(rules, note)
	}
	name := portsPrefix + hash(fmt.Sprintf("%#v", rules))[:16]
	l.helpers[name] = rules
	return name
}

// single folds the literals of a field of which a rule takes one.
func (f *folded) single(match []filter.Match, field filter.Field) bool {
	var is *filter.Match
	var not []filter.Match
	for _, m := range match {
		_, set := m.Value.(filter.SetRef)
		switch {
		case m.Field != field || set:
		case m.Not:
			not = append(not, m)
		case is == nil || covers(is.Value, m.Value):
			is = &m
		case !covers(m.Value, is.Value):
			return false
		}
	}
	var left []filter.Match
	for _, m := range not {
		switch {
		case is != nil && covers(m.Value, is.Value), all(m.Value):
			return false
		case is == nil || covers(is.Value, m.Value):
			left = append(left, m)
		}
	}
	if is != nil {
		left = slices.Insert(left, 0, *is)
	}
	if len(left) > 0 {
		f.fits = append(f.fits, left[0])
		f.extra = append(f.extra, left[1:]...)
	}
	return true
}

// covers tells whether whatever fits b fits a. If neither covers the other, nothing fits both.
func covers(a, b filter.Value) bool {
	switch a := a.(type) {
	case filter.Iface:
		b := b.(filter.Iface)
		return a == b || a.Prefix && strings.HasPrefix(b.Name, a.Name)
	case filter.Prefix:
		b := b.(filter.Prefix)
		return a.Bits() <= b.Bits() && a.Contains(b.Addr())
	}
	return a == b
}

func all(v filter.Value) bool {
	p, ok := v.(filter.Prefix)
	return ok && p.Bits() == 0
}
