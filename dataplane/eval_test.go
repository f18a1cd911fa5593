package dataplane

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// node is a small node: two pods with a policy each, one without, and a VXLAN tunnel.
func node() *State {
	s := NewState()
	id := func(name string) PolicyID { return PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: name} }
	prof := PolicyID{Kind: "Profile", Name: "kns.ns"}
	put := func(p *Policy) PolicyID { s.Policies[p.ID] = p; return p.ID }
	one := func(d Action, ids ...PolicyID) []TierPolicies {
		return []TierPolicies{{Tier: "default", Policies: ids, Default: d}}
	}
	port := func(p uint16) Peer { return Peer{Ports: []PortRange{{p, p}}} }
	web := put(&Policy{ID: id("web"), Ingress: []Rule{
		{Action: Log},
		{Action: Deny, Protocol: TCP, Dst: port(23)},
		{Action: Allow, Protocol: TCP, Src: Peer{Sets: []SetID{"s:clients"}}, Dst: port(80)},
		{Action: Pass, Protocol: UDP, Dst: port(53)},
	}})
	tail := put(&Policy{ID: id("tail"), Ingress: []Rule{{Action: Allow, Protocol: UDP}}})
	put(&Policy{ID: prof, Ingress: []Rule{{Action: Pass, Protocol: SCTP}, {Action: Allow, Src: Peer{NotNets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}}, Egress: []Rule{{Action: Allow}}})
	s.Endpoints["cali1"] = &Endpoint{
		Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Sources: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}, Profiles: []PolicyID{prof},
	}
	s.Endpoints["cali2"] = &Endpoint{
		Interface: "cali2", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
		Ingress:  append(one(Deny, web), TierPolicies{Tier: "last", Policies: []PolicyID{tail}, Default: Deny}),
		Profiles: []PolicyID{prof},
	}
	s.Endpoints["cali3"] = &Endpoint{Interface: "cali3", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}, Ingress: one(Pass, web), Profiles: []PolicyID{prof}}
	s.Endpoints["cali4"] = &Endpoint{Interface: "cali4", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.4")}}
	s.Sets["s:clients"] = Members{{Prefix: netip.MustParsePrefix("10.0.0.1/32")}: {}, {Prefix: netip.MustParsePrefix("10.8.0.0/16")}: {}}
	s.Sets[SetAllPools] = Members{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}: {}}
	s.Sets[SetMasqPools] = s.Sets[SetAllPools]
	s.Sets[SetNodes] = Members{{Prefix: netip.MustParsePrefix("192.168.0.2/32")}: {}}
	s.Tunnels[DeviceVXLAN] = Tunnel{Encap: VXLAN, Family: IPv4, Addr: netip.MustParseAddr("10.0.0.64"), Port: 4789}
	return s
}

func packet(in, out, src, dst string, proto Protocol, dport uint16) Packet {
	return Packet{In: in, Out: out, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: proto, SrcPort: 40000, DstPort: dport}
}

