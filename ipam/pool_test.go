package ipam

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

func TestSelectPools(t *testing.T) {
	p := func(name, cidr string, change func(*api.IPPoolSpec)) *api.IPPool {
		o := testPool(name, cidr, 0)
		if change != nil {
			change(&o.Spec)
		}
		return o
	}
	pools := []*api.IPPool{
		p("all", "10.1.0.0/16", nil),
		p("off", "10.2.0.0/16", func(s *api.IPPoolSpec) { s.Disabled = true }),
		p("manual", "10.3.0.0/16", func(s *api.IPPoolSpec) { s.AssignmentMode = api.AssignManual }),
		p("rack", "10.4.0.0/16", func(s *api.IPPoolSpec) { s.NodeSelector = "rack == 'r1'" }),
		p("team", "10.5.0.0/16", func(s *api.IPPoolSpec) { s.NamespaceSelector = "team == 'blue'" }),
		p("tunnel", "10.6.0.0/16", func(s *api.IPPoolSpec) { s.AllowedUses = []api.IPPoolUse{api.UseTunnel} }),
		p("broken", "10.7.0.0/16", func(s *api.IPPoolSpec) { s.NodeSelector = "rack ==" }),
		p("six", "fd00::/48", nil),
		p("going", "10.8.0.0/16", nil),
	}
	pools[8].DeletionTimestamp = &metav1.Time{Time: t0}
	r1 := &api.Node{}
	r1.Labels = map[string]string{"rack": "r1"}
	blue := map[string]string{"team": "blue"}
	for _, tc := range []struct {
		name      string
		node      *api.Node
		ns        map[string]string
		requested string
		family    dataplane.Family
		use       api.IPPoolUse
		want      string
		err       []string
	}{
		{name: "whatever fits", want: "all"},
		{name: "node's labels", node: r1, want: "all rack"},
		{name: "namespace's labels", ns: blue, want: "all team"},
		{name: "tunnel", use: api.UseTunnel, want: "all tunnel"},
		{name: "IPv6", family: dataplane.IPv6, want: "six"},
		{name: "named beats selectors and Manual, in its order", requested: "team manual rack", want: "team manual rack"},
		{name: "named by CIDR", requested: "10.3.0.0/16", want: "manual"},
		{name: "named twice", requested: "all 10.1.0.0/16", want: "all"},
		{name: "named, unknown", requested: "all nope", err: []string{"nope", "does not exist"}},
		{name: "named, CIDR unknown", requested: "10.9.0.0/16", err: []string{"10.9.0.0/16", "does not exist"}},
		{name: "named, disabled", requested: "off", err: []string{"off", "disabled"}},
		{name: "named, going", requested: "going", err: []string{"going", "being deleted"}},
		{name: "named, other family", requested: "six", err: []string{"six", "not an IPv4 pool"}},
		{name: "named, other use", requested: "tunnel", err: []string{"tunnel", "allowedUses", "Workload"}},
		{name: "no load balancer pool", use: api.UseLoadBalancer, err: []string{"all: its allowedUses", "off: it is disabled"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.family == 0 {
				tc.family = dataplane.IPv4
			}
			got, err := SelectPools(pools, tc.node, tc.ns, strings.Fields(tc.requested), tc.family, tc.use)
			if tc.err != nil {
				wantErr(t, err, ErrNoPool, tc.err...)
				return
			}
			var names []string
			for _, p := range got {
				names = append(names, p.Name)
			}
			if err != nil || strings.Join(names, " ") != tc.want {
				t.Errorf("pools %v, error %v, want %s", names, err, tc.want)
			}
		})
	}
	_, err := SelectPools(pools[6:7], nil, nil, nil, dataplane.IPv4, "")
	wantErr(t, err, ErrNoPool, "broken", "nodeSelector does not parse")
	_, err = SelectPools(nil, nil, nil, nil, dataplane.IPv6, "")
	wantErr(t, err, ErrNoPool, "there is no IPv6 pool")
}

func TestParsePoolRefuses(t *testing.T) {
	for _, p := range []*api.IPPool{
		testPool("a", "10.0.0.0", 26), testPool("b", "10.0.0.0/16", 19), testPool("c", "10.0.0.0/16", 33),
		testPool("d", "10.0.0.0/28", 26), testPool("e", "fd00::/64", 115), testPool("f", "", 0),
	} {
		if got, err := parsePool(p); err == nil {
			t.Errorf("%s /%d: got %v", p.Spec.CIDR, p.Spec.BlockSize, got)
		}
		a := NewAllocator(newSpy(), "n")
		if _, err := a.Assign(t.Context(), ask("h", t0, p), nil); !errors.Is(err, ErrNoPool) {
			t.Errorf("%s /%d: %v", p.Spec.CIDR, p.Spec.BlockSize, err)
		}
	}
}
