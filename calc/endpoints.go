package calc

import (
	"fmt"
	"reflect"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/labelindex"
	"github.com/calicogo/calico/store"
)

// endpointTables are the endpoints of this node, and whom policies govern.
type endpointTables struct {
	byInterface multimap[dataplane.Interface, dataplane.AttachmentID]
	byWEP       multimap[wepKey, dataplane.AttachmentID]
	locals      map[dataplane.Interface]*local
	items       map[dataplane.Interface]*item // of locals

	governors *labelindex.Index[*policyItem, dataplane.Interface] // policies × local endpoints
	users     multimap[string, dataplane.Interface]               // by profile

	members *labelindex.Index[*liveSet, *item] // sets in use × all endpoints
	leaving member                             // what the index of members is told to forget

	dirty keySet[dataplane.Interface]
	out   map[dataplane.Interface]*dataplane.Endpoint

	scratch map[string]string
}

func newEndpointTables(g *Graph) endpointTables {
	return endpointTables{
		byInterface: multimap[dataplane.Interface, dataplane.AttachmentID]{},
		byWEP:       multimap[wepKey, dataplane.AttachmentID]{},
		locals:      map[dataplane.Interface]*local{},
		items:       map[dataplane.Interface]*item{},
		governors:   labelindex.New(g.governs),
		users:       multimap[string, dataplane.Interface]{},
		members:     labelindex.New(g.belongs),
		dirty:       keySet[dataplane.Interface]{},
		out:         map[dataplane.Interface]*dataplane.Endpoint{},
		scratch:     map[string]string{},
	}
}

// settleLocals finds this node's endpoints: one for each interface that a record names.
func (g *Graph) settleLocals() {
	e := &g.endpoints
	dirty := keySet[dataplane.Interface]{}
	for id, was := range g.attachments.before {
		e.index(id, was, false, dirty)
		e.index(id, g.attachments.rows[id], true, dirty)
	}
	g.attachments.settled()
	if len(e.byWEP) > 0 {
		for d := range g.weps.dirty.all() {
			for id := range e.byWEP[d.key] {
				dirty.add(g.attachments.rows[id].Interface)
			}
		}
	}
	for iface := range dirty {
		g.settleLocal(iface)
	}
}

// index adds the attachment to the ways to find it, or takes it out.
func (e *endpointTables) index(id dataplane.AttachmentID, a *dataplane.Attachment, in bool, dirty keySet[dataplane.Interface]) {
	if a == nil {
		return
	}
	change, changeWEP := e.byInterface.remove, e.byWEP.remove
	if in {
		change, changeWEP = e.byInterface.add, e.byWEP.add
	}
	change(a.Interface, id)
	dirty.add(a.Interface)
	if a.Endpoint != nil {
		changeWEP(wepKeyOf(a.Endpoint), id)
	}
}

// holder is the attachment that holds the interface; nil if there is none.
func (g *Graph) holder(iface dataplane.Interface) *dataplane.Attachment {
	var h *dataplane.Attachment
	for id := range g.endpoints.byInterface[iface] {
		if a := g.attachments.rows[id]; iface != "" && (h == nil || compareAttachments(h, a) < 0) {
			h = a
		}
	}
	return h
}

func (g *Graph) settleLocal(iface dataplane.Interface) {
	e := &g.endpoints
	was := e.locals[iface]
	var is *local
	if h := g.holder(iface); h != nil {
		var stored *api.WorkloadEndpoint
		if h.Endpoint != nil {
			stored = g.storedEndpoint(wepKeyOf(h.Endpoint))
		}
		is = newLocal(h, stored)
	}
	g.duplicatePod(iface, is)
	if was != nil && is != nil && was.att == is.att && was.wep == is.wep && g.v6 == g.wasV6 {
		return
	}
	e.dirty.add(iface)
	g.hold(was, -1)
	g.hold(is, 1)
	g.useProfiles(was, e.users.remove)
	g.useProfiles(is, e.users.add)
	g.claimLocal(was, is)
	i := e.items[iface]
	if i == nil {
		i = &item{}
	}
	if i.local = is; is == nil {
		delete(e.locals, iface)
		delete(e.items, iface)
		e.governors.DeleteItem(iface)
	} else {
		e.locals[iface], e.items[iface] = is, i
		e.governors.SetItem(iface, e.labels(is.member), is.profiles())
	}
	g.move(i, was.asMember(), is.asMember())
}

// asMember is l as a member of sets; none if l is nil.
func (l *local) asMember() member {
	if l == nil {
		return member{}
	}
	return l.member
}

