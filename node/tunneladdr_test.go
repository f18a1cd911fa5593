package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

// tunnelBed is a node with a pool, in which one sort of address is looked at.
type tunnelBed struct {
	t    *testing.T
	s    *memory.Store
	u    *tunnelUpkeep
	addr tunnelAddr
	pool *api.IPPool
	conf config.Felix
}

// eachTunnel runs a test for each sort of address.
func eachTunnel(t *testing.T, f func(*testing.T, *tunnelBed)) {
	for _, a := range tunnelAddrs {
		t.Run(a.kind, func(t *testing.T) {
			b := &tunnelBed{t: t, s: memory.New(), addr: a}
			b.restart()
			b.pool = b.newPool("p", 0)
			b.write(store.Create(&api.Node{Meta: api.Named(api.KindNode, "", "n1")}))
			f(t, b)
		})
	}
}

// newPool is the n-th of pools that call for the address.
func (b *tunnelBed) newPool(name string, n int) *api.IPPool {
	p := &api.IPPool{Meta: api.Named(api.KindIPPool, "", name), Spec: api.IPPoolSpec{CIDR: fmt.Sprintf("10.%d.0.0/24", n)}}
	if b.addr.family == dataplane.IPv6 {
		p.Spec.CIDR = fmt.Sprintf("fd00:%d::/116", n)
	}
	b.mode(p, api.EncapAlways)
	p.Default()
	return p
}

func (b *tunnelBed) mode(p *api.IPPool, m api.EncapMode) {
	if p.Spec.IPIPMode = api.EncapNever; strings.HasPrefix(b.addr.handle, "ipip") {
		p.Spec.IPIPMode = m
		return
	}
	p.Spec.VXLANMode = m
}

func (b *tunnelBed) restart() { b.u = newTunnelUpkeep(b.s, ipam.NewAllocator(b.s, "n1"), "n1") }

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

// edit writes another address, or none, into the Node resource.
func (b *tunnelBed) edit(addr string) {
	b.t.Helper()
	n := b.node()
	b.addr.set(n, addr)
	b.write(store.Replace(n))
}

func (b *tunnelBed) sync() {
	b.t.Helper()
	b.syncFrom(b.node())
}

// syncFrom is given the Node resource as some earlier event showed it.
func (b *tunnelBed) syncFrom(n *api.Node) {
	b.t.Helper()
	if err := b.u.sync(b.t.Context(), n, []*api.IPPool{b.pool}, b.conf); err != nil {
		b.t.Fatal(err)
	}
}

// holds checks that Node resource and IPAM agree, and returns the address.
func (b *tunnelBed) holds(want bool) string {
	b.t.Helper()
	says := b.addr.get(b.node())
	held, err := b.u.alloc.ByHandle(b.t.Context(), b.addr.handle+"n1")
	if err != nil {
		b.t.Fatal(err)
	}
	if want != (says != "") || want != (len(held) == 1 && held[0].String() == says) || !want && len(held) > 0 {
		b.t.Errorf("the Node says %q, IPAM has %v", says, held)
	}
	return says
}

// pod takes an address for a pod.
func (b *tunnelBed) pod() netip.Addr {
	b.t.Helper()
	addrs, err := b.u.alloc.Assign(b.t.Context(), ipam.Request{
		Handle: "pod", Families: []dataplane.Family{b.addr.family}, Pools: []*api.IPPool{b.pool}, Now: time.Now(),
	}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return addrs[0]
}

func TestTunnelAddressComesAndGoesWithTheMode(t *testing.T) {
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		b.sync()
		b.holds(true)
		b.mode(b.pool, api.EncapNever)
		b.sync()
		b.holds(false)
		b.mode(b.pool, api.EncapCrossSubnet)
		b.sync()
		first := b.holds(true)
		b.restart()
		b.sync()
		if again := b.holds(true); again != first {
			t.Errorf("a restart changed %s to %s", first, again)
		}
		before := b.node()
		b.pool = b.newPool("q", 1)
		b.sync()
		second := b.holds(true)
		if !within(second, []*api.IPPool{b.pool}) {
			t.Errorf("%s is not of the pool that is left", second)
		}
		b.syncFrom(before)
		if again := b.holds(true); again != second {
			t.Errorf("an old view of the Node changed %s to %s", second, again)
		}
	})
}

