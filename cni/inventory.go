package cni

import (
	"maps"
	"slices"
	"sync"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
)

// Inventory is what the datastore says that one node has: the addresses in use by it, the
// blocks that it owns and its endpoints. A Source feeds it; its size and its work are
// those of one node, but for a look at the attributes of each block that changes. It is
// safe for concurrent use.
type Inventory struct {
	node string

	mu        sync.Mutex
	inSync    bool
	holdings  map[store.Key][]ipam.Holding // by block
	blocks    map[store.Key]*api.IPAMBlock // that the node owns
	endpoints map[store.Key]*api.WorkloadEndpoint
}

// NewInventory returns an empty Inventory of a node.
func NewInventory(node string) *Inventory {
	return &Inventory{
		node: node, holdings: map[store.Key][]ipam.Holding{}, blocks: map[store.Key]*api.IPAMBlock{},
		endpoints: map[store.Key]*api.WorkloadEndpoint{},
	}
}

// Update takes over what a Source says. It is a sink of [store.Source].
func (v *Inventory) Update(u store.Update) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range u.Events {
		switch e.Key.Kind {
		case api.KindIPAMBlock.Name:
			v.block(e)
		case api.KindWorkloadEndpoint.Name:
			v.endpoint(e)
		}
	}
	v.inSync = v.inSync || u.InSync
}

// block takes a block over. Of one that cannot be read nothing is known to be held, so
// that nothing in it is taken for a leak.
func (v *Inventory) block(e store.Event) {
	delete(v.blocks, e.Key)
	delete(v.holdings, e.Key)
	b, ok := e.Object.(*api.IPAMBlock)
	if !ok {
		return
	}
	if b.Spec.Affinity != nil && *b.Spec.Affinity == "host:"+v.node {
		v.blocks[e.Key] = b
	}
	if hs, err := ipam.HoldingsOf(b, v.node); err == nil && len(hs) > 0 {
		v.holdings[e.Key] = hs
	}
}

func (v *Inventory) endpoint(e store.Event) {
	if ep, ok := e.Object.(*api.WorkloadEndpoint); ok && ep.Spec.Node == v.node {
		v.endpoints[e.Key] = ep
		return
	}
	delete(v.endpoints, e.Key)
}

// contents is an Inventory at one moment.
type contents struct {
	inSync    bool
	holdings  []ipam.Holding
	endpoints []*api.WorkloadEndpoint
}

func (v *Inventory) contents() contents {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := contents{inSync: v.inSync, endpoints: slices.Collect(maps.Values(v.endpoints))}
	for _, hs := range v.holdings {
		c.holdings = append(c.holdings, hs...)
	}
	return c
}

// Surplus tells whether the node may have empty blocks to give back; see [ipam.Surplus].
func (v *Inventory) Surplus() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return ipam.Surplus(slices.Collect(maps.Values(v.blocks)), v.node)
}