func (g *Graph) duplicatePod(iface dataplane.Interface, is *local) {
	k := store.Key{Kind: "Interface", Name: string(iface)}
	n := len(g.endpoints.byInterface[iface])
	if is == nil || n < 2 {
		g.problems.set("pod", k, nil)
		return
	}
	g.problems.set("pod", k, []Problem{{is.object(), DuplicatePod, fmt.Sprintf("%d attachments claim interface %s; that of container %s, the latest, has it", n, iface, is.att.ID.ContainerID)}})
}

// hold notes that one more or fewer local endpoint stands in for a stored one.
func (g *Graph) hold(l *local, n int32) {
	if l == nil || l.key == (wepKey{}) {
		return
	}
	g.weps.touch(l.key).held += n
}

func (g *Graph) useProfiles(l *local, change func(string, dataplane.Interface)) {
	if l == nil {
		return
	}
	for _, p := range l.profiles() {
		change(p, l.att.Interface)
		g.rules.dirtyProfiles.add(p)
	}
}

// settleProfiles hands on the labels of profiles.
func (g *Graph) settleProfiles() {
	for name := range g.profiles.before {
		var labels map[string]string
		if p := g.profiles.rows[name]; p != nil {
			labels = p.Spec.LabelsToApply
		}
		g.endpoints.governors.SetParent(name, labels)
		g.endpoints.members.SetParent(name, labels)
		g.rules.dirtyProfiles.add(name)
	}
	g.profiles.settled()
}

// governs hears that a policy came to govern an endpoint, or ceased to.
func (g *Graph) governs(i *policyItem, iface dataplane.Interface, yes bool) {
	g.endpoints.dirty.add(iface)
	if yes {
		i.governs++
	} else {
		i.governs--
	}
	if i.governs == 0 || i.governs == 1 && yes {
		g.rules.touch(i)
	}
}

// settlePolicies finds whom policies govern.
func (g *Graph) settlePolicies() {
	e := &g.endpoints
	for _, i := range g.policies.dirty {
		g.rules.touch(i)
		if i.now == nil {
			e.governors.RemoveSelector(i)
			continue
		}
		e.governors.AddSelector(i, i.now.selector)
		if i.was != nil && !i.was.samePlace(i.now) {
			for iface := range e.governors.Items(i) {
				e.dirty.add(iface)
			}
		}
	}
	g.policies.settled()
}

// samePlace tells whether two versions of a policy stand at the same place in the lists
// of the endpoints that they govern.
func (p *policy) samePlace(q *policy) bool {
	return p.tier == q.tier && p.order == q.order && p.ingress == q.ingress && p.egress == q.egress
}

// settleTiers finds the endpoints whose policies are to be arranged anew.
func (g *Graph) settleTiers() {
	changed := keySet[string]{}
	for name, was := range g.tiers.before {
		if tierOf(name, was) != tierOf(name, g.tiers.rows[name]) {
			changed.add(name)
		}
	}
	g.tiers.settled()
	if len(changed) == 0 {
		return
	}
	for _, i := range g.policies.rows {
		if _, ok := changed[i.now.tier]; ok {
			g.rules.touch(i) // for its problems
		}
	}
	for iface := range g.endpoints.locals {
		for i := range g.endpoints.governors.Selectors(iface) {
			if _, ok := changed[i.now.tier]; ok {
				g.endpoints.dirty.add(iface)
				break
			}
		}
	}
}

// settleEndpoints arranges the policies of the endpoints that something touched.
func (g *Graph) settleEndpoints() {
	e := &g.endpoints
	for iface := range e.dirty {
		var is *dataplane.Endpoint
		var ps []Problem
		if l := e.locals[iface]; l != nil {
			is, ps = l.output(g.governing(iface), g.v6)
		}
		g.problems.set("endpoint", store.Key{Kind: "Interface", Name: string(iface)}, ps)
		changeRef(e.out, g.delta.Endpoints, iface, is)
	}
	e.dirty.reset()
}

func (g *Graph) governing(iface dataplane.Interface) []governing {
	var gs []governing
	for i := range g.endpoints.governors.Selectors(iface) {
		gs = append(gs, governing{tierOf(i.now.tier, g.tiers.rows[i.now.tier]), i.now})
	}
	return gs
}

// changeRef notes in changed that v stands at k now (nil: nothing), if that is a change.
func changeRef[K comparable, V any](now, changed map[K]*V, k K, v *V) {
	old, had := now[k]
	switch {
	case v == nil && had:
		delete(now, k)
		changed[k] = nil
	case v != nil && (!had || !reflect.DeepEqual(old, v)):
		now[k] = v
		changed[k] = v
	}
}
