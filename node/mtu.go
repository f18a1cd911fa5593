package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/felix"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/watch"
)

// Bytes that an encapsulation adds to each packet.
const (
	overheadIPIP    = 20
	overheadVXLAN   = 50
	overheadVXLANv6 = 70
)

// tunnelMTU is a sort of tunnel as far as MTUs are concerned.
type tunnelMTU struct {
	family   dataplane.Family
	overhead int
	mtu      int   // as configured; 0: what is left of the path
	enabled  *bool // nil: as the pools have it
	used     func(api.IPPoolSpec) bool
}

func tunnelMTUs(f config.Felix) []tunnelMTU {
	return []tunnelMTU{
		{dataplane.IPv4, overheadIPIP, f.IPIPMTU, f.IPIPEnabled, ipip},
		{dataplane.IPv4, overheadVXLAN, f.VXLANMTU, f.VXLANEnabled, vxlan},
		{dataplane.IPv6, overheadVXLANv6, f.VXLANMTUV6, f.VXLANEnabled, vxlan},
	}
}

// pathMTUs are the MTUs of the ways to the other nodes, by family; of a family in which the
// node has no address there is none.
type pathMTUs map[dataplane.Family]int

// podMTU is the MTU of pods' interfaces: that of the paths to the other nodes, or what the
// tightest of the tunnels in use leaves of it or is configured to have.
func podMTU(paths pathMTUs, pools []*api.IPPool, f config.Felix) int {
	least := slices.Min(slices.Collect(maps.Values(paths)))
	mtu := least
	for _, t := range tunnelMTUs(f) {
		path, ok := paths[t.family]
		if !ok {
			path = least
		}
		switch {
		case !t.inUse(pools):
		case t.mtu != 0:
			mtu = min(mtu, t.mtu)
		default:
			mtu = min(mtu, path-t.overhead)
		}
	}
	return mtu
}

func (t tunnelMTU) inUse(pools []*api.IPPool) bool {
	if t.enabled != nil && (!*t.enabled || t.family == dataplane.IPv4) {
		return *t.enabled
	}
	for _, p := range pools {
		if !p.Spec.Disabled && t.used(p.Spec) && familyOf(p) == t.family {
			return true
		}
	}
	return false
}

// knownMTU is the pods' MTU for as long as nothing changed that it depends on: to find it
// out takes a request a node of the cluster, and each ADD asks for it.
type knownMTU struct {
	mu    sync.Mutex
	mtu   int      // 0: to be found out
	paths pathMTUs // when it was last found out
}

func (k *knownMTU) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mtu = 0
}

func (k *knownMTU) get(find func() (int, error)) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mtu != 0 {
		return k.mtu, nil
	}
	mtu, err := find()
	if err == nil {
		k.mtu = mtu
	}
	return mtu, err
}

// mtu is the MTU of new pods' interfaces.
func (r *runtime) mtu() (int, error) { return r.podsMTU.get(r.findMTU) }

// findMTU also has the tunnels look again if the paths changed: a route that somebody adds or
// changes undoes nothing of theirs.
func (r *runtime) findMTU() (int, error) {
	o, ok := r.cache.Get(store.Key{Kind: api.KindNode.Name, Name: r.cfg.Name})
	if !ok {
		return 0, fmt.Errorf("node %s is not in the datastore yet", r.cfg.Name)
	}
	paths, err := r.paths(o.(*api.Node), watch.Objects[*api.Node](r.cache, api.KindNode))
	if err != nil {
		return 0, fmt.Errorf("MTU of the way to the other nodes: %w", err)
	}
	if !maps.Equal(paths, r.podsMTU.paths) {
		r.podsMTU.paths = paths
		r.agent.Resync(felix.DriverTunnels)
	}
	return podMTU(paths, watch.Objects[*api.IPPool](r.cache, api.KindIPPool), r.resolve()), nil
}

