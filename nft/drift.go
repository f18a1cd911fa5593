package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/filter"
)

// drift is how the kernel's table differs from a program, and with that how it is mended.
type drift struct {
	whole   string          // why the table has to be replaced; "": it has not
	changes *filter.Changes // what is missing, what is otherwise, and what no program has
	wipe    map[string][]nftables.SetElement
	empty   map[string]bool          // sets whose elements all go before theirs come
	refill  map[share]*refill        // sets that are shared
	flags   bool                     // the table's
	base    map[string]bool          // base chains that are made anew
	policy  map[string]*filter.Chain // base chains of which only the policy is otherwise
	others  []other
}

func newDrift() *drift {
	return &drift{
		changes: filter.NewProgram(0).Diff(filter.NewProgram(0)),
		wipe:    map[string][]nftables.SetElement{}, empty: map[string]bool{}, base: map[string]bool{},
		refill: map[share]*refill{}, policy: map[string]*filter.Chain{},
	}
}

func (d *drift) none() bool {
	return d.whole == "" && d.changes.Empty() && !d.flags && len(d.policy)+len(d.others)+len(d.refill)+len(d.wipe) == 0
}

// under tells whether sets are filled anew under rules that are others than the program's: then
// a packet could meet those with these.
func (d *drift) under() bool {
	return len(d.refill) > 0 && len(d.changes.Chains)+len(d.changes.Maps) > 0
}

// String says what differs, in short.
func (d *drift) String() string {
	if d.whole != "" {
		return d.whole
	}
	var out []string
	list := func(kind string, names []string) {
		const few = 3
		if n := len(names); n > few {
			out = append(out, fmt.Sprintf("%d %ss", n, kind))
			return
		}
		for _, n := range names {
			out = append(out, kind+" "+n)
		}
	}
	if d.flags {
		out = append(out, "the table's flags")
	}
	list("chain", sorted(d.changes.Chains))
	list("policy of chain", sorted(d.policy))
	list("set", append(sorted(d.changes.Sets), d.sharedNames()...))
	list("map", sorted(d.changes.Maps))
	for _, o := range d.others {
		out = append(out, o.kind+" "+o.name)
	}
	return strings.Join(out, ", ")
}

// sharedNames are those of the shared sets that have elements of no set, or are filled anew.
func (d *drift) sharedNames() (out []string) {
	for _, s := range allShares() {
		if d.refill[s] != nil || len(d.wipe[s.name()]) > 0 {
			out = append(out, s.name())
		}
	}
	return out
}

// noTable is why all is to be made.
const noTable = "there is no table"

// readTries is how often a table is read again that changes meanwhile.
const readTries = 5

// drift reads the kernel's table and compares it with the program. Where others kept changing
// tables all the while, the last answer counts: what it says wrongly of ours can at worst
// have a repair refused.
func (s *socket) drift(e *encoder, p *filter.Program) (*drift, error) {
	return s.driftFrom(s.startReading(e.afFamily()), e, p)
}

// driftFrom is drift that begins with what is being read already.
func (s *socket) driftFrom(r *reading, e *encoder, p *filter.Program) (*drift, error) {
	var d *drift
	var err error
	for try := range readTries {
		if try > 0 {
			r = s.startReading(e.afFamily())
		}
		im, readErr := r.wait()
		d, err = s.compare(e, p, im, readErr)
		if !errors.Is(err, errInterrupted) && !errors.Is(err, unix.ENOENT) {
			return d, err
		}
	}
	if errors.Is(err, errInterrupted) {
		return d, nil
	}
	d = newDrift()
	d.whole = "it changes as it is read"
	return d, nil
}

// compare is one try of drift, given what readTable returned. With errInterrupted it returns what it has
// read all the same.
func (s *socket) compare(e *encoder, p *filter.Program, im *image, err error) (*drift, error) {
	for name, m := range p.Maps {
		e.maps[name] = m.Field
	}
	interrupted := errors.Is(err, errInterrupted)
	if err != nil && !interrupted {
		return nil, err
	}
	d := newDrift()
	if !im.exists {
		d.whole = noTable
		return d, nil
	}
	d.flags = im.flags != 0
	d.others = im.others
	if err := d.chains(e, p, im); err != nil {
		return nil, err
	}
	c := comparison{s: s, e: e, d: d}
	for _, f := range []func(*filter.Program, *image) error{c.sets, c.shared, c.maps} {
		if err := f(p, im); err != nil {
			return nil, err
		}
	}
	c.extra(p, im)
	if interrupted || c.interrupted {
		return d, errInterrupted
	}
	return d, nil
}

