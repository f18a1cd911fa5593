package nft

import (
	"context"
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
)

func sample() *dataplane.State {
	s := dataplane.NewState()
	web := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	prof := dataplane.PolicyID{Kind: "Profile", Name: "kns.default"}
	s.Endpoints["cali1"] = &dataplane.Endpoint{
		Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")},
		Sources:  []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")},
		Ingress:  []dataplane.TierPolicies{{Tier: "default", Policies: []dataplane.PolicyID{web}, Default: dataplane.Deny}},
		Profiles: []dataplane.PolicyID{prof},
	}
	s.Policies[web] = &dataplane.Policy{ID: web, Ingress: []dataplane.Rule{
		{Action: dataplane.Log},
		{
			Action: dataplane.Allow, Protocol: dataplane.TCP,
			Src: dataplane.Peer{Sets: []dataplane.SetID{"s:abc"}, NotNets: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/32")}},
			Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 80, Max: 80}, {Min: 8000, Max: 65535}}, PortSets: []dataplane.SetID{"n:http"}},
		},
		{Action: dataplane.Deny, NotICMP: &dataplane.ICMP{Type: 8, Code: 1, HasCode: true}},
	}}
	s.Policies[prof] = &dataplane.Policy{ID: prof, Egress: []dataplane.Rule{{Action: dataplane.Allow}}}
	s.Sets["s:abc"] = members("10.1.0.0/16", "10.1.2.3/32", "255.255.255.255/32", "fd00::/64", "ffff::/16")
	s.Sets["n:http"] = dataplane.Members{{Prefix: netip.MustParsePrefix("10.1.0.1/32"), Protocol: dataplane.TCP, Port: 81}: {}}
	s.Sets[dataplane.SetAllPools] = members("10.1.0.0/16", "fd00::/64")
	s.Sets[dataplane.SetMasqPools] = members("10.1.0.0/16")
	s.Sets[dataplane.SetNodes] = members("192.168.0.2/32")
	s.Tunnels[dataplane.DeviceVXLAN] = dataplane.Tunnel{Encap: dataplane.VXLAN, Family: dataplane.IPv4, Addr: netip.MustParseAddr("10.1.0.64"), Port: 4789}
	s.Tunnels[dataplane.DeviceIPIP] = dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4}
	return s
}

func members(prefixes ...string) dataplane.Members {
	m := dataplane.Members{}
	for _, p := range prefixes {
		m[dataplane.Member{Prefix: netip.MustParsePrefix(p)}] = struct{}{}
	}
	return m
}

func newDriver(t *testing.T, ns int) *Driver {
	t.Helper()
	d, err := New(ns, Config{LogGroup: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func mustSync(t *testing.T, d *Driver) {
	t.Helper()
	if err := d.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestSecondSyncWritesNothing(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	d.Update(sample().Delta())
	mustSync(t, d)
	if got := d.Stats(); got.Replacements != 2 || got.Transactions != 2 {
		t.Fatalf("first Sync: %+v, want 2 tables put in place", got)
	}
	d.Resync()
	mustSync(t, d)
	again := newDriver(t, ns)
	again.Update(sample().Delta())
	mustSync(t, again)
	if n := d.Stats().Transactions; n != 2 {
		t.Errorf("Sync after Resync: %d transactions, want none more than the first 2", n)
	}
	if n := again.Stats().Transactions; n != 0 {
		t.Errorf("another Driver's first Sync: %d transactions, want none", n)
	}
}