func TestTunnelAddressIsWrittenAsUpstreamHasIt(t *testing.T) {
	want := map[string]string{"ipip-tunnel-addr-n1": "ipipTunnelAddress", "vxlan-tunnel-addr-n1": "vxlanTunnelAddress", "vxlan-v6-tunnel-addr-n1": "vxlanV6TunnelAddress"}
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		b.sync()
		list, _, err := b.s.List(t.Context(), api.KindIPAMBlock.Name, "")
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		a := list[0].(*api.IPAMBlock).Spec.Attributes[0]
		if a.HandleID == nil || want[*a.HandleID] != a.Secondary[api.AttrType] || a.Secondary[api.AttrType] == "" || a.Secondary[api.AttrNode] != "n1" {
			t.Errorf("%v, %v", a.HandleID, a.Secondary)
		}
	})
}

func TestTunnelAddressAfterTheNodeWasDeleted(t *testing.T) {
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		b.sync()
		first := b.holds(true)
		anew := func() {
			b.write(store.Delete(store.Key{Kind: "Node", Name: "n1"}, store.AnyRevision))
			b.write(store.Create(&api.Node{Meta: api.Named(api.KindNode, "", "n1")}))
		}
		anew()
		b.sync()
		if again := b.holds(true); again != first {
			t.Errorf("%s became %s", first, again)
		}
		anew()
		b.mode(b.pool, api.EncapNever)
		b.restart()
		b.sync()
		b.holds(false)
	})
}

// Whoever writes the Node resource without the address, or with another one, takes no
// tunnel down and gets no pod's address: while the node runs, and while it does not.
func TestTunnelAddressThatSomebodyEdited(t *testing.T) {
	for _, running := range []bool{true, false} {
		eachTunnel(t, func(t *testing.T, b *tunnelBed) {
			pod := b.pod()
			b.sync()
			first := b.holds(true)
			free := pod.Next().Next()
			for _, edited := range []string{"", pod.String(), "192.0.2.1", free.String()} {
				if edited == first {
					continue
				}
				b.edit(edited)
				if !running {
					b.restart()
				}
				b.sync()
				if got := b.holds(true); got != first {
					t.Errorf("%q became %s, was %s", edited, got, first)
				}
			}
			if held, err := b.u.alloc.ByHandle(t.Context(), "pod"); err != nil || !slices.Equal(held, []netip.Addr{pod}) {
				t.Errorf("the pod has %v, %v", held, err)
			}
		})
	}
}

// What nobody changed is not asked for again: every change of a pool or node in the
// cluster makes every node look.
func TestTunnelAddressThatStandsCostsNothing(t *testing.T) {
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		b.sync()
		n := b.node()
		b.u.store = nil // whoever asks it fails
		b.u.alloc = nil
		b.syncFrom(n)
	})
}

// A pool that goes from one encapsulation to the other needs another address, which is there
// before the old one goes.
func TestTunnelAddressesOfAPoolThatChanges(t *testing.T) {
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		if b.addr.family == dataplane.IPv6 {
			t.Skip("IPv6 has VXLAN only")
		}
		b.sync()
		other := tunnelAddrs[0]
		if other.kind == b.addr.kind {
			other = tunnelAddrs[1]
		}
		first := b.holds(true)
		b.pool.Spec.IPIPMode, b.pool.Spec.VXLANMode = b.pool.Spec.VXLANMode, b.pool.Spec.IPIPMode
		b.sync()
		b.holds(false)
		if got := other.get(b.node()); got == "" || got == first {
			t.Errorf("the new tunnel has the address %q, the old one had %s", got, first)
		}
	})
}

// Where all pools of an encapsulation are for other nodes, a node goes on without.
func TestTunnelAddressFromPoolsOfOtherNodes(t *testing.T) {
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		b.pool.Spec.NodeSelector = "zone == 'a'"
		b.sync()
		b.holds(false)
		n := b.node()
		n.Labels = map[string]string{"zone": "a"}
		b.write(store.Replace(n))
		b.sync()
		b.holds(true)
	})
}

// Whoever is about to change a pool's encapsulation may have the tunnels made before.
func TestTunnelAddressBeforeAPoolCallsForIt(t *testing.T) {
	eachTunnel(t, func(t *testing.T, b *tunnelBed) {
		if b.addr.family == dataplane.IPv6 {
			t.Skip("made as pools call for it")
		}
		b.mode(b.pool, api.EncapNever)
		b.sync()
		b.holds(false)
		yes := true
		b.conf.IPIPEnabled, b.conf.VXLANEnabled = &yes, &yes
		b.sync()
		first := b.holds(true)
		b.mode(b.pool, api.EncapAlways)
		b.sync()
		b.conf = config.Felix{}
		b.sync()
		if again := b.holds(true); again != first {
			t.Errorf("%s became %s", first, again)
		}
	})
}

func TestAddressless(t *testing.T) {
	with := &api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGP{IPv6Address: "fd00::1/64"}}}
	if !addressless(&api.Node{}) || !addressless(&api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGP{}}}) || addressless(with) {
		t.Error("wrong")
	}
}