func (d *drift) chains(e *encoder, p *filter.Program, im *image) error {
	for name, ch := range p.Chains {
		have := im.chains[name]
		if have == nil {
			d.changes.Chains[name] = ch
			continue
		}
		d.baseChain(name, ch, have.base)
		rules, err := e.ruleImages(name, ch)
		if err != nil {
			return err
		}
		if d.base[name] || !slices.Equal(rules, have.rules) {
			d.changes.Chains[name] = ch
		}
	}
	for name := range im.chains {
		if p.Chains[name] == nil {
			d.changes.Chains[name] = nil
		}
	}
	return nil
}

// baseChain compares where packets enter a chain.
func (d *drift) baseChain(name string, ch *filter.Chain, have baseImage) {
	want := baseOf(ch.Base)
	alike := want
	alike.policy = have.policy
	switch {
	case want == have:
	case !want.isBase || !have.isBase: // under the rules that use it
		d.whole = "chain " + name + " is of another kind"
	case alike == have:
		d.policy[name] = ch
	default:
		d.base[name] = true
	}
}

// baseOf is what the kernel must show of a base chain; nil: it is none.
func baseOf(b *filter.Base) baseImage {
	if b == nil {
		return baseImage{}
	}
	typ := nftables.ChainTypeFilter
	if b.Table == filter.NATTable {
		typ = nftables.ChainTypeNAT
	}
	return baseImage{true, hooknum(b.Hook), int32(b.Priority), string(typ), uint32(nftables.ChainPolicyAccept)}
}

// ruleImages is what the kernel must show of a chain's rules.
func (e *encoder) ruleImages(name string, ch *filter.Chain) ([]string, error) {
	out := make([]string, 0, len(ch.Rules))
	for i := range ch.Rules {
		r := &ch.Rules[i]
		x, err := e.rule(r)
		if err != nil {
			return nil, &filter.Refused{Object: name, Err: fmt.Errorf("chain %s, rule %d: %w", name, i, err)}
		}
		target := ""
		if r.Verdict == filter.Jump || r.Verdict == filter.Goto {
			target = r.Target
		}
		out = append(out, ruleImage(x.hash, target))
	}
	return out, nil
}

// comparison compares the elements of sets and maps as it reads them.
type comparison struct {
	s           *socket
	e           *encoder
	d           *drift
	buf         []rawElement
	seen        []filter.Element
	interrupted bool
}

// list reads the elements of a set; odd: it has such as no program has, and must be emptied.
func (c *comparison) list(name string, im *setImage) (odd bool, err error) {
	c.buf, err = c.s.listElements(c.e.afFamily(), name, im, c.buf)
	var o *oddSet
	switch {
	case errors.Is(err, errInterrupted):
		c.interrupted = true
		return false, nil
	case errors.As(err, &o):
		c.d.empty[name] = true
		return true, nil
	}
	return false, err
}

// usable tells whether the kernel has a set that is as the program's must be; if it is
// another one, under the rules that use it, then only a new table helps.
func (c *comparison) usable(want *nftables.Set, have *setImage) bool {
	if have == nil {
		return false
	}
	if *have != *setImageOf(want) {
		c.d.whole = "set " + want.Name + " is of another type"
		return false
	}
	return true
}

func (c *comparison) sets(p *filter.Program, im *image) error {
	for name, set := range p.Sets {
		if isShared(set.Kind) {
			continue
		}
		sc := &filter.SetChange{Kind: set.Kind, Sense: set.Sense}
		have := im.sets[name]
		if c.usable(c.e.set(name, set.Kind), have) {
			if err := c.set(name, set, have, sc); err != nil {
				return err
			}
		} else {
			sc.New, sc.Add = true, missing(set.Elements, nil)
		}
		if sc.New || c.d.empty[name] || len(sc.Add)+len(sc.Remove)+len(c.d.wipe[name]) > 0 {
			c.d.changes.Sets[name] = sc
		}
	}
	return nil
}

