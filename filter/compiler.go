package filter

import (
	"maps"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// Compiler holds the program of one family in step with a changing state. A change of
// a policy touches its chains only, however many endpoints it governs; a change of a set
// its elements only, and the rules that use it when its first or last single address or
// longer prefix comes or goes.
type Compiler struct {
	family  dataplane.Family
	state   *dataplane.State // but for its sets
	program *Program
	ctx     *context // nil until the settings were good for the first time

	all       bool // the settings changed: everything may differ
	base      bool
	endpoints map[dataplane.Interface]bool
	policies  map[dataplane.PolicyID]bool

	compiled map[dataplane.Interface]*dataplane.Endpoint // what the program has of endpoints

	refs    map[string]int  // how often chains refer to a policy chain or set, by name
	moved   map[string]bool // names whose count has changed
	sets    map[dataplane.SetID]*members
	pending map[dataplane.SetID][]*dataplane.SetDelta // that sets have not yet taken in
}

// NewCompiler returns a Compiler whose program is empty and whose state is the empty one.
func NewCompiler(f dataplane.Family) *Compiler {
	return &Compiler{
		family: f, state: dataplane.NewState(), program: NewProgram(f), all: true,
		endpoints: map[dataplane.Interface]bool{}, policies: map[dataplane.PolicyID]bool{},
		sets: map[dataplane.SetID]*members{}, pending: map[dataplane.SetID][]*dataplane.SetDelta{},
	}
}

// Program returns the program that the changes given so far sum up to. It is valid until
// Changes is next called.
func (c *Compiler) Program() *Program { return c.program }

// Settings returns those of the present state.
func (c *Compiler) Settings() dataplane.Settings { return c.state.Settings }

// Guarded returns the changes that put the program in the place of any other, in two steps:
// after the first all is there, but pods cannot open flows, by whatever half-filled sets.
func (c *Compiler) Guarded() (first, second *Changes) {
	first, second = NewProgram(c.family).Diff(c.program), newChanges()
	for name, chain := range c.ctx.guard() {
		first.Chains[name], second.Chains[name] = chain, c.program.Chains[name]
	}
	return first, second
}

// Update takes in a change of the state, which stays as it is until Changes is next called.
func (c *Compiler) Update(d *dataplane.Delta) {
	c.all = c.all || d.Settings != nil
	if !c.all { // else there is nothing to be told apart
		for id := range d.Endpoints {
			c.endpoints[id] = true
		}
		for id := range d.Policies {
			c.policies[id] = true
		}
		c.base = c.base || len(d.Tunnels) > 0
	}
	if len(c.pending) == 0 {
		c.pending = make(map[dataplane.SetID][]*dataplane.SetDelta, len(d.Sets))
	}
	for id, sd := range d.Sets {
		c.pending[id] = append(c.pending[id], sd)
	}
	rest := *d
	rest.Sets = nil
	c.state.Apply(&rest)
}

// Changes returns what leads from the program to the one of the present state, which it then
// is. After an error, which says which setting cannot be held, nothing has changed.
func (c *Compiler) Changes() (*Changes, error) {
	if c.all {
		return c.everything(true)
	}
	ch := newChanges()
	c.ctx.tunnels = c.state.Tunnels
	c.members(ch)
	if !c.ctx.off() {
		c.step(ch)
	}
	c.clean()
	return ch, nil
}

// Settle does as Changes for one who has no use for these: much is spared where all is new.
func (c *Compiler) Settle() error {
	if !c.all {
		_, err := c.Changes()
		return err
	}
	_, err := c.everything(false)
	return err
}

// clean forgets what was noted. The maps are new ones: to clear one that was large once
// takes as long ever after.
func (c *Compiler) clean() {
	c.base, c.all = false, false
	if len(c.endpoints)+len(c.policies)+len(c.moved) > 0 {
		c.endpoints, c.policies = map[dataplane.Interface]bool{}, map[dataplane.PolicyID]bool{}
		c.moved = map[string]bool{}
	}
}

// everything compiles anew, and compares with what was if that is told.
func (c *Compiler) everything(tell bool) (*Changes, error) {
	ctx, err := newContext(c.state, c.family, (*liveSets)(c))
	if err != nil {
		return nil, err
	}
	of := newChanges()
	c.members(of)
	next := ctx.compile(c.state)
	var ch *Changes
	if tell {
		ch = c.program.Diff(next)
		c.amend(ch, of)
	}
	c.ctx, c.program, c.compiled = ctx, next, maps.Clone(c.state.Endpoints)
	c.recount()
	c.clean()
	return ch, nil
}

// amend adds to ch what members, which the program took in before it was compared, have changed.
func (c *Compiler) amend(ch, of *Changes) {
	for name, sc := range of.Sets {
		if now := ch.Sets[name]; now == nil {
			ch.Sets[name] = sc
		} else if now.Gone {
			now.Remove = before(c.program.Sets[name], sc)
		}
	}
}

// recount writes the books of the program anew.
func (c *Compiler) recount() {
	c.refs, c.moved = map[string]int{}, map[string]bool{}
	for _, m := range c.sets {
		m.sets, m.chains = nil, users{}
	}
	for name, chain := range c.program.Chains {
		c.count(name, chain, +1)
	}
	c.ctx.noted = nil
	for name, src := range c.ctx.sets {
		switch {
		case c.program.Sets[name] == nil:
			delete(c.ctx.sets, name)
		case src.id != "":
			m := c.set(src.id)
			m.sets = append(m.sets, name)
		}
	}
	for id := range c.sets {
		c.drop(id)
	}
}

// step compiles what is noted as changed.
func (c *Compiler) step(ch *Changes) {
	if c.base {
		for name, chain := range c.ctx.base() {
			c.put(ch, name, chain)
		}
	}
	for id := range c.endpoints {
		c.endpoint(ch, id)
	}
	c.groups(ch)
	c.policyChains(ch)
	c.programSets(ch)
}

// put makes chain the one of that name; nil: there is none.
func (c *Compiler) put(ch *Changes, name string, chain *Chain) {
	old := c.program.Chains[name]
	if old == nil && chain == nil || old != nil && chain != nil && old.equal(chain) {
		return
	}
	if old != nil {
		c.count(name, old, -1)
	}
	ch.chain(name, old, chain)
	if chain == nil {
		delete(c.program.Chains, name)
		return
	}
	c.count(name, chain, +1)
	c.program.Chains[name] = chain
}

// count adds n to the count of everything that the chain of that name refers to.
func (c *Compiler) count(name string, chain *Chain, n int) {
	for _, r := range chain.Rules {
		if r.Verdict == Jump || r.Verdict == Goto {
			c.refs[r.Target] += n
			c.moved[r.Target] = true
		}
	}
	for _, set := range chain.setRefs() {
		c.refs[set] += n
		c.moved[set] = true
		if id := c.ctx.sets[set].id; id != "" {
			c.set(id).chains.add(name, n)
		}
	}
}

// endpoint goes from what was last compiled of an interface to what is now known of it.
func (c *Compiler) endpoint(ch *Changes, id dataplane.Interface) {
	ep := c.state.Endpoints[id]
	old, now := c.ctx.entry(c.compiled[id]), c.ctx.entry(ep)
	put(c.compiled, id, ep)
	var from, to *Chain
	if now.from != "" {
		from, to = c.ctx.endpointChains(ep)
	}
	c.put(ch, chainFrom(id), from)
	c.put(ch, chainTo(id), to)
	c.replace(ch, setIfaces, old.iface, now.iface)
	c.replace(ch, setSources, old.addrs, now.addrs)
	c.replace(ch, setFurther, old.further, now.further)
	c.dispatch(ch, mapFromWl, id, now.from)
	c.dispatch(ch, mapToWl, id, now.to)
}

func put(m map[dataplane.Interface]*dataplane.Endpoint, id dataplane.Interface, ep *dataplane.Endpoint) {
	if ep == nil {
		delete(m, id)
	} else {
		m[id] = ep
	}
}

// replace has elements of a set give way to others.
func (c *Compiler) replace(ch *Changes, name string, old, now []Element) {
	gone := slices.DeleteFunc(old, func(e Element) bool { return slices.Contains(now, e) })
	if len(gone)+len(now) > 0 {
		c.elements(ch, name, now, gone)
	}
}

// elements adds to a set and removes from it what is not so already.
func (c *Compiler) elements(ch *Changes, name string, add, remove []Element) {
	set := c.program.Sets[name]
	sc := ch.Sets[name]
	if sc == nil {
		sc = &SetChange{Kind: set.Kind}
	}
	for _, e := range remove {
		if _, ok := set.Elements[e]; ok {
			delete(set.Elements, e)
			sc.Remove = append(sc.Remove, e)
		}
	}
	for _, e := range add {
		if _, ok := set.Elements[e]; !ok {
			set.Elements[e] = struct{}{}
			sc.Add = append(sc.Add, e)
		}
	}
	if len(sc.Add)+len(sc.Remove) > 0 {
		ch.Sets[name] = sc
	}
}

// dispatch makes the map name the chain for the interface; "": none.
func (c *Compiler) dispatch(ch *Changes, name string, id dataplane.Interface, chain string) {
	m, key := c.program.Maps[name], string(id)
	old, ok := m.Chains[key]
	if old == chain {
		return
	}
	mc := ch.Maps[name]
	if mc == nil {
		mc = &MapChange{Field: m.Field, Add: map[string]string{}, Remove: map[string]string{}}
		ch.Maps[name] = mc
	}
	if ok {
		mc.Remove[key] = old
		delete(m.Chains, key)
	}
	if chain != "" {
		mc.Add[key] = chain
		m.Chains[key] = chain
	}
}

// groups makes the chains of groups that are now led to and removes those that no endpoint leads to.
func (c *Compiler) groups(ch *Changes) {
	for name := range c.moved {
		g, ok := c.ctx.groups[name]
		switch {
		case !ok:
		case c.refs[name] <= 0:
			c.put(ch, name, nil)
			delete(c.ctx.groups, name)
			delete(c.refs, name)
		case c.program.Chains[name] == nil:
			c.put(ch, name, c.ctx.group(g))
		}
	}
}

// policyChains makes the chains of policies that are now referred to, or have changed,
// and removes those that nothing refers to.
func (c *Compiler) policyChains(ch *Changes) {
	for id := range c.policies {
		for _, ingress := range []bool{false, true} {
			if name := chainPolicy(id, ingress); c.program.Chains[name] != nil {
				c.moved[name] = true
			}
		}
	}
	for name := range c.moved {
		pc, ok := c.ctx.policies[name]
		switch {
		case !ok:
		case c.refs[name] > 0:
			old := c.program.Chains[name]
			if old == nil || c.policies[pc.id] {
				c.put(ch, name, c.ctx.policy(c.state.Policies[pc.id], pc.ingress))
			}
		default:
			c.put(ch, name, nil)
			delete(c.ctx.policies, name)
			delete(c.refs, name)
		}
	}
}

// programSets makes the sets that are now referred to and removes those that are not.
func (c *Compiler) programSets(ch *Changes) {
	for _, name := range c.ctx.noted {
		c.moved[name] = true // a rule may have been left out after its sets were noted
	}
	c.ctx.noted = nil
	for name := range c.moved {
		src, ok := c.ctx.sets[name]
		_, have := c.program.Sets[name]
		switch {
		case !ok:
		case c.refs[name] > 0 && !have:
			set := c.ctx.fill(src)
			ch.Sets[name] = &SetChange{Kind: set.Kind, Sense: set.Sense, New: true, Add: missing(set.Elements, nil)}
			c.program.Sets[name] = set
			if src.id != "" {
				m := c.set(src.id)
				m.sets = append(m.sets, name)
			}
		case c.refs[name] <= 0:
			if have {
				was := before(c.program.Sets[name], ch.Sets[name])
				ch.Sets[name] = &SetChange{Kind: src.kind, Sense: src.sense, Gone: true, Remove: was}
			}
			c.forget(name, src)
		}
	}
}

// before returns what was in a set before it was changed; nil: it was not.
func before(now *Set, sc *SetChange) []Element {
	if sc == nil {
		return missing(now.Elements, nil)
	}
	was := slices.Clone(sc.Remove)
	added := make(map[Element]struct{}, len(sc.Add))
	for _, e := range sc.Add {
		added[e] = struct{}{}
	}
	return append(was, missing(now.Elements, added)...)
}

func (c *Compiler) forget(name string, src setSource) {
	delete(c.program.Sets, name)
	delete(c.ctx.sets, name)
	delete(c.refs, name)
	if m := c.sets[src.id]; m != nil {
		m.sets = slices.DeleteFunc(m.sets, func(s string) bool { return s == name })
		c.drop(src.id)
	}
}

// set returns the members of a set, which are none if nothing was said of it.
func (c *Compiler) set(id dataplane.SetID) *members {
	m := c.sets[id]
	if m == nil {
		m = &members{}
		c.sets[id] = m
	}
	return m
}

// drop forgets an empty set that nobody uses.
func (c *Compiler) drop(id dataplane.SetID) {
	if c.sets[id].unused() {
		delete(c.sets, id)
	}
}

// members has the sets take in what was said of them, and the program's with them. Where
// the kinds of what is in a set are others than before, its rules must be made anew.
func (c *Compiler) members(ch *Changes) {
	for id, deltas := range c.pending {
		m, out := c.set(id), (*allFlips)(nil)
		if len(m.sets) > 0 {
			out = &allFlips{}
		}
		was := m.kinds()
		for _, sd := range deltas {
			if sd != nil {
				m.expect(sd.Add, c.family)
			}
			m.apply(sd, c.family, out)
		}
		out.net()
		for _, name := range m.sets {
			set := c.program.Sets[name]
			if f := out.of(set.Kind); len(f.add)+len(f.remove) > 0 {
				ch.Sets[name] = &SetChange{Kind: set.Kind, Sense: set.Sense, Add: f.add, Remove: f.remove}
			}
		}
		if !slices.Equal(was, m.kinds()) {
			c.touch(m)
		}
		c.drop(id)
	}
	c.pending = map[dataplane.SetID][]*dataplane.SetDelta{}
}

// touch notes the chains that refer to a set.
func (c *Compiler) touch(m *members) {
	m.chains.each(func(chain string) {
		if pc, ok := c.ctx.policies[chain]; ok {
			c.policies[pc.id] = true
		} else {
			c.base = true
		}
	})
}

// liveSets are the Compiler's sets as a context needs them.
type liveSets Compiler

func (l *liveSets) kinds(id dataplane.SetID) []SetKind { return (*Compiler)(l).set(id).kinds() }

func (l *liveSets) elements(id dataplane.SetID, k SetKind) map[Element]struct{} {
	return (*Compiler)(l).set(id).of(k)
}
