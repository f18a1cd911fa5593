package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
)

// callers is how many ADDs of one node wait at the same time.
const callers = 16

// ipamBytes is what a commit of an assignment writes: a block half full, a handle and an
// endpoint.
const ipamBytes = 6000

// ipamNode is a node with a connection of its own.
type ipamNode struct {
	store *etcd.Store
	alloc *ipam.Allocator
	raw   *clientv3.Client
	name  string
}

// runIPAM measures assignments a second.
func runIPAM(ctx context.Context, b *bench) error {
	s := got(startServer(ctx, "ipam"))
	b.cleanup(s.stop)
	pool := &api.IPPool{Meta: api.Named(api.KindIPPool, "", "pool")}
	pool.Spec.CIDR = "10.128.0.0/10"
	pool.Default()
	none := 0
	conf := &api.IPAMConfiguration{Meta: api.Named(api.KindIPAMConfiguration, "", "default")}
	conf.Default()
	conf.Spec.IPCooldownSeconds = &none
	got(s.store.Commit(ctx, []store.Op{store.Put(pool), store.Put(conf)}))
	var nodes []*ipamNode
	for i := range 50 {
		nodes = append(nodes, b.ipamNode(ctx, s, i))
	}
	b.assignments(ctx, pool, nodes[:1], 1, "1 node, one after another")
	b.assignments(ctx, pool, nodes[:1], callers, fmt.Sprintf("1 node, %d at a time", callers))
	b.assignments(ctx, pool, nodes, 1, "50 nodes, one each at a time")
	return nil
}

func (b *bench) ipamNode(ctx context.Context, s *server, i int) *ipamNode {
	n := &ipamNode{name: fmt.Sprint("node", i)}
	n.store = got(etcd.Open(ctx, etcd.Config{Endpoints: []string{s.endpoint}}))
	b.cleanup(func() { n.store.Close() })
	n.raw = got(clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint}, Logger: zap.NewNop()}))
	b.cleanup(func() { n.raw.Close() })
	n.alloc = ipam.NewAllocator(n.store, n.name)
	got(s.store.Commit(ctx, []store.Op{store.Put(&api.Node{Meta: api.Named(api.KindNode, "", n.name)})}))
	return n
}

// assignments reports how many a second the nodes make together, releases not counted.
func (b *bench) assignments(ctx context.Context, pool *api.IPPool, nodes []*ipamNode, at int, what string) {
	var ours, floor samples
	n := b.n(1000, 5000) / len(nodes)
	for round := range b.n(3, 8) {
		each := func(f func(n *ipamNode, handle string) error) float64 {
			return perSecond(n*len(nodes), every(nodes, func(x *ipamNode) {
				atOnce(n, at, func(i int) { must(f(x, fmt.Sprintf("%s.%s-%d-%d-%d", what[:1], x.name, at, round, i))) })
			}))
		}
		rate := each(func(x *ipamNode, h string) error { return x.assign(ctx, pool, h) })
		bare := each(func(x *ipamNode, h string) error {
			_, err := x.raw.Put(ctx, "/floor/"+x.name, string(make([]byte, ipamBytes)))
			return err
		})
		each(func(x *ipamNode, h string) error { return x.alloc.Release(ctx, h, time.Now()) })
		if round > 0 { // the first claims blocks
			ours.add(rate)
			floor.add(bare)
		}
	}
	b.report(result{What: "addresses assigned, " + what, Unit: "/s", Ours: ours, Floor: floor, Aim: "2x, 5000 /s", More: true})
}

// every runs f for all nodes at once.
func every(nodes []*ipamNode, f func(*ipamNode)) time.Duration {
	return atOnce(len(nodes), len(nodes), func(i int) { f(nodes[i]) })
}

// assign takes an address with an endpoint, as an ADD does.
func (n *ipamNode) assign(ctx context.Context, pool *api.IPPool, handle string) error {
	_, err := n.alloc.Assign(ctx, ipam.Request{
		Handle: handle, Families: []dataplane.Family{dataplane.IPv4}, Pools: []*api.IPPool{pool}, Now: time.Now(),
		Attrs: map[string]string{api.AttrNode: n.name, api.AttrNamespace: "default", api.AttrPod: handle, "timestamp": time.Now().String()},
	}, nil)
	return err
}
