package calc

import (
	"fmt"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// ruleTables are the policies and profiles that local endpoints have, and their sets.
type ruleTables struct {
	dirtyPolicies keySet[store.Key]
	dirtyProfiles keySet[string]
	out           map[dataplane.PolicyID]*dataplane.Policy
	sets          map[dataplane.PolicyID]map[dataplane.SetID]struct{} // that out names
	uses          map[dataplane.SetID]int                             // of policies in out
	wanted        map[dataplane.SetID]set                             // whose uses changed
	live          map[dataplane.SetID]*liveSet
	touched       keySet[dataplane.SetID]
}

func newRuleTables() ruleTables {
	r := ruleTables{
		dirtyPolicies: keySet[store.Key]{},
		dirtyProfiles: keySet[string]{},
		out:           map[dataplane.PolicyID]*dataplane.Policy{},
		sets:          map[dataplane.PolicyID]map[dataplane.SetID]struct{}{},
		uses:          map[dataplane.SetID]int{},
		wanted:        map[dataplane.SetID]set{},
		live:          map[dataplane.SetID]*liveSet{},
		touched:       keySet[dataplane.SetID]{},
	}
	for _, id := range ownSets {
		r.live[id] = newLiveSet(set{id: id})
		r.touched.add(id)
	}
	return r
}

// settleRules translates the policies and profiles that came into use or changed.
func (g *Graph) settleRules() {
	for k := range g.rules.dirtyPolicies {
		p := g.policies.rows[k]
		if p == nil || len(g.endpoints.governs[k]) == 0 {
			g.emit(dataplane.PolicyID(k), nil, nil, nil)
			continue
		}
		out, sets, ps := p.output()
		ps = append(ps, p.problems...)
		if tierOf(p.tier, g.tiers.rows[p.tier]).last {
			ps = append(ps, Problem{k, NoTier, fmt.Sprintf("there is no tier %q: the policy stands behind all tiers, and what it does not allow is denied", p.tier)})
		}
		g.emit(p.id, out, sets, ps)
	}
	clear(g.rules.dirtyPolicies)
	for name := range g.rules.dirtyProfiles {
		id := profileID(name)
		if len(g.endpoints.users[name]) == 0 {
			g.emit(id, nil, nil, nil)
			continue
		}
		out, sets, ps := outputProfile(id, g.profiles.rows[name])
		g.emit(id, out, sets, ps)
	}
	clear(g.rules.dirtyProfiles)
}

// emit notes what a policy is now (nil: not in use), and which sets it names.
func (g *Graph) emit(id dataplane.PolicyID, p *dataplane.Policy, sets []set, ps []Problem) {
	r := &g.rules
	g.problems.set("rules", store.Key(id), ps)
	changeRef(r.out, g.delta.Policies, id, p)
	was := r.sets[id]
	is := make(map[dataplane.SetID]struct{}, len(sets))
	for _, s := range sets {
		if _, ok := is[s.id]; !ok {
			is[s.id] = struct{}{}
			r.uses[s.id]++
			r.wanted[s.id] = s
		}
	}
	for s := range was {
		r.uses[s]--
		if _, ok := r.wanted[s]; !ok {
			r.wanted[s] = set{}
		}
	}
	if delete(r.sets, id); len(is) > 0 {
		r.sets[id] = is
	}
}

// settleSets makes the sets that came into use and drops those that went out of it.
func (g *Graph) settleSets() {
	r := &g.rules
	for id, s := range r.wanted {
		_, live := r.live[id]
		switch used := r.uses[id] > 0; {
		case used && !live:
			r.live[id] = newLiveSet(s)
			r.touched.add(id)
			g.endpoints.members.AddSelector(id, s.selector)
		case !used && live:
			delete(r.live, id)
			g.endpoints.members.RemoveSelector(id)
			g.delta.Sets[id] = nil
		}
		if r.uses[id] == 0 {
			delete(r.uses, id)
		}
	}
	clear(r.wanted)
}

// emitSets notes what changed in the sets.
func (g *Graph) emitSets() {
	for id := range g.rules.touched {
		if s := g.rules.live[id]; s != nil {
			if d := s.delta(); d != nil {
				g.delta.Sets[id] = d
			}
		}
	}
	clear(g.rules.touched)
}
