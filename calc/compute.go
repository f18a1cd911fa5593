package calc

import (
	"maps"
	"net/netip"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/selector"
	"github.com/calicogo/calico/store"
)

// Compute is the definition of a [Graph]: the State of a node for given contents of the
// datastore and records of the node, the plain way. Of several objects with one key, or
// attachments with one id, the last counts.
func Compute(nodeName string, local []config.Layer, objects []api.Object, attachments []*dataplane.Attachment) *dataplane.State {
	c := computation{self: nodeName, objects: map[store.Key]api.Object{}, state: dataplane.NewState()}
	for _, o := range objects {
		if k, ok := keyOf(o); ok {
			c.objects[k] = o
		}
	}
	felix, _ := resolve(nodeName, local, configurations(objectsOf[*api.FelixConfiguration](c.objects)))
	c.state.Settings = felix.Settings()
	c.v6 = c.state.Settings.IPv6
	c.findEndpoints(attachments)
	c.governEndpoints()
	c.fillSets()
	c.routes(fabricConfigOf(felix))
	return c.state
}

type computation struct {
	self    string
	v6      bool
	objects map[store.Key]api.Object
	locals  map[dataplane.Interface]*local
	members []member
	sets    map[dataplane.SetID]set
	state   *dataplane.State
}

// objectsOf lists the objects of one kind.
func objectsOf[T api.Object](all map[store.Key]api.Object) []T {
	var some []T
	for _, o := range all {
		if t, ok := o.(T); ok {
			some = append(some, t)
		}
	}
	return some
}

// findEndpoints lists this node's endpoints, and all endpoints and network sets as members of
// sets.
func (c *computation) findEndpoints(attachments []*dataplane.Attachment) {
	byID := map[dataplane.AttachmentID]*dataplane.Attachment{}
	for _, a := range attachments {
		byID[a.ID] = a
	}
	holder := map[dataplane.Interface]*dataplane.Attachment{}
	for _, a := range byID {
		if h := holder[a.Interface]; a.Interface != "" && (h == nil || compareAttachments(h, a) < 0) {
			holder[a.Interface] = a
		}
	}
	held := map[wepKey]bool{}
	c.locals = map[dataplane.Interface]*local{}
	for iface, a := range holder {
		var stored *api.WorkloadEndpoint
		if a.Endpoint != nil {
			held[wepKeyOf(a.Endpoint)] = true
			stored, _ = c.objects[wepKeyOf(a.Endpoint).storeKey()].(*api.WorkloadEndpoint)
		}
		c.locals[iface] = newLocal(a, stored)
		c.members = append(c.members, c.locals[iface].member)
	}
	for _, w := range objectsOf[*api.WorkloadEndpoint](c.objects) {
		if k := wepKeyOf(w); !held[k] {
			c.members = append(c.members, storedMember(w))
		}
	}
	for _, o := range c.objects {
		if s, _ := readNetworkSet(o); s != nil {
			c.members = append(c.members, s.asMember())
		}
	}
}

// labels are all labels of an endpoint, the inherited ones included.
func (c *computation) labels(m member) selector.Map {
	all := selector.Map{}
	ps := m.profiles()
	for i := len(ps) - 1; i >= 0; i-- { // the earlier profile wins
		if p := c.profile(ps[i]); p != nil {
			maps.Copy(all, p.Spec.LabelsToApply)
		}
	}
	m.ownLabels(all)
	return all
}

func (c *computation) profile(name string) *api.Profile {
	p, _ := c.objects[store.Key(profileID(name))].(*api.Profile)
	return p
}

func (c *computation) governEndpoints() {
	var policies []*policy
	for _, o := range c.objects {
		if p := ingest(o); p != nil {
			policies = append(policies, p)
		}
	}
	c.sets = map[dataplane.SetID]set{}
	for iface, l := range c.locals {
		labels := c.labels(l.member)
		var gs []governing
		for _, p := range policies {
			if p.selector.Matches(labels) {
				stored, _ := c.objects[tierKey(p.tier)].(*api.Tier)
				gs = append(gs, governing{tierOf(p.tier, stored), p})
				c.use(p.rule())
			}
		}
		e, _ := l.output(gs, c.v6)
		c.state.Endpoints[iface] = e
		for _, id := range e.Profiles {
			c.use(profileRuling(id, c.profile(id.Name)))
		}
	}
}

// use puts a policy and its sets into the state.
func (c *computation) use(r *ruling) {
	c.state.Policies[r.ID] = r.Policy
	for _, s := range r.sets {
		c.sets[s.id] = s
	}
}

func (c *computation) fillSets() {
	for id, s := range c.sets {
		members := dataplane.Members{}
		add4 := func(x packed4) { members[x.member()] = struct{}{} }
		add6 := func(x packed6) { members[x.member()] = struct{}{} }
		for _, m := range c.members {
			if s.selector != nil && s.selector.Matches(c.labels(m)) {
				m.each(&s, c.v6, add4, add6)
			}
		}
		for _, o := range objectsOf[*api.EndpointSlice](c.objects) {
			if l, _ := readSlice(o); s.service != nil && l != nil && l.service == *s.service {
				l.each(&s, c.v6, add4, add6)
			}
		}
		c.state.Sets[id] = members
	}
}

func (c *computation) routes(conf fabricConfig) {
	f := &fabric{self: c.self, conf: conf, nodes: map[string]*node{}, held: map[tunnelEnd]netip.Addr{}}
	for _, o := range objectsOf[*api.Node](c.objects) {
		f.nodes[o.Name] = readNode(o)
	}
	for _, o := range objectsOf[*api.IPPool](c.objects) {
		if p, _ := readPool(o); p != nil {
			f.pools = append(f.pools, p)
		}
	}
	sortPools(f.pools)
	for _, o := range objectsOf[*api.IPAMBlock](c.objects) {
		if b, _ := readBlock(o); b != nil {
			for _, h := range b.held {
				hold(f.held, h)
			}
		}
	}
	f.settle()
	maps.Copy(c.state.Tunnels, f.devices)
	for _, n := range f.nodes {
		maps.Copy(c.state.VTEPs, f.vteps(n))
	}
	c.ownSets(f)
	c.claimRoutes(f)
}

// ownSets fills the sets that are there whatever the rules say.
func (c *computation) ownSets(f *fabric) {
	for _, id := range ownSets {
		c.state.Sets[id] = dataplane.Members{}
	}
	add := func(id dataplane.SetID, m dataplane.Member) { c.state.Sets[id][m] = struct{}{} }
	for _, p := range f.pools {
		p.each(c.v6, add)
	}
	for _, n := range f.nodes {
		if n.name != c.self {
			n.each(c.v6, add)
		}
	}
}

func (c *computation) claimRoutes(f *fabric) {
	best := map[netip.Prefix]claim{}
	claimAll := func(cs []prefixClaim) {
		for _, pc := range cs {
			if b, ok := best[pc.prefix]; !ok || compareClaims(pc.claim, b) < 0 {
				best[pc.prefix] = pc.claim
			}
		}
	}
	for _, l := range c.locals {
		claimAll(l.claims(c.v6))
	}
	for _, o := range objectsOf[*api.IPAMBlock](c.objects) {
		if b, _ := readBlock(o); b != nil {
			cs, _ := b.claims(f)
			claimAll(cs)
		}
	}
	for p, cl := range best {
		c.state.Routes[p] = cl.route
	}
}

func tierKey(name string) store.Key { return store.Key{Kind: "Tier", Name: name} }
