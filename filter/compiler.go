package filter

import (
	"maps"
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// Compiler holds the program of one family in step with a changing state. A change of
// a policy touches its chains only, however many endpoints it governs; a change of a set
// its elements only.
type Compiler struct {
	family  dataplane.Family
	state   *dataplane.State
	program *Program
	ctx     *context // nil until the settings were good for the first time

	all       bool // the settings changed: everything may differ
	base      bool
	endpoints map[dataplane.Interface]bool
	policies  map[dataplane.PolicyID]bool

	compiled map[dataplane.Interface]*dataplane.Endpoint // what the program has of endpoints

	refs  map[string]int      // how often chains refer to a policy chain or set, by name
	moved map[string]bool     // names whose count has changed
	live  map[string]*members // of the program's sets that follow one of dataplane's
	ids   map[dataplane.SetID]map[string]bool
}

// NewCompiler returns a Compiler whose program is empty and whose state is the empty one.
func NewCompiler(f dataplane.Family) *Compiler {
	return &Compiler{
		family: f, state: dataplane.NewState(), program: NewProgram(f), all: true,
		endpoints: map[dataplane.Interface]bool{}, policies: map[dataplane.PolicyID]bool{},
	}
}

// Program returns the program that the changes given so far sum up to. It is valid until
// Changes is next called.
func (c *Compiler) Program() *Program { return c.program }

// Guarded returns the changes that put the program in the place of any other, in two steps:
// after the first all is there, but pods cannot open flows, by whatever half-filled sets.
func (c *Compiler) Guarded() (first, second *Changes) {
	first, second = NewProgram(c.family).Diff(c.program), newChanges()
	for name, chain := range c.ctx.guard() {
		first.Chains[name], second.Chains[name] = chain, c.program.Chains[name]
	}
	return first, second
}

// Update takes in a change of the state.
func (c *Compiler) Update(d *dataplane.Delta) {
	for id := range d.Endpoints {
		c.endpoints[id] = true
	}
	for id := range d.Policies {
		c.policies[id] = true
	}
	for id, sd := range d.Sets {
		c.updateSet(id, sd)
	}
	c.base = c.base || len(d.Tunnels) > 0
	c.all = c.all || d.Settings != nil
	c.state.Apply(d)
}

// updateSet passes what really changes to the live sets.
func (c *Compiler) updateSet(id dataplane.SetID, sd *dataplane.SetDelta) {
	have := c.state.Sets[id]
	for name := range c.ids[id] {
		m, kind := c.live[name], c.program.Sets[name].Kind
		if sd == nil {
			for x := range have {
				c.feed(m.remove, x, kind)
			}
			continue
		}
		for x := range distinct(sd.Remove) {
			if _, ok := have[x]; ok {
				c.feed(m.remove, x, kind)
			}
		}
		for x := range distinct(sd.Add) {
			if _, ok := have[x]; !ok {
				c.feed(m.add, x, kind)
			}
		}
	}
}

// distinct returns the members of a list, each once: several may be one element, which
// is counted.
func distinct(list []dataplane.Member) dataplane.Members {
	m := make(dataplane.Members, len(list))
	for _, x := range list {
		m[x] = struct{}{}
	}
	return m
}

func (c *Compiler) feed(f func(Element), x dataplane.Member, k SetKind) {
	if e, ok := element(x, k, c.family); ok {
		f(e)
	}
}

// Changes returns what leads from the program to the one of the present state. After an
// error, which says which setting cannot be held, nothing has changed.
func (c *Compiler) Changes() (*Changes, error) {
	if c.all {
		return c.everything()
	}
	ch := newChanges()
	c.ctx.tunnels = c.state.Tunnels
	if !c.ctx.off() {
		c.step(ch)
	}
	c.clean()
	return ch, nil
}

func (c *Compiler) clean() {
	c.base, c.all = false, false
	clear(c.endpoints)
	clear(c.policies)
	clear(c.moved)
}

// everything compiles anew.
func (c *Compiler) everything() (*Changes, error) {
	ctx, err := newContext(c.state, c.family)
	if err != nil {
		return nil, err
	}
	next := ctx.compile(c.state)
	ch := c.program.Diff(next)
	c.ctx, c.program, c.compiled = ctx, next, maps.Clone(c.state.Endpoints)
	c.refs, c.moved = map[string]int{}, map[string]bool{}
	c.live, c.ids = map[string]*members{}, map[dataplane.SetID]map[string]bool{}
	for _, chain := range next.Chains {
		c.count(chain, +1)
	}
	ctx.noted = nil
	for name, src := range ctx.sets {
		if next.Sets[name] == nil {
			delete(ctx.sets, name)
		} else {
			c.follow(name, src)
		}
	}
	c.clean()
	return ch, nil
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
	c.policyChains(ch)
	c.sets(ch)
	c.members(ch)
}

// put makes chain the one of that name; nil: there is none.
func (c *Compiler) put(ch *Changes, name string, chain *Chain) {
	old := c.program.Chains[name]
	if old == nil && chain == nil || old != nil && chain != nil && old.equal(chain) {
		return
	}
	if old != nil {
		c.count(old, -1)
	}
	ch.Chains[name] = chain
	if chain == nil {
		delete(c.program.Chains, name)
		return
	}
	c.count(chain, +1)
	c.program.Chains[name] = chain
}

// count adds n to the count of everything that chain refers to.
func (c *Compiler) count(chain *Chain, n int) {
	add := func(name string) {
		c.refs[name] += n
		c.moved[name] = true
	}
	for _, r := range chain.Rules {
		if r.Verdict == Jump || r.Verdict == Goto {
			add(r.Target)
		}
	}
	for _, name := range chain.setRefs() {
		add(name)
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

// sets makes the sets that are now referred to and removes those that are not.
func (c *Compiler) sets(ch *Changes) {
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
			sc := &SetChange{Kind: src.kind, New: true}
			set := &Set{Kind: src.kind, Elements: src.contents(c.state, c.family)}
			sc.Add = missing(set.Elements, nil)
			ch.Sets[name], c.program.Sets[name] = sc, set
			c.follow(name, src)
		case c.refs[name] <= 0:
			if have {
				ch.Sets[name] = &SetChange{Kind: src.kind, Gone: true}
			}
			delete(c.program.Sets, name)
			c.forget(name, src)
		}
	}
}

// follow has the set called name follow its source's members from now on.
func (c *Compiler) follow(name string, src setSource) {
	if src.id == "" {
		return
	}
	m := newMembers(src.kind)
	for x := range c.state.Sets[src.id] {
		c.feed(m.add, x, src.kind)
	}
	clear(m.touched) // the program's set has them
	c.live[name] = m
	if c.ids[src.id] == nil {
		c.ids[src.id] = map[string]bool{}
	}
	c.ids[src.id][name] = true
}

func (c *Compiler) forget(name string, src setSource) {
	delete(c.ctx.sets, name)
	delete(c.live, name)
	delete(c.refs, name)
	delete(c.ids[src.id], name)
	if len(c.ids[src.id]) == 0 {
		delete(c.ids, src.id)
	}
}

// members passes on what has changed in live sets.
func (c *Compiler) members(ch *Changes) {
	for name, m := range c.live {
		if len(m.touched) > 0 {
			add, remove := m.take(c.program.Sets[name].Elements)
			c.elements(ch, name, add, remove)
		}
	}
}
