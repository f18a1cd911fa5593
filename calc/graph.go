package calc

import (
	"maps"
	"reflect"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// Graph derives what a node must do, incrementally. It is used from one goroutine.
//
// Below, "settled" means: as it was when Flush last returned.
type Graph struct {
	self  string
	local []config.Layer

	// What it was told.
	felix       table[string, api.FelixConfiguration]
	attachments table[dataplane.AttachmentID, dataplane.Attachment]
	weps        itemTable[wepKey]
	netsets     itemTable[store.Key]
	profiles    table[string, api.Profile]
	tiers       table[string, api.Tier]
	policies    policyTable
	nodes       table[string, node]
	pools       table[string, pool]
	blocks      table[store.Key, block]
	slices      table[store.Key, slice]

	endpoints endpointTables
	services  serviceTables
	rules     ruleTables
	fabric    fabricTables

	v6       bool                // IPv6 is on
	wasV6    bool                // settled, for endpoints
	fabricV6 bool                // settled, for pools, nodes and blocks
	settings *dataplane.Settings // as last given out
	conf     config.Felix
	delta    *dataplane.Delta // what is found for the present Flush, or the first one; nil: nothing yet
	flushed  bool             // there was a Flush
	problems problemList
}

// New returns the Graph of the named node. local are the layers of its configuration that
// are not in the datastore, each winning over those after it (the environment, then
// the file); all of them win over the datastore's.
func New(nodeName string, local ...config.Layer) *Graph {
	g := &Graph{
		self: nodeName, local: local, problems: problemList{},
		felix:       newTable[string, api.FelixConfiguration](),
		attachments: newTable[dataplane.AttachmentID, dataplane.Attachment](),
		weps:        newItemTable[wepKey](),
		netsets:     newItemTable[store.Key](),
		profiles:    newTable[string, api.Profile](),
		tiers:       newTable[string, api.Tier](),
		policies:    policyTable{rows: map[store.Key]*policyItem{}},
		nodes:       newTable[string, node](),
		pools:       newTable[string, pool](),
		blocks:      newTable[store.Key, block](),
		slices:      newTable[store.Key, slice](),
	}
	g.endpoints = newEndpointTables(g)
	g.services = newServiceTables()
	g.rules = newRuleTables()
	g.fabric = newFabricTables(g)
	return g
}

// Put notes that the datastore holds o, which must not change any more. Kinds that do not
// matter here are ignored.
func (g *Graph) Put(o api.Object) {
	if k, ok := keyOf(o); ok {
		g.put(k, o)
	}
}

// Remove notes that the datastore holds no object k.
func (g *Graph) Remove(k store.Key) { g.put(k, nil) }

// put reads what is read of an object by itself. o is nil for none.
func (g *Graph) put(k store.Key, o api.Object) {
	var ps []Problem
	switch k.Kind {
	case "FelixConfiguration":
		g.felix.put(k.Name, as[api.FelixConfiguration](o))
	case kindEndpoint:
		g.weps.touch(wepKey{k.Namespace, k.Name}).now = storedMember(as[api.WorkloadEndpoint](o))
	case kindProfile:
		g.profiles.put(k.Name, as[api.Profile](o))
	case "Tier":
		g.tiers.put(k.Name, as[api.Tier](o))
	case kindPolicy, kindGlobal:
		g.policies.put(k, ingest(o))
		ps = hostOnly(o)
	case kindNetworkSet, kindGlobalNetworkSet:
		var s *networkSet
		s, ps = readNetworkSet(o)
		g.netsets.touch(k).now = s.asMember()
	case kindSlice:
		var s *slice
		if o := as[api.EndpointSlice](o); o != nil {
			s, ps = readSlice(o)
		}
		g.slices.put(k, s)
	case "Node":
		g.nodes.put(k.Name, read(as[api.Node](o), readNode))
	case "IPPool":
		var p *pool
		if o := as[api.IPPool](o); o != nil {
			p, ps = readPool(o)
		}
		g.pools.put(k.Name, p)
	case "IPAMBlock":
		var b *block
		if o := as[api.IPAMBlock](o); o != nil {
			b, ps = readBlock(o)
		}
		g.blocks.put(k, b)
	default:
		return
	}
	g.problems.set("read", k, ps)
}

// as is o as a *T; nil if o is nil.
func as[T any](o api.Object) *T {
	t, _ := any(o).(*T)
	return t
}

func read[T, V any](o *T, f func(*T) *V) *V {
	if o == nil {
		return nil
	}
	return f(o)
}

// keyOf is the key of an object of a kind that matters here. It goes by the Go type: an
// object whose kind is not written in it is no reason to fail.
func keyOf(o api.Object) (store.Key, bool) {
	k := store.Key{Name: o.GetName()}
	switch o.(type) {
	case *api.FelixConfiguration:
		k.Kind = "FelixConfiguration"
	case *api.WorkloadEndpoint:
		k.Kind, k.Namespace = kindEndpoint, o.GetNamespace()
	case *api.Profile:
		k.Kind = kindProfile
	case *api.Tier:
		k.Kind = "Tier"
	case *api.NetworkPolicy:
		k.Kind, k.Namespace = kindPolicy, o.GetNamespace()
	case *api.GlobalNetworkPolicy:
		k.Kind = kindGlobal
	case *api.NetworkSet:
		k.Kind, k.Namespace = kindNetworkSet, o.GetNamespace()
	case *api.GlobalNetworkSet:
		k.Kind = kindGlobalNetworkSet
	case *api.EndpointSlice:
		k.Kind, k.Namespace = kindSlice, o.GetNamespace()
	case *api.Node:
		k.Kind = "Node"
	case *api.IPPool:
		k.Kind = "IPPool"
	case *api.IPAMBlock:
		k.Kind = "IPAMBlock"
	default:
		return k, false
	}
	return k, k.Name != "" && (k.Namespace != "" || !namespaced[k.Kind])
}

var namespaced = map[string]bool{kindEndpoint: true, kindPolicy: true, kindNetworkSet: true, kindSlice: true}

// PutAttachment notes what the node's records say of one attachment.
func (g *Graph) PutAttachment(a *dataplane.Attachment) { g.attachments.put(a.ID, a) }

// RemoveAttachment notes that the node's records hold no such attachment.
func (g *Graph) RemoveAttachment(id dataplane.AttachmentID) { g.attachments.put(id, nil) }

// Prepare does of the first Flush what can be done before all is there that it is to take in,
// while the rest of a snapshot still comes. After the first Flush it does nothing: a Delta has no
// way to say that a set, which somebody knows by then, went and came again.
func (g *Graph) Prepare() {
	if g.flushed {
		return
	}
	g.begin()
	g.settleContents()
	g.settleUse()
}

// Flush settles every table and returns what changed since it last did. Each step reads
// only what the steps above it have settled.
func (g *Graph) Flush() *dataplane.Delta {
	g.begin()
	g.settleContents()
	g.settleEndpoints()
	g.settleUse()
	g.settleFabric()
	g.settleRoutes()
	g.emitSets()
	d := g.delta
	if !g.flushed {
		dropAbsent(d)
	}
	g.delta, g.flushed = nil, true
	return d
}

func (g *Graph) begin() {
	if g.delta == nil {
		g.delta = dataplane.NewDelta()
	}
}

// settleContents settles what was told: which items are in sets, and whom policies govern.
func (g *Graph) settleContents() {
	g.settleConfig()
	g.settleLocals()
	g.settleMembers()
	g.settleServices()
	g.wasV6 = g.v6
	g.settleProfiles()
	g.settlePolicies()
	g.settleTiers()
}

// settleUse settles the rules of whatever governs somebody here, and the sets that they name.
func (g *Graph) settleUse() {
	g.settleRules()
	g.settleSets()
}

// dropAbsent takes out of the first Delta what has come and gone before it: nobody knows it.
func dropAbsent(d *dataplane.Delta) {
	maps.DeleteFunc(d.Policies, func(_ dataplane.PolicyID, p *dataplane.Policy) bool { return p == nil })
	maps.DeleteFunc(d.Sets, func(_ dataplane.SetID, s *dataplane.SetDelta) bool { return s == nil })
}

// Problems lists what keeps objects from having the effect that they ask for, sorted.
func (g *Graph) Problems() []Problem {
	if g.fabric.overlaps == nil {
		g.fabric.overlaps = g.findOverlaps()
		g.problems.set("overlaps", store.Key{}, g.fabric.overlaps)
	}
	return g.problems.sorted()
}

func (g *Graph) settleConfig() {
	if g.settings != nil && len(g.felix.before) == 0 {
		return
	}
	g.felix.settled()
	felix, ps := resolve(g.self, g.local, g.felix.rows)
	g.problems.set("config", store.Key{Kind: "FelixConfiguration"}, ps)
	g.conf = felix
	s := felix.Settings()
	if g.settings != nil && reflect.DeepEqual(s, *g.settings) {
		return
	}
	g.settings, g.delta.Settings = &s, &s
	if g.v6 != s.IPv6 {
		g.toggleIPv6(s.IPv6)
	}
}

// toggleIPv6 looks at everything again: IPv6 addresses come or go everywhere.
func (g *Graph) toggleIPv6(on bool) {
	g.v6 = on
	for id := range g.attachments.rows {
		g.attachments.touch(id)
	}
	for k := range g.weps.rows {
		g.weps.touch(k)
	}
	for k := range g.netsets.rows {
		g.netsets.touch(k)
	}
	for k := range g.slices.rows {
		g.slices.touch(k)
	}
	for k := range g.nodes.rows {
		g.nodes.touch(k)
	}
	for k := range g.pools.rows {
		g.pools.touch(k)
	}
}
