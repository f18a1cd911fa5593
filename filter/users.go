package filter

import (
	"slices"

	"github.com/calicogo/calico/dataplane"
)

// Users returns the policies and profiles of the program whose rules refer to the set. One that
// refers to it in both directions is in it twice. It is valid for as long as Program is.
func (c *Compiler) Users(id dataplane.SetID) (out []dataplane.PolicyID) {
	m := c.sets[id]
	if m == nil || c.ctx == nil {
		return nil
	}
	m.chains.each(func(chain string) {
		if pc, ok := c.ctx.policies[chain]; ok {
			out = append(out, pc.id)
		}
	})
	return out
}

// Loosens tells whether members that come to the set, and with grow false those that go from it, have no packet pass less: by
// the rules of the policies that use it. It is valid for as long as Program is.
func (c *Compiler) Loosens(id dataplane.SetID, grow bool) bool {
	for _, user := range c.Users(id) {
		p := c.state.Policies[user]
		if p == nil {
			continue
		}
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			in, out := uses(&r, id)
			if r.Action == dataplane.Pass && (in || out) || r.Action == dataplane.Allow && (grow && out || !grow && in) ||
				r.Action == dataplane.Deny && (grow && in || !grow && out) {
				return false
			}
		}
	}
	return true
}

// uses tells whether the rule matches what is in the set, and what is not.
func uses(r *dataplane.Rule, id dataplane.SetID) (in, out bool) {
	for _, x := range []*dataplane.Peer{&r.Src, &r.Dst} {
		in = in || slices.Contains(x.Sets, id) || slices.Contains(x.PortSets, id)
		out = out || slices.Contains(x.NotSets, id) || slices.Contains(x.NotPortSets, id)
	}
	return in, out
}
