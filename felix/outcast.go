package felix

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// patient is how often the kernel must refuse an object in a row before it is left out: others may have
// been at our table meanwhile. maxOutcasts bounds how many are left out at one Sync.
const (
	patient     = 3
	maxOutcasts = 16
)

// outcasts are the policies and endpoints that the kernel does not take. A policy that is left out denies
// everything that it governs; an endpoint is unknown, and so drops. Both are tried again when
// they, a set that was refused with them, or the settings change.
type outcasts struct {
	refusals  map[string]int // in a row, by object
	policies  map[dataplane.PolicyID]*outcast
	endpoints map[dataplane.Interface]*outcast
}

// outcast is one that is left out.
type outcast struct {
	name     string
	err      error
	policy   *dataplane.Policy // as it should be
	endpoint *dataplane.Endpoint
	set      dataplane.SetID // that was refused; empty: the rules were
}

func newOutcasts() outcasts {
	return outcasts{map[string]int{}, map[dataplane.PolicyID]*outcast{}, map[dataplane.Interface]*outcast{}}
}

// calm forgets what was refused: everything was taken.
func (o *outcasts) calm() { clear(o.refusals) }

// update returns d with what is to be tried again.
func (o *outcasts) update(d *dataplane.Delta) *dataplane.Delta {
	if len(o.policies)+len(o.endpoints) == 0 {
		return d
	}
	more := dataplane.NewDelta()
	for id, x := range o.policies {
		p, changed := d.Policies[id]
		_, of := d.Sets[x.set]
		switch {
		case changed:
			more.Policies[id] = p
		case d.Settings != nil || x.set != "" && of:
			more.Policies[id] = x.policy
		default:
			continue
		}
		delete(o.policies, id)
	}
	for id, x := range o.endpoints {
		ep, changed := d.Endpoints[id]
		switch {
		case changed:
			more.Endpoints[id] = ep
		case d.Settings != nil:
			more.Endpoints[id] = x.endpoint
		default:
			continue
		}
		delete(o.endpoints, id)
	}
	return joined(d, more)
}

// joined returns d with the policies and endpoints of more.
func joined(d, more *dataplane.Delta) *dataplane.Delta {
	both := *d
	for id, p := range d.Policies {
		if _, ok := more.Policies[id]; !ok {
			more.Policies[id] = p
		}
	}
	for id, ep := range d.Endpoints {
		if _, ok := more.Endpoints[id]; !ok {
			more.Endpoints[id] = ep
		}
	}
	both.Policies, both.Endpoints = more.Policies, more.Endpoints
	return &both
}

// refused takes in an error of a Sync. It returns the change that leaves the culprits out; nil: there is none,
// or not yet.
func (o *outcasts) refused(err error, compilers []*filter.Compiler) *dataplane.Delta {
	d := dataplane.NewDelta()
	objects := map[string]bool{}
	for _, r := range refusals(err) {
		if objects[r.Object] {
			continue
		}
		objects[r.Object] = true
		if o.refusals[r.Object]++; o.refusals[r.Object] < patient {
			continue
		}
		for _, c := range compilers {
			o.leaveOut(c.Blame(r.Object), r, d)
		}
	}
	for object := range o.refusals {
		if !objects[object] {
			delete(o.refusals, object)
		}
	}
	if d.Empty() {
		return nil
	}
	return d
}

func (o *outcasts) leaveOut(b filter.Blame, r *filter.Refused, d *dataplane.Delta) {
	for _, p := range b.Policies {
		if o.policies[p.ID] != nil {
			continue
		}
		o.policies[p.ID] = &outcast{
			name: p.ID.String(), policy: p, set: b.Set,
			err: fmt.Errorf("%s cannot be held in the kernel, and denies whatever it governs until it is changed: %w", p.ID, r),
		}
		deny := []dataplane.Rule{{Action: dataplane.Deny}}
		d.Policies[p.ID] = &dataplane.Policy{ID: p.ID, Ingress: deny, Egress: deny}
		delete(o.refusals, r.Object)
	}
	if ep := b.Endpoint; ep != nil && o.endpoints[ep.Interface] == nil {
		o.endpoints[ep.Interface] = &outcast{
			name: string(ep.Interface), endpoint: ep,
			err: fmt.Errorf("pod %s on %s cannot be held in the kernel, and has no network until it is changed: %w", ep.Name, ep.Interface, r),
		}
		d.Endpoints[ep.Interface] = nil
		delete(o.refusals, r.Object)
	}
}

// list returns those that are left out, in order.
func (o *outcasts) list() (out []*outcast) {
	for _, x := range o.policies {
		out = append(out, x)
	}
	for _, x := range o.endpoints {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *outcast) int { return cmp.Compare(a.name, b.name) })
	return out
}

// refusals finds the objects that an error names, wherever in it they are.
func refusals(err error) (out []*filter.Refused) {
	var r *filter.Refused
	switch x := err.(type) {
	case *filter.Refused:
		return []*filter.Refused{x}
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			out = append(out, refusals(e)...)
		}
		return out
	}
	if errors.As(err, &r) {
		if e := errors.Unwrap(err); e != nil {
			return refusals(e)
		}
	}
	return nil
}

// explained adds to an error what users know the refused objects by.
func explained(err error, compilers []*filter.Compiler) error {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, r := range refusals(err) {
		for _, c := range compilers {
			b := c.Blame(r.Object)
			if b.Set != "" {
				add("set " + string(b.Set))
			}
			for _, p := range b.Policies {
				add(p.ID.String())
			}
			if b.Endpoint != nil {
				add("pod " + b.Endpoint.Name + " on " + string(b.Endpoint.Interface))
			}
		}
	}
	if len(names) == 0 {
		return err
	}
	return fmt.Errorf("%w (it is of %s; until it is taken the rules of before stand)", err, strings.Join(names, ", "))
}