// set compares one set with the kernel's.
func (c *comparison) set(name string, set *filter.Set, im *setImage, sc *filter.SetChange) error {
	if _, err := c.list(name, im); err != nil {
		return err
	}
	c.seen = c.seen[:0]
	plain := im.flags&unix.NFT_SET_INTERVAL != 0 && im.flags&nftables.NFT_SET_CONCAT == 0
	for i := range c.buf {
		x, ok := c.buf[i].element(set.Kind, c.e.family)
		if _, wanted := set.Elements[x]; ok && wanted {
			c.seen = append(c.seen, x)
		} else if ok {
			sc.Remove = append(sc.Remove, x)
		} else {
			c.d.wipe[name] = append(c.d.wipe[name], c.buf[i].messages(plain)...)
		}
	}
	sc.Add = missing(set.Elements, c.seen)
	return nil
}

// missing returns the elements that are not among those seen, some perhaps twice.
func missing(want map[filter.Element]struct{}, seen []filter.Element) (out []filter.Element) {
	have := make(map[filter.Element]struct{}, len(seen))
	for _, x := range seen {
		have[x] = struct{}{}
	}
	for x := range want {
		if _, ok := have[x]; !ok {
			out = append(out, x)
		}
	}
	return out
}

func (c *comparison) maps(p *filter.Program, im *image) error {
	for name, m := range p.Maps {
		mc := &filter.MapChange{Field: m.Field, Add: map[string]string{}, Remove: map[string]string{}}
		have := im.sets[name]
		if c.usable(c.e.vmap(name), have) {
			if err := c.vmap(name, m, have, mc); err != nil {
				return err
			}
		} else {
			mc.New, mc.Add = true, m.Chains
		}
		if mc.New || c.d.empty[name] || len(mc.Add)+len(mc.Remove)+len(c.d.wipe[name]) > 0 {
			c.d.changes.Maps[name] = mc
		}
	}
	return nil
}

// vmap compares one map with the kernel's.
func (c *comparison) vmap(name string, m *filter.Map, im *setImage, mc *filter.MapChange) error {
	if _, err := c.list(name, im); err != nil {
		return err
	}
	right := map[string]bool{}
	for i := range c.buf {
		x := &c.buf[i]
		iface, ok := x.iface()
		if want, wanted := m.Chains[iface]; ok && wanted && want == x.chain {
			right[iface] = true
		} else if ok {
			mc.Remove[iface] = x.chain
		} else {
			c.d.wipe[name] = append(c.d.wipe[name], x.messages(false)...)
		}
	}
	for iface, chain := range m.Chains {
		if !right[iface] {
			mc.Add[iface] = chain
		}
	}
	return nil
}

// extra notes the sets that no program has.
func (c *comparison) extra(p *filter.Program, im *image) {
	ours := map[string]bool{}
	for _, s := range allShares() {
		ours[s.name()] = true
	}
	for name, have := range im.sets {
		set := p.Sets[name]
		switch {
		case ours[name] || p.Maps[name] != nil || set != nil && !isShared(set.Kind):
		case set != nil: // of an older version, which had one of its own for it
			c.d.others = append(c.d.others, other{"set", unix.NFT_MSG_DELSET, name, nil})
		case have.flags&unix.NFT_SET_MAP != 0: // together with the chains that it holds
			c.d.changes.Maps[name] = &filter.MapChange{Gone: true}
		default:
			c.d.changes.Sets[name] = &filter.SetChange{Gone: true}
		}
	}
}

func setImageOf(s *nftables.Set) *setImage {
	im := &setImage{keyType: s.KeyType.GetNFTMagic(), keyLen: s.KeyType.Bytes}
	for bit, on := range map[uint32]bool{
		unix.NFT_SET_INTERVAL: s.Interval, unix.NFT_SET_MAP: s.IsMap, nftables.NFT_SET_CONCAT: s.Concatenation,
	} {
		if on {
			im.flags |= bit
		}
	}
	return im
}
