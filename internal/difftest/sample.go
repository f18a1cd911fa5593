package difftest

import (
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// Sample is a state with something of everything: one pod of both families and another source, a policy with sets, ports and
// negations, a profile, tunnels of both kinds, for backends to hold.
func Sample(b dataplane.Backend) *dataplane.State {
	s := dataplane.NewState()
	s.Settings.Backend = b
	web, prof := Web(), dataplane.PolicyID{Kind: "Profile", Name: "kns.default"}
	s.Endpoints["cali1"] = &dataplane.Endpoint{
		Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")},
		Sources:  []netip.Prefix{Prefix("10.9.0.0/24")},
		Ingress:  []dataplane.TierPolicies{{Tier: "default", Policies: []dataplane.PolicyID{web}, Default: dataplane.Deny}},
		Profiles: []dataplane.PolicyID{prof},
	}
	s.Policies[web] = &dataplane.Policy{ID: web, Ingress: []dataplane.Rule{
		{Action: dataplane.Log},
		{
			Action: dataplane.Allow, Protocol: dataplane.TCP,
			Src: dataplane.Peer{Sets: []dataplane.SetID{"s:abc"}, NotNets: []netip.Prefix{Prefix("10.1.0.9/32")}},
			Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 80, Max: 80}, {Min: 8000, Max: 65535}}, PortSets: []dataplane.SetID{"n:http"}},
		},
		{Action: dataplane.Deny, NotICMP: &dataplane.ICMP{Type: 8, Code: 1, HasCode: true}},
	}}
	s.Policies[prof] = &dataplane.Policy{ID: prof, Egress: []dataplane.Rule{{Action: dataplane.Allow}}}
	s.Sets["s:abc"] = Members("10.1.0.0/16", "10.1.2.3/32", "255.255.255.255/32", "fd00::/64", "ffff::/16")
	s.Sets["n:http"] = dataplane.Members{{Prefix: Prefix("10.1.0.1/32"), Protocol: dataplane.TCP, Port: 81}: {}}
	s.Sets[dataplane.SetAllPools] = Members("10.1.0.0/16", "fd00::/64")
	s.Sets[dataplane.SetMasqPools] = Members("10.1.0.0/16")
	s.Sets[dataplane.SetNodes] = Members("192.168.0.2/32")
	s.Tunnels[dataplane.DeviceVXLAN] = dataplane.Tunnel{Encap: dataplane.VXLAN, Family: dataplane.IPv4, Addr: netip.MustParseAddr("10.1.0.64"), Port: 4789}
	s.Tunnels[dataplane.DeviceIPIP] = dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4}
	return s
}

// Web is the policy of Sample.
func Web() dataplane.PolicyID {
	return dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
}

// Members are those prefixes.
func Members(prefixes ...string) dataplane.Members {
	m := dataplane.Members{}
	for _, p := range prefixes {
		m[dataplane.Member{Prefix: Prefix(p)}] = struct{}{}
	}
	return m
}
