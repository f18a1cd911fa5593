package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

// tunnelBed is a node with a pool.
type tunnelBed struct {
	t    *testing.T
	s    *memory.Store
	u    *tunnelUpkeep
	pool *api.IPPool
}

func newTunnelBed(t *testing.T) *tunnelBed {
	b := &tunnelBed{t: t, s: memory.New()}
	b.u = &tunnelUpkeep{store: b.s, alloc: ipam.NewAllocator(b.s, "n1"), node: "n1", now: time.Now}
	b.pool = &api.IPPool{Meta: api.Named(api.KindIPPool, "", "p"), Spec: api.IPPoolSpec{CIDR: "10.0.0.0/24", VXLANMode: api.EncapAlways}}
	b.pool.Default()
	b.write(store.Create(&api.Node{Meta: api.Named(api.KindNode, "", "n1")}))
	return b
}

func (b *tunnelBed) write(op store.Op) {
	b.t.Helper()
	if _, err := b.s.Commit(b.t.Context(), []store.Op{op}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tunnelBed) node() *api.Node {
	b.t.Helper()
	n, err := readNode(b.t.Context(), b.s, "n1")
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// start is what a start does; a change of the pools does the second half.
func (b *tunnelBed) start() {
	b.t.Helper()
	if err := b.u.verify(b.t.Context(), b.node(), []*api.IPPool{b.pool}); err != nil {
		b.t.Fatal(err)
	}
	b.sync()
}

func (b *tunnelBed) sync() {
	b.t.Helper()
	if err := b.u.sync(b.t.Context(), b.node(), []*api.IPPool{b.pool}); err != nil {
		b.t.Fatal(err)
	}
}

// holds checks that Node resource and IPAM agree, and returns the address.
func (b *tunnelBed) holds(want bool) string {
	b.t.Helper()
	says := b.node().Spec.IPv4VXLANTunnelAddr
	held, err := b.u.alloc.ByHandle(b.t.Context(), "vxlan-tunnel-addr-n1")
	if err != nil {
		b.t.Fatal(err)
	}
	if want != (says != "") || want != (len(held) == 1 && held[0].String() == says) || !want && len(held) > 0 {
		b.t.Errorf("the Node says %q, IPAM has %v", says, held)
	}
	return says
}

func TestTunnelAddressComesAndGoesWithTheMode(t *testing.T) {
	b := newTunnelBed(t)
	b.start()
	b.holds(true)
	b.pool.Spec.VXLANMode = api.EncapNever
	b.sync()
	b.holds(false)
	b.pool.Spec.VXLANMode = api.EncapCrossSubnet
	b.sync()
	first := b.holds(true)
	b.start()
	if again := b.holds(true); again != first {
		t.Errorf("a restart changed %s to %s", first, again)
	}
	b.pool = &api.IPPool{Meta: api.Named(api.KindIPPool, "", "q"), Spec: api.IPPoolSpec{CIDR: "10.1.0.0/24", VXLANMode: api.EncapAlways}}
	b.pool.Default()
	b.sync()
	if a := netip.MustParseAddr(b.holds(true)); !netip.MustParsePrefix("10.1.0.0/24").Contains(a) {
		t.Errorf("%v is not of the pool that is left", a)
	}
}

func TestTunnelAddressAfterTheNodeWasDeleted(t *testing.T) {
	b := newTunnelBed(t)
	b.start()
	first := b.holds(true)
	anew := func() {
		b.write(store.Delete(store.Key{Kind: "Node", Name: "n1"}, store.AnyRevision))
		b.write(store.Create(&api.Node{Meta: api.Named(api.KindNode, "", "n1")}))
	}
	anew()
	b.start()
	if again := b.holds(true); again != first {
		t.Errorf("%s became %s", first, again)
	}
	anew()
	b.pool.Spec.VXLANMode = api.EncapNever
	b.start()
	b.holds(false)
}

func TestTunnelAddressThatIsAPodsIsNotUsed(t *testing.T) {
	b := newTunnelBed(t)
	addrs, err := b.u.alloc.Assign(t.Context(), ipam.Request{
		Handle: "pod", Families: []dataplane.Family{dataplane.IPv4}, Pools: []*api.IPPool{b.pool}, Now: time.Now(),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := b.node()
	n.Spec.IPv4VXLANTunnelAddr = addrs[0].String()
	b.write(store.Replace(n))
	b.start()
	if got := b.holds(true); got == addrs[0].String() {
		t.Errorf("the node has the pod's address %s", got)
	}
	if held, err := b.u.alloc.ByHandle(t.Context(), "pod"); err != nil || !slices.Equal(held, addrs) {
		t.Errorf("the pod has %v, %v", held, err)
	}
}
