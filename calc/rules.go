package calc

import (
	"fmt"
	"reflect"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// ruleTables are the policies and profiles that local endpoints have, and their sets.
type ruleTables struct {
	policies      []*policyItem // touched
	dirtyProfiles keySet[string]
	profiles      map[string]*ruling // as last given out
	live          map[dataplane.SetID]*liveSet
	counted       keySet[*liveSet] // whose uses changed
	touched       []*liveSet       // whose members may have
}

func newRuleTables() ruleTables {
	r := ruleTables{
		dirtyProfiles: keySet[string]{},
		profiles:      map[string]*ruling{},
		live:          map[dataplane.SetID]*liveSet{},
		counted:       keySet[*liveSet]{},
	}
	for _, id := range ownSets {
		s := newLiveSet(set{id: id})
		r.live[id] = s
		r.touchSet(s)
	}
	return r
}

// touch makes the next settling look at a policy.
func (r *ruleTables) touch(i *policyItem) {
	if !i.touched {
		i.touched = true
		r.policies = append(r.policies, i)
	}
}

// touchSet makes the next emission look at a set.
func (r *ruleTables) touchSet(s *liveSet) {
	if !s.touched {
		s.touched = true
		r.touched = append(r.touched, s)
	}
}

// settleRules translates the policies and profiles that came into use or changed.
func (g *Graph) settleRules() {
	r := &g.rules
	for _, i := range r.policies {
		i.touched = false
		if i.now == nil || i.governs == 0 {
			i.ruling = g.emit(i.key, i.ruling, nil, nil)
			continue
		}
		is := i.now.rule()
		i.ruling = g.emit(i.key, i.ruling, is, g.policyProblems(i.now))
	}
	r.policies = nil
	for name := range r.dirtyProfiles {
		was, is := r.profiles[name], (*ruling)(nil)
		var ps []Problem
		if len(g.endpoints.users[name]) > 0 {
			is = profileRuling(profileID(name), g.profiles.rows[name])
			ps = is.problems
		}
		if is = g.emit(store.Key(profileID(name)), was, is, ps); is == nil {
			delete(r.profiles, name)
		} else {
			r.profiles[name] = is
		}
	}
	r.dirtyProfiles.reset()
}

// policyProblems are those of a policy in use.
func (g *Graph) policyProblems(p *policy) []Problem {
	ps := append(p.ruling.problems[:len(p.ruling.problems):len(p.ruling.problems)], p.problems...)
	if tierOf(p.tier, g.tiers.rows[p.tier]).last {
		ps = append(ps, Problem{store.Key(p.id), NoTier, fmt.Sprintf("there is no tier %q: the policy stands behind all tiers, and what it does not allow is denied", p.tier)})
	}
	return ps
}

// emit notes what a policy puts into the state (nil: it is not in use) and was put there
// before. It returns what stands there now: what was, if that is the same.
func (g *Graph) emit(k store.Key, was, is *ruling, ps []Problem) *ruling {
	g.problems.set("rules", k, ps)
	switch {
	case was == is:
		return was
	case is == nil:
		g.delta.Policies[dataplane.PolicyID(k)] = nil
	case was == nil || !reflect.DeepEqual(was.Policy, is.Policy):
		g.delta.Policies[dataplane.PolicyID(k)] = is.Policy
	default:
		is.Policy = was.Policy
	}
	g.count(is, +1)
	g.count(was, -1)
	return is
}

// count notes that the sets of a policy are used once more (n is 1), or once less.
func (g *Graph) count(of *ruling, n int32) {
	if of == nil {
		return
	}
	for _, s := range of.sets {
		l := g.rules.live[s.id]
		if l == nil {
			l = newLiveSet(s)
			g.rules.live[s.id] = l
		}
		l.uses += n
		g.rules.counted.add(l)
	}
}

// settleSets makes the sets that came into use and drops those that went out of it.
func (g *Graph) settleSets() {
	r := &g.rules
	for s := range r.counted {
		switch {
		case s.uses > 0 && !s.indexed:
			s.indexed = true
			r.touchSet(s)
			g.fill(s)
		case s.uses == 0:
			delete(r.live, s.id)
			s.gone = true
			if s.indexed {
				g.unfill(s)
				g.delta.Sets[s.id] = nil
			}
		}
	}
	r.counted.reset()
}

// fill begins to keep the members of a set.
func (g *Graph) fill(s *liveSet) {
	if s.service != nil {
		g.useService(s, true)
	} else {
		g.endpoints.members.AddSelector(s, s.selector)
	}
}

func (g *Graph) unfill(s *liveSet) {
	if s.service != nil {
		g.useService(s, false)
	} else {
		g.endpoints.members.RemoveSelector(s)
	}
}

// emitSets notes what changed in the sets.
func (g *Graph) emitSets() {
	for _, s := range g.rules.touched {
		s.touched = false
		if s.gone {
			continue
		}
		if d := s.delta(); d != nil {
			g.delta.Sets[s.id] = d
		}
	}
	g.rules.touched = nil
}
