package node

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

func TestPodMTU(t *testing.T) {
	pool := func(cidr string, vxlan, ipip api.EncapMode, disabled bool) *api.IPPool {
		return &api.IPPool{Spec: api.IPPoolSpec{CIDR: cidr, VXLANMode: vxlan, IPIPMode: ipip, Disabled: disabled}}
	}
	overIPIP := pool("10.0.0.0/16", "", api.EncapAlways, false)
	overVXLAN := pool("10.1.0.0/16", api.EncapCrossSubnet, "", false)
	for _, c := range []struct {
		pools []*api.IPPool
		env   []string
		want  int
	}{
		{nil, nil, 1500},
		{[]*api.IPPool{pool("10.0.0.0/16", api.EncapNever, api.EncapNever, false)}, nil, 1500},
		{[]*api.IPPool{overIPIP}, nil, 1480},
		{[]*api.IPPool{overVXLAN}, nil, 1450},
		{[]*api.IPPool{overIPIP, overVXLAN}, nil, 1450},
		{[]*api.IPPool{overIPIP, pool("fd00::/64", api.EncapAlways, "", false)}, nil, 1430},
		{[]*api.IPPool{pool("10.0.0.0/16", api.EncapAlways, "", true)}, nil, 1500},
		{[]*api.IPPool{overIPIP}, []string{"FELIX_IPINIPMTU=1300"}, 1300},
		{[]*api.IPPool{overIPIP}, []string{"FELIX_IPINIPMTU=9000"}, 1500},
		{[]*api.IPPool{overVXLAN}, []string{"FELIX_IPINIPMTU=1300"}, 1450},
		{[]*api.IPPool{overIPIP, overVXLAN}, []string{"FELIX_IPINIPMTU=1400", "FELIX_VXLANMTU=1410"}, 1400},
		{[]*api.IPPool{overIPIP}, []string{"FELIX_IPINIPENABLED=false"}, 1500},
		{nil, []string{"FELIX_IPINIPENABLED=true"}, 1480},
		{nil, []string{"FELIX_VXLANENABLED=true", "FELIX_VXLANMTUV6=1280"}, 1450},
	} {
		f, errs := config.Resolve(config.FromEnviron(c.env))
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if got := podMTU(pathMTUs{dataplane.IPv4: 1500}, c.pools, f); got != c.want {
			t.Errorf("%+v, %v: got %d, want %d", c.pools, c.env, got, c.want)
		}
	}
}

func TestPodMTUOfTwoFamilies(t *testing.T) {
	v4 := &api.IPPool{Spec: api.IPPoolSpec{CIDR: "10.0.0.0/16", IPIPMode: api.EncapAlways}}
	v6 := &api.IPPool{Spec: api.IPPoolSpec{CIDR: "fd00::/64", VXLANMode: api.EncapAlways}}
	for _, c := range []struct {
		v4, v6 int
		pools  []*api.IPPool
		want   int
	}{
		{1500, 1400, nil, 1400},
		{1500, 1400, []*api.IPPool{v4}, 1400},
		{1410, 1400, []*api.IPPool{v4}, 1390},
		{1300, 1500, []*api.IPPool{v4, v6}, 1280},
		{1500, 1500, []*api.IPPool{v4, v6}, 1430},
	} {
		if got := podMTU(pathMTUs{dataplane.IPv4: c.v4, dataplane.IPv6: c.v6}, c.pools, config.Felix{}); got != c.want {
			t.Errorf("%d, %d, %d pools: got %d, want %d", c.v4, c.v6, len(c.pools), got, c.want)
		}
	}
}

func TestEnds(t *testing.T) {
	node := func(name, v4, v6 string) *api.Node {
		n := &api.Node{Meta: api.Named(api.KindNode, "", name)}
		n.Spec.BGP = &api.NodeBGP{IPv4Address: v4, IPv6Address: v6}
		return n
	}
	others := []*api.Node{node("n1", "10.0.0.1/24", "fd00::1/64"), node("n2", "10.0.0.2", ""), node("n3", "", "fd00::3/64"), {Meta: api.Named(api.KindNode, "", "n4")}}
	for _, c := range []struct {
		family dataplane.Family
		own    string
		peers  []string
	}{
		{dataplane.IPv4, "10.0.0.1", []string{"10.0.0.2"}},
		{dataplane.IPv6, "fd00::1", []string{"fd00::3"}},
	} {
		own, peers, err := ends(c.family, others[0], others)
		var got []string
		for _, p := range peers {
			got = append(got, p.String())
		}
		if err != nil || own != netip.MustParseAddr(c.own) || !slices.Equal(got, c.peers) {
			t.Errorf("%v: %v, %v, %v", c.family, own, got, err)
		}
	}
	if _, _, err := ends(dataplane.IPv6, others[1], others); err == nil {
		t.Error("a node without an address has ends")
	}
}

func TestKnownMTU(t *testing.T) {
	var k knownMTU
	asked := 0
	find := func() (int, error) { asked++; return 1400 + asked, nil }
	for _, want := range []int{1401, 1401} {
		if got, err := k.get(find); got != want || err != nil {
			t.Errorf("%d, %v; want %d", got, err, want)
		}
	}
	k.forget()
	if _, err := k.get(func() (int, error) { return 0, errors.New("no") }); err == nil {
		t.Error("an error is lost")
	}
	if got, _ := k.get(find); got != 1402 {
		t.Errorf("%d after a change", got)
	}
}

func TestPodLinks(t *testing.T) {
	p := podLinks{prefixes: []string{"cali", "tap"}, index: map[int]bool{}}
	for i, c := range []struct {
		e    netlink.Event
		want bool
	}{
		{netlink.Event{Kind: netlink.KindLink, Link: 5, Name: "cali1"}, true},
		{netlink.Event{Kind: netlink.KindLink, Link: 6, Name: "tap1"}, true},
		{netlink.Event{Kind: netlink.KindLink, Link: 7, Name: "eth0"}, false},
		{netlink.Event{Kind: netlink.KindRoute, Link: 5, Protocol: 3}, true},
		{netlink.Event{Kind: netlink.KindRoute, Link: 7, Protocol: 3}, false},
		{netlink.Event{Kind: netlink.KindRoute, Link: 7, Protocol: 80}, true},
		{netlink.Event{Kind: netlink.KindAddr, Link: 6}, true},
		{netlink.Event{Kind: netlink.KindAddr, Link: 7}, false},
		{netlink.Event{Kind: netlink.KindLink, Link: 6, Name: "eth1"}, false}, // renamed
		{netlink.Event{Kind: netlink.KindRoute, Link: 6, Protocol: 3}, false},
		{netlink.Event{Kind: netlink.KindLink, Link: 5, Name: "cali1", Deleted: true}, true},
		{netlink.Event{Kind: netlink.KindRoute, Link: 5, Protocol: 3}, false}, // the number is free for another link
		{netlink.Event{Lost: true}, false},
	} {
		if got := p.concern(c.e); got != c.want {
			t.Errorf("event %d, %+v: %v", i, c.e, got)
		}
	}
}

// TestGathered: of many calls within a while one comes through, and the last is not lost.
func TestGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64 // two calls may overlap
		call := gathered(func() { n.Add(1) }, time.Second)
		for range 95 {
			call()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := n.Load(); n < 8 || n > 10 {
			t.Errorf("%d calls in 9.5 s, want one a second", n)
		}
		before := n.Load()
		call()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := n.Load(); n != before+1 {
			t.Errorf("a single call is told %d times", n-before)
		}
	})
}
