package filter

import "github.com/calicogo/calico/dataplane"

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