func (r *runtime) paths(self *api.Node, nodes []*api.Node) (pathMTUs, error) {
	paths, missing := pathMTUs{}, error(nil)
	for _, family := range dataplane.Families {
		own, peers, err := ends(family, self, nodes)
		if err != nil {
			missing = cmp.Or(missing, err)
			continue
		}
		if paths[family], err = r.net.PathMTU(own, peers); err != nil {
			return nil, err
		}
	}
	if len(paths) == 0 {
		return nil, missing
	}
	return paths, nil
}

// ends are the node's address of a family and the other nodes'.
func ends(family dataplane.Family, self *api.Node, nodes []*api.Node) (own netip.Addr, peers []netip.Addr, err error) {
	if own, err = nodeAddr(self, family); err != nil {
		return own, nil, err
	}
	for _, n := range nodes {
		if a, err := nodeAddr(n, family); err == nil && n.Name != self.Name {
			peers = append(peers, a)
		}
	}
	return own, peers, nil
}

// resolve is the configuration as the environment and the datastore have it now. What is
// wrong with it is told by the agent.
func (r *runtime) resolve() config.Felix {
	layers := []config.Layer{r.cfg.Felix, r.cfg.FelixFile}
	for _, name := range []string{"node." + r.cfg.Name, "default"} {
		if o, ok := r.cache.Get(store.Key{Kind: api.KindFelixConfiguration.Name, Name: name}); ok {
			layers = append(layers, config.FromResource(o.(*api.FelixConfiguration)))
		}
	}
	f, _ := config.Resolve(layers...)
	return f
}

// writeMTU leaves the pods' MTU where other tools look for it.
func (r *runtime) writeMTU() error {
	mtu, err := r.mtu()
	if err != nil || mtu == r.toldMTU {
		return err
	}
	if err := replaceFile(filepath.Join(r.cfg.LibDir, "mtu"), []byte(strconv.Itoa(mtu)+"\n"), 0o644); err != nil {
		return err
	}
	r.toldMTU = mtu
	return nil
}

// watchMTU has the MTU found out anew when links, addresses or routes change, those of
// pods aside: they come and go all the time and lead to no other node.
func (r *runtime) watchMTU(ctx context.Context) error {
	m, err := netlink.NewMonitor(netlink.Current, netlink.KindLink, netlink.KindAddr, netlink.KindRoute)
	if err != nil {
		return err
	}
	pods := podLinks{prefixes: r.felix.InterfacePrefixes, index: map[int]bool{}}
	ring := gathered(r.poke.Ring, mtuLag)
	return m.Run(ctx, func(e netlink.Event) {
		if !pods.concern(e) {
			r.podsMTU.forget()
			ring()
		}
	})
}

// mtuLag is how long news of the kernel's are gathered before the MTU is found out, for
// which the ways to all nodes are looked up: routes come by the thousand, one by one.
const mtuLag = 250 * time.Millisecond

// gathered returns a function that has f called once, a while after it was first called.
func gathered(f func(), lag time.Duration) func() {
	var due atomic.Bool
	return func() {
		if due.CompareAndSwap(false, true) {
			time.AfterFunc(lag, func() {
				due.Store(false)
				f()
			})
		}
	}
}

// podLinks tells the kernel's news of pods from others.
type podLinks struct {
	prefixes []string
	index    map[int]bool // of pods' links
}

// concern tells whether the news is of a pod's link, or of a route that this program
// made: neither says where other nodes are.
func (p podLinks) concern(e netlink.Event) bool {
	switch {
	case e.Lost:
		return false
	case e.Kind == netlink.KindRoute:
		return p.index[e.Link] || e.Protocol == protocolOwn
	case e.Kind != netlink.KindLink:
		return p.index[e.Link]
	}
	pod := false
	for _, prefix := range p.prefixes {
		pod = pod || strings.HasPrefix(e.Name, prefix)
	}
	if delete(p.index, e.Link); pod && !e.Deleted {
		p.index[e.Link] = true
	}
	return pod
}

// protocolOwn is that of this program's routes to other nodes.
const protocolOwn = 80