func TestEval(t *testing.T) {
	conn := func(p Packet, c Conn) Packet { p.Conn = c; return p }
	cut := func(p Packet) Packet { p.Cut, p.Conn = true, ConnEstablished; return p }
	icmp6 := func(in, src, dst string, typ uint8) Packet {
		p := packet(in, "", src, dst, ICMP6, 0)
		p.Type = typ
		return p
	}
	fragment := packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", TCP, 80)
	fragment.Fragment = true
	for _, c := range []struct {
		name   string
		change func(*State)
		p      Packet
		want   Verdict
	}{
		{"allowed by the set and port", nil, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", TCP, 80), Accept},
		{"not in the set", nil, packet("cali3", "cali2", "10.0.0.3", "10.0.0.2", TCP, 80), Drop},
		{"from another node", nil, packet("eth0", "cali2", "10.8.1.1", "10.0.0.2", TCP, 80), Accept},
		{"another port", nil, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", TCP, 81), Drop},
		{"a fragment has no port", nil, fragment, Drop},
		{"the port's number in another protocol", nil, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", SCTP, 80), Drop},
		{"the set has no IPv6", nil, packet("cali1", "cali2", "fd00::1", "fd00::2", TCP, 80), Drop},
		{"passed to the next tier", nil, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", UDP, 53), Accept},
		{"tier's default denies before the next tier", nil, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", UDP, 54), Drop},
		{"tier's default passes to the profile", nil, packet("cali1", "cali3", "10.0.0.1", "10.0.0.3", UDP, 54), Accept},
		{"a deny stands before the profile", nil, packet("cali1", "cali3", "10.0.0.1", "10.0.0.3", TCP, 23), Drop},
		{"the profile excludes the source", nil, packet("eth0", "cali3", "192.0.2.1", "10.0.0.3", UDP, 54), Drop},
		{"Pass in the only profile", nil, packet("eth0", "cali1", "10.9.0.1", "10.0.0.1", SCTP, 1), Drop},
		{"no policy and no profile", nil, packet("cali1", "cali4", "10.0.0.1", "10.0.0.4", TCP, 80), Drop},
		{"egress without policy and profile", nil, packet("cali4", "eth0", "10.0.0.4", "1.1.1.1", TCP, 80), Drop},
		{"to a pod without an address of the family", nil, packet("cali1", "cali3", "fd00::1", "fd00::3", TCP, 80), Drop},
		{"to an unknown address of a pod", nil, packet("cali1", "cali3", "10.0.0.1", "10.7.7.7", UDP, 54), Accept},
		{"host to a pod without an address of the family", nil, packet("", "cali3", "fd00::ff", "fd00::3", TCP, 80), Accept},
		{"established", nil, conn(packet("eth0", "cali4", "1.1.1.1", "10.0.0.4", TCP, 80), ConnEstablished), Accept},
		{"invalid", nil, conn(packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", TCP, 80), ConnInvalid), Drop},
		{"another's address", nil, packet("cali1", "eth0", "10.0.0.2", "1.1.1.1", TCP, 80), Drop},
		{"another's address, established", nil, conn(packet("cali1", "eth0", "10.0.0.2", "1.1.1.1", TCP, 80), ConnEstablished), Drop},
		{"further source, not configured", nil, packet("cali1", "eth0", "172.16.1.1", "1.1.1.1", TCP, 80), Drop},
		{"further source", func(s *State) { s.Settings.AllowSpoofing = true }, packet("cali1", "eth0", "172.16.1.1", "1.1.1.1", TCP, 80), Accept},
		{"from an unknown interface", nil, packet("cali9", "eth0", "10.0.0.9", "1.1.1.1", TCP, 80), Drop},
		{"to an unknown interface", nil, packet("eth0", "cali9", "1.1.1.1", "10.0.0.9", TCP, 80), Drop},
		{"host to an unknown interface", nil, packet("", "cali9", "192.168.0.1", "10.0.0.9", TCP, 80), Drop},
		{"to an unknown interface, established", nil, conn(packet("eth0", "cali9", "1.1.1.1", "10.0.0.9", TCP, 80), ConnEstablished), Drop},
		{"host to its pod", nil, packet("", "cali4", "192.168.0.1", "10.0.0.4", TCP, 80), Accept},
		{"pod to host, by default", nil, packet("cali1", "", "10.0.0.1", "192.168.0.1", TCP, 80), Drop},
		{"pod to host, allowed", func(s *State) { s.Settings.EndpointToHost = Allow }, packet("cali1", "", "10.0.0.1", "192.168.0.1", TCP, 80), Accept},
		{"pod to host, left to others", func(s *State) { s.Settings.EndpointToHost = Pass }, packet("cali1", "", "10.0.0.1", "192.168.0.1", TCP, 80), Return},
		{"pod to host, but egress denies", func(s *State) { s.Settings.EndpointToHost = Allow }, packet("cali4", "", "10.0.0.4", "192.168.0.1", TCP, 80), Drop},
		{"others' packets to the host", nil, packet("eth0", "", "1.1.1.1", "192.168.0.1", TCP, 22), Return},
		{"others' packets through the host", nil, packet("eth0", "eth1", "1.1.1.1", "2.2.2.2", TCP, 22), Return},
		{"VXLAN by a pod", nil, packet("cali1", "eth0", "10.0.0.1", "192.168.0.2", UDP, 4789), Drop},
		{"VXLAN by a pod, allowed", func(s *State) { s.Settings.AllowVXLANFromPod = true }, packet("cali1", "eth0", "10.0.0.1", "192.168.0.2", UDP, 4789), Accept},
		{"IPIP by a pod", nil, packet("cali1", "eth0", "10.0.0.1", "192.168.0.2", 4, 0), Drop},
		{"VXLAN from a node", nil, packet("eth0", "", "192.168.0.2", "192.168.0.1", UDP, 4789), Return},
		{"VXLAN from a stranger", nil, packet("eth0", "", "192.168.0.3", "192.168.0.1", UDP, 4789), Drop},
		{"VXLAN port, but no tunnel", func(s *State) { clear(s.Tunnels) }, packet("eth0", "", "192.168.0.3", "192.168.0.1", UDP, 4789), Return},
		{"IPIP, but no such tunnel", nil, packet("eth0", "", "192.168.0.3", "192.168.0.1", 4, 0), Return},
		{"neighbour solicitation to the host", nil, icmp6("cali1", "fe80::1", "fe80::2", 135), Accept},
		{"duplicate detection", nil, icmp6("cali1", "::", "ff02::1", 135), Accept},
		{"neighbour solicitation from an unknown interface", nil, icmp6("cali9", "fe80::1", "fe80::2", 135), Drop},
		{"router advertisement by a pod", nil, icmp6("cali1", "fe80::1", "ff02::1", 134), Drop},
		{"echo request from a link-local address", nil, icmp6("cali1", "fe80::1", "fe80::2", 128), Drop},
		{"IPv6 is off", func(s *State) { s.Settings.IPv6 = false }, icmp6("cali1", "fe80::1", "fe80::2", 135), Drop},
		{"a cut flow", nil, cut(packet("eth0", "cali4", "1.1.1.1", "10.0.0.4", UDP, 80)), Drop},
		{"a cut connection", nil, cut(packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", TCP, 80)), Reset},
		{"a cut connection to the host", nil, cut(packet("cali1", "", "10.0.0.1", "192.168.0.1", TCP, 80)), Reset},
		{"a cut connection with another's source", nil, cut(packet("cali1", "cali2", "10.0.0.9", "10.0.0.2", TCP, 80)), Drop},
		{"a cut flow from the host", nil, cut(packet("", "cali4", "192.168.0.1", "10.0.0.4", TCP, 80)), Accept},
		{"deny by Reject", func(s *State) { s.Settings.FilterDeny = Reject }, packet("cali1", "cali4", "10.0.0.1", "10.0.0.4", TCP, 80), Reject},
		{"allow by Return", func(s *State) { s.Settings.FilterAllow = Return }, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", TCP, 80), Return},
	} {
		s := node()
		if c.change != nil {
			c.change(s)
		}
		if got := Eval(s, c.p); got.Verdict != c.want {
			t.Errorf("%s: %v (%s), want %v; steps %+v", c.name, got.Verdict, got.Reason, c.want, got.Steps)
		}
	}
}

func TestEvalMasquerade(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Packet
		want bool
	}{
		{"out of the pools", packet("cali1", "eth0", "10.0.0.1", "1.1.1.1", TCP, 80), true},
		{"within the pools", packet("cali1", "eth0", "10.0.0.1", "10.8.0.1", TCP, 80), false},
		{"dropped", packet("cali4", "eth0", "10.0.0.4", "1.1.1.1", TCP, 80), false},
		{"another's", packet("eth0", "eth1", "1.1.1.1", "2.2.2.2", TCP, 80), false},
		{"host's own address into the tunnel", packet("", DeviceVXLAN, "192.168.0.1", "10.8.0.1", TCP, 80), true},
		{"the tunnel's address into the tunnel", packet("", DeviceVXLAN, "10.0.0.64", "10.8.0.1", TCP, 80), false},
		{"a pod's packet into the tunnel", packet("cali1", DeviceVXLAN, "10.0.0.1", "10.8.0.1", TCP, 80), false},
	} {
		if got := Eval(node(), c.p); got.Masquerade != c.want {
			t.Errorf("%s: masquerade %v, want %v", c.name, got.Masquerade, c.want)
		}
	}
}

func TestEvalSteps(t *testing.T) {
	s := node()
	got := Eval(s, packet("cali1", "cali2", "10.0.0.1", "10.0.0.2", UDP, 53)).Steps
	web, tail := s.Endpoints["cali2"].Ingress[0].Policies[0], s.Endpoints["cali2"].Ingress[1].Policies[0]
	want := []Step{
		{Endpoint: "cali1", Policy: s.Endpoints["cali1"].Profiles[0], Action: Allow, Matched: true},
		{Endpoint: "cali2", Ingress: true, Tier: "default", Policy: web, Rule: 0, Action: Log, Matched: true},
		{Endpoint: "cali2", Ingress: true, Tier: "default", Policy: web, Rule: 1, Action: Deny, Unmet: "protocol"},
		{Endpoint: "cali2", Ingress: true, Tier: "default", Policy: web, Rule: 2, Action: Allow, Unmet: "protocol"},
		{Endpoint: "cali2", Ingress: true, Tier: "default", Policy: web, Rule: 3, Action: Pass, Matched: true},
		{Endpoint: "cali2", Ingress: true, Tier: "last", Policy: tail, Rule: 0, Action: Allow, Matched: true},
	}
	if len(got) != len(want) {
		t.Fatalf("%d steps, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("step %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// Each condition of a rule alone: a packet that meets it, and what is said of one that does not.
func TestEvalUnmet(t *testing.T) {
	const a, b, ports SetID = "s:a", "s:b", "n:p"
	net := func(s ...string) (ns []netip.Prefix) {
		for _, x := range s {
			ns = append(ns, netip.MustParsePrefix(x))
		}
		return ns
	}
	tcp := packet("eth0", "cali1", "10.0.0.1", "10.0.0.2", TCP, 80)
	sctp := tcp
	sctp.Protocol = SCTP
	ping := packet("eth0", "cali1", "10.0.0.1", "10.0.0.2", ICMP4, 0)
	ping.Type, ping.Code = 8, 3
	fragment := tcp
	fragment.Fragment = true
	wide := []PortRange{{1, 65535}}
	for _, c := range []struct {
		rule  Rule
		p     Packet
		unmet Condition
		sets  []SetID
	}{
		{Rule{}, tcp, "", nil},
		{Rule{Family: 4, Protocol: TCP, NotProtocol: UDP}, tcp, "", nil},
		{Rule{Family: 6, Protocol: UDP}, tcp, "ipVersion", nil},
		{Rule{Protocol: UDP, NotProtocol: TCP}, tcp, "protocol", nil},
		{Rule{NotProtocol: TCP}, tcp, "notProtocol", nil},
		{Rule{ICMP: &ICMP{Type: 8}}, ping, "", nil},
		{Rule{ICMP: &ICMP{Type: 8, Code: 4, HasCode: true}}, ping, "icmp", nil},
		{Rule{ICMP: &ICMP{Type: 0}}, tcp, "icmp", nil},
		{Rule{NotICMP: &ICMP{Type: 8, Code: 4, HasCode: true}}, ping, "", nil},
		{Rule{NotICMP: &ICMP{Type: 8}}, ping, "notICMP", nil},
		{Rule{NotICMP: &ICMP{Type: 0}}, tcp, "notICMP", nil},
		{Rule{Src: Peer{Nets: net("192.0.2.0/24", "10.0.0.0/31")}}, tcp, "", nil},
		{Rule{Src: Peer{Nets: net("192.0.2.0/24", "::/0")}}, tcp, "source.nets", nil},
		{Rule{Src: Peer{NotNets: net("10.0.0.0/31")}}, tcp, "source.notNets", nil},
		{Rule{Dst: Peer{NotNets: net("10.0.0.0/31")}}, tcp, "", nil},
		{Rule{Src: Peer{Sets: []SetID{a, b}}}, tcp, "", []SetID{a, b}},
		{Rule{Src: Peer{Sets: []SetID{b}}, Dst: Peer{Sets: []SetID{a}}}, tcp, "", []SetID{b, a}},
		{Rule{Dst: Peer{Sets: []SetID{a, b, "s:none"}}}, tcp, "destination.sets", []SetID{b}},
		{Rule{Dst: Peer{NotSets: []SetID{b, "s:none"}}}, tcp, "", nil},
		{Rule{Src: Peer{Sets: []SetID{a}, NotSets: []SetID{"s:none", b}}}, tcp, "source.notSets", []SetID{b}},
		{Rule{Dst: Peer{Ports: []PortRange{{79, 79}, {80, 80}}}}, tcp, "", nil},
		{Rule{Dst: Peer{Ports: []PortRange{{79, 79}}}}, tcp, "destination.ports", nil},
		{Rule{Dst: Peer{Ports: []PortRange{{79, 79}}, PortSets: []SetID{"n:none", ports}}}, tcp, "", []SetID{ports}},
		{Rule{Dst: Peer{PortSets: []SetID{ports}}}, sctp, "destination.ports", nil},
		{Rule{Src: Peer{Ports: wide}}, fragment, "source.ports", nil},
		{Rule{Src: Peer{NotPorts: []PortRange{{1, 1}}}}, fragment, "source.notPorts", nil},
		{Rule{Src: Peer{NotPorts: []PortRange{{1, 1}}}}, ping, "source.notPorts", nil},
		{Rule{Dst: Peer{NotPorts: []PortRange{{81, 90}, {80, 80}}}}, tcp, "destination.notPorts", nil},
		{Rule{Dst: Peer{Ports: wide, NotPortSets: []SetID{"n:none", ports}}}, tcp, "destination.notPorts", []SetID{ports}},
	} {
		s := NewState()
		id := PolicyID{Kind: "Profile", Name: "p"}
		c.rule.Action = Allow
		s.Policies[id] = &Policy{ID: id, Ingress: []Rule{c.rule}}
		s.Endpoints["cali1"] = &Endpoint{Interface: "cali1", Addrs: []netip.Addr{c.p.Dst}, Profiles: []PolicyID{id}}
		s.Sets[a] = Members{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}: {}}
		s.Sets[b] = Members{{Prefix: netip.MustParsePrefix("10.0.0.1/32")}: {}}
		s.Sets[ports] = Members{{Prefix: netip.MustParsePrefix("10.0.0.2/32"), Protocol: TCP, Port: 80}: {}}
		got := Eval(s, c.p).Steps
		if len(got) != 1 {
			t.Fatalf("%+v: steps %+v, want one", c.rule, got)
		}
		if got[0].Unmet != c.unmet || got[0].Matched != (c.unmet == "") || !slices.Equal(got[0].Sets, c.sets) {
			t.Errorf("%+v: matched %v, unmet %q, sets %q; want %q, %q", c.rule, got[0].Matched, got[0].Unmet, got[0].Sets, c.unmet, c.sets)
		}
	}
}
