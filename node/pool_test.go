package node

import (
	"strings"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store/memory"
)

func TestDefaultPools(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string // NAME CIDR vxlan ipip nat size; joined by comma
		says string
	}{
		{nil, "default-ipv4-ippool 192.168.0.0/16 Never Never nat 26", ""},
		{map[string]string{"NO_DEFAULT_POOLS": "true"}, "", ""},
		{map[string]string{"CALICO_IPV4POOL_CIDR": "10.244.0.0/16", "CALICO_IPV4POOL_VXLAN": "CrossSubnet", "CALICO_IPV4POOL_NAT_OUTGOING": "false", "CALICO_IPV4POOL_BLOCK_SIZE": "24"},
			"default-ipv4-ippool 10.244.0.0/16 CrossSubnet Never - 24", ""},
		{map[string]string{"CALICO_IPV4POOL_IPIP": "Always", "CALICO_IPV6POOL_CIDR": "fd00::/64"},
			"default-ipv4-ippool 192.168.0.0/16 Never Always nat 26,default-ipv6-ippool fd00::/64 Never Never - 122", ""},
		{map[string]string{"CALICO_IPV4POOL_CIDR": "10.0.0.0/33"}, "", "10.0.0.0/33"},
		{map[string]string{"CALICO_IPV4POOL_VXLAN": "sometimes"}, "", "sometimes"},
		{map[string]string{"CALICO_IPV4POOL_BLOCK_SIZE": "big"}, "", "BLOCK_SIZE=big"},
		{map[string]string{"CALICO_IPV4POOL_VXLAN": "Always", "CALICO_IPV4POOL_IPIP": "Always"}, "", "ipipMode"},
	} {
		pools, err := defaultPools(c.env)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "CALICO_IPV4POOL_") {
				t.Errorf("%v: got %v, want an error with %q", c.env, err, c.says)
			}
			continue
		}
		var got []string
		for _, p := range pools {
			o := p.object()
			nat := "-"
			if o.Spec.NATOutgoing {
				nat = "nat"
			}
			size := map[int]string{24: "24", 26: "26", 122: "122"}[o.Spec.BlockSize]
			got = append(got, strings.Join([]string{p.Name, o.Spec.CIDR, string(o.Spec.VXLANMode), string(o.Spec.IPIPMode), nat, size}, " "))
		}
		if s := strings.Join(got, ","); err != nil || s != c.want {
			t.Errorf("%v: got %q, %v; want %q", c.env, s, err, c.want)
		}
	}
}

func TestEnsurePoolsLeavesAClusterWithPoolsAlone(t *testing.T) {
	s := memory.New()
	pools, err := defaultPools(nil)
	if err != nil {
		t.Fatal(err)
	}
	names := func() string {
		t.Helper()
		list, _, err := s.List(t.Context(), api.KindIPPool.Name, "")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range list {
			names = append(names, o.GetName())
		}
		return strings.Join(names, " ")
	}
	for range 2 {
		if err := ensurePools(t.Context(), s, pools); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != "default-ipv4-ippool" {
			t.Errorf("pools %q", got)
		}
	}
	pools[0].Name = "other"
	if err := ensurePools(t.Context(), s, pools); err != nil || names() != "default-ipv4-ippool" {
		t.Errorf("pools %q, %v", names(), err)
	}
}
