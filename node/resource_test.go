package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
)

func TestWantedNodeKeepsWhatOthersWrote(t *testing.T) {
	as := api.ASNumber(64999)
	now := &api.Node{Meta: api.Named(api.KindNode, "", "n1")}
	now.Spec.BGP = &api.NodeBGP{ASNumber: &as, IPv4Address: "10.0.0.9/24", RouteReflectorClusterID: "1.0.0.1"}
	now.Spec.Addresses = []api.NodeAddress{{Address: "10.0.0.9/24", Type: "CalicoNodeIP"}, {Address: "192.0.2.1", Type: "ExternalIP"}}
	now.Spec.IPv4VXLANTunnelAddr = "10.10.0.1"

	got := wantedNode(now, "n1", addresses{v4: netip.MustParsePrefix("10.0.0.1/24")})

	want := api.NodeSpec{
		BGP:                 &api.NodeBGP{ASNumber: &as, IPv4Address: "10.0.0.1/24", RouteReflectorClusterID: "1.0.0.1"},
		Addresses:           []api.NodeAddress{{Address: "192.0.2.1", Type: "ExternalIP"}, {Address: "10.0.0.1/24", Type: "CalicoNodeIP"}},
		IPv4VXLANTunnelAddr: "10.10.0.1",
	}
	if d := cmp.Diff(want, got.Spec); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if now.Spec.BGP.IPv4Address != "10.0.0.9/24" {
		t.Error("the stored object was written to")
	}
	if again := wantedNode(got, "n1", addresses{v4: netip.MustParsePrefix("10.0.0.1/24")}); cmp.Diff(got.Spec, again.Spec) != "" {
		t.Error("not idempotent")
	}
}

func TestConflicting(t *testing.T) {
	node := func(name, v4 string) *api.Node {
		n := &api.Node{Meta: api.Named(api.KindNode, "", name)}
		n.Spec.BGP = &api.NodeBGP{IPv4Address: v4}
		return n
	}
	own := node("n1", "10.0.0.1/24")
	for _, c := range []struct {
		other *api.Node
		want  string
	}{
		{node("n2", "10.0.0.2/24"), ""},
		{node("n2", "10.0.0.1/16"), "n2"},
		{node("n1", "10.0.0.1/24"), ""},
		{&api.Node{Meta: api.Named(api.KindNode, "", "n3")}, ""},
	} {
		if got := conflicting([]*api.Node{c.other}, own); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.other.Spec.BGP, got, c.want)
		}
	}
}
