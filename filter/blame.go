package filter

import (
	"maps"
	"slices"
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// Refused is the error of a backend of which the kernel did not take one object, or that cannot
// itself write it.
type Refused struct {
	Object string // the name of a chain, set or map of the program, or of the kernel's
	Err    error
}

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Blame is what of the state made an object.
type Blame struct {
	Policies []*dataplane.Policy // whose rules these are, or use it
	Endpoint *dataplane.Endpoint
	Set      dataplane.SetID // empty: none
}

// None tells that nothing is to blame that could be left out.
func (b Blame) None() bool { return len(b.Policies) == 0 && b.Endpoint == nil }

// Family is the family of the programs.
func (c *Compiler) Family() dataplane.Family { return c.family }

// Blame says what made the program's object of that name; the zero Blame: nobody's policy, set or
// endpoint did.
func (c *Compiler) Blame(object string) (b Blame) {
	if c.ctx == nil {
		return b
	}
	if pc, ok := c.ctx.policies[object]; ok {
		b.Policies = c.known(pc.id)
		return b
	}
	if src, ok := c.ctx.sets[object]; ok {
		b.Set = src.id
		b.Policies = c.known(c.usersOf(object)...)
		return b
	}
	for _, prefix := range []string{chainFrom(""), chainTo("")} {
		if iface, ok := strings.CutPrefix(object, prefix); ok {
			b.Endpoint = c.state.Endpoints[dataplane.Interface(iface)]
		}
	}
	return b
}

// ObjectOf is an object that is to be blamed on the endpoint of an interface.
func ObjectOf(iface string) string { return chainFrom(dataplane.Interface(iface)) }

// usersOf returns the policies whose chains refer to a set of the program's.
func (c *Compiler) usersOf(set string) (ids []dataplane.PolicyID) {
	for _, name := range slices.Sorted(maps.Keys(c.ctx.policies)) {
		if ch := c.program.Chains[name]; ch != nil && slices.Contains(ch.setRefs(), set) {
			ids = append(ids, c.ctx.policies[name].id)
		}
	}
	slices.SortFunc(ids, dataplane.PolicyID.Compare)
	return slices.Compact(ids)
}

func (c *Compiler) known(ids ...dataplane.PolicyID) (out []*dataplane.Policy) {
	for _, id := range ids {
		if p := c.state.Policies[id]; p != nil {
			out = append(out, p)
		}
	}
	return out
}
