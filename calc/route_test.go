package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// cluster is three nodes, of which node3 is in another subnet, each with a block in both
// families, and one pod on node1.
func cluster(t *testing.T, pool string) *contents {
	var c contents
	c.yaml(t, `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.10.0.0/16, natOutgoing: true, `+pool+`}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v6}
spec: {cidr: 'fd10::/48', `+strings.Replace(pool, "ipipMode", "vxlanMode", 1)+`}
`)
	for i := 1; i <= 3; i++ {
		subnet := 0
		if i == 3 {
			subnet = 1
		}
		c.yaml(t, fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node%[1]d}
spec:
  bgp: {ipv4Address: 192.168.%[2]d.%[1]d/24, ipv6Address: 'fd01:%[2]d::%[1]d/64', ipv4IPIPTunnelAddr: 10.10.%[1]d.1}
  ipv4VXLANTunnelAddr: 10.10.%[1]d.0
  ipv6VXLANTunnelAddr: 'fd10::%[1]d:0'
`, i, subnet))
		for _, cidr := range []string{fmt.Sprintf("10.10.%d.0/26", i), fmt.Sprintf("fd10::%d:0/122", i)} {
			c.block(cidr, fmt.Sprintf("host:node%d", i))
		}
	}
	c.pod("ns", "p", "", "10.10.1.5", "fd10::1:5")
	return &c
}

// block adds a block. away are addresses in use elsewhere: "ordinal:node".
func (c *contents) block(cidr, affinity string, away ...string) *api.IPAMBlock {
	b := &api.IPAMBlock{Meta: api.Named(api.KindIPAMBlock, "", strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr))}
	b.Spec.CIDR = cidr
	if affinity != "" {
		b.Spec.Affinity = &affinity
	}
	b.Spec.Allocations = make([]*int, 64)
	for i, a := range away {
		var ord int
		var node string
		fmt.Sscanf(strings.Replace(a, ":", " ", 1), "%d %s", &ord, &node)
		b.Spec.Allocations[ord] = new(i)
		b.Spec.Attributes = append(b.Spec.Attributes, api.AllocAttributes{Secondary: map[string]string{api.AttrNode: node}})
	}
	c.objects = append(c.objects, b)
	return b
}

func (c *contents) configure(t *testing.T, spec string) *contents {
	return c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {"+spec+"}\n")
}

// routesText shows routes as `ip route` does, sorted.
func routesText(s *dataplane.State) []string {
	var all []string
	for p, r := range s.Routes {
		switch r.Kind {
		case dataplane.RouteWorkload:
			all = append(all, fmt.Sprintf("%v dev %s", p, r.Device))
		case dataplane.RouteTunnel:
			all = append(all, fmt.Sprintf("%v via %v dev %s", p, r.Gateway, r.Device))
		case dataplane.RouteDirect:
			all = append(all, fmt.Sprintf("%v via %v", p, r.Gateway))
		case dataplane.RouteBlackhole:
			all = append(all, fmt.Sprintf("blackhole %v", p))
		}
	}
	slices.Sort(all)
	return all
}

var own = []string{"10.10.1.5/32 dev calip", "blackhole 10.10.1.0/26", "blackhole fd10::1:0/122", "fd10::1:5/128 dev calip"}

func withOwn(routes ...string) []string {
	all := append(slices.Clone(own), routes...)
	slices.Sort(all)
	return all
}

func TestRoutesByPoolMode(t *testing.T) {
	direct := []string{"10.10.2.0/26 via 192.168.0.2", "10.10.3.0/26 via 192.168.1.3", "fd10::2:0/122 via fd01::2", "fd10::3:0/122 via fd01:1::3"}
	vxlan := []string{"10.10.2.0/26 via 10.10.2.0 dev vxlan.calico", "10.10.3.0/26 via 10.10.3.0 dev vxlan.calico",
		"fd10::2:0/122 via fd10::2:0 dev vxlan-v6.calico", "fd10::3:0/122 via fd10::3:0 dev vxlan-v6.calico"}
	ipip := append([]string{"10.10.2.0/26 via 192.168.0.2 dev tunl0", "10.10.3.0/26 via 192.168.1.3 dev tunl0"}, vxlan[2:]...)
	for _, test := range []struct {
		name, pool, config string
		want, devices      []string
	}{
		{"VXLAN", "vxlanMode: Always", "", vxlan, []string{"vxlan-v6.calico", "vxlan.calico"}},
		{"VXLAN is the agent's whatever programClusterRoutes says", "vxlanMode: Always", "programClusterRoutes: Disabled", vxlan, []string{"vxlan-v6.calico", "vxlan.calico"}},
		{"VXLAN between subnets", "vxlanMode: CrossSubnet", "", []string{direct[0], vxlan[1], direct[2], vxlan[3]}, []string{"vxlan-v6.calico", "vxlan.calico"}},
		{"VXLAN in IPv4 only", "vxlanMode: Always", "ipv6Support: false", vxlan[:2], []string{"vxlan.calico"}},
		{"IPIP", "ipipMode: Always", "", ipip, []string{"tunl0", "vxlan-v6.calico"}},
		{"IPIP between subnets", "ipipMode: CrossSubnet", "", []string{direct[0], ipip[1], direct[2], vxlan[3]}, []string{"tunl0", "vxlan-v6.calico"}},
		{"IPIP left to BGP", "ipipMode: Always", "programClusterRoutes: EnabledNoEncapOnly", vxlan[2:], []string{"tunl0", "vxlan-v6.calico"}},
		{"none left to BGP, as is the default", "vxlanMode: Never", "", nil, nil},
		{"none", "vxlanMode: Never", "programClusterRoutes: Enabled", direct, nil},
		{"a disabled pool's pods go on", "vxlanMode: Always, disabled: true", "", vxlan, []string{"vxlan-v6.calico", "vxlan.calico"}},
		{"VXLAN switched off", "vxlanMode: Always", "vxlanEnabled: false", nil, nil},
	} {
		c := cluster(t, test.pool)
		if test.config != "" {
			c.configure(t, test.config)
		}
		s, _ := c.compute(t)
		want := withOwn(test.want...)
		if strings.Contains(test.config, "ipv6Support") {
			want = slices.DeleteFunc(want, func(r string) bool { return strings.Contains(r, "fd10") })
		}
		equal(t, test.name, routesText(s), want)
		equal(t, test.name+": devices", slices.Sorted(maps.Keys(s.Tunnels)), test.devices)
	}
}

func TestTunnelsAndTheirFarEnds(t *testing.T) {
	c := cluster(t, "vxlanMode: Always").configure(t, "vxlanMTU: 1410, vxlanVNI: 5000")
	s, ps := c.compute(t)
	equal(t, "problems", len(ps), 1) // the pod's profile
	equal(t, "tunnel", s.Tunnels["vxlan.calico"], dataplane.Tunnel{
		Encap: dataplane.VXLAN, Family: 4, Addr: netip.MustParseAddr("10.10.1.0"), Underlay: netip.MustParseAddr("192.168.0.1"),
		MAC: "66:f9:37:c3:7e:94", VNI: 5000, Port: 4789, MTU: 1410})
	equal(t, "far ends", len(s.VTEPs), 4)
	equal(t, "a far end", s.VTEPs[dataplane.VTEPKey{Device: "vxlan-v6.calico", Node: "node3"}], dataplane.VTEP{
		Underlay: netip.MustParseAddr("fd01:1::3"), Addr: netip.MustParseAddr("fd10::3:0"), MAC: tunnelMAC("", "node3-v6")})
	equal(t, "nodes", membersText(s.Sets[dataplane.SetNodes]), "192.168.0.2/32 192.168.1.3/32 fd01:1::3/128 fd01::2/128")
	equal(t, "pools", membersText(s.Sets[dataplane.SetAllPools]), "10.10.0.0/16 fd10::/48")
	equal(t, "pools with natOutgoing", membersText(s.Sets[dataplane.SetMasqPools]), "10.10.0.0/16")
}

func TestIPIPTunnel(t *testing.T) {
	tunl0 := dataplane.Tunnel{Encap: dataplane.IPIP, Family: 4, Addr: netip.MustParseAddr("10.10.1.1"), Underlay: netip.MustParseAddr("192.168.0.1")}
	c := cluster(t, "ipipMode: CrossSubnet")
	s, ps := c.compute(t)
	equal(t, "problems", len(ps), 1) // the pod's profile
	equal(t, "tunnel", s.Tunnels["tunl0"], tunl0)
	// All nodes are far ends, those of the own subnet too: packets from them are taken.
	equal(t, "a far end", s.VTEPs[dataplane.VTEPKey{Device: "tunl0", Node: "node3"}], dataplane.VTEP{
		Underlay: netip.MustParseAddr("192.168.1.3"), Addr: netip.MustParseAddr("192.168.1.3")})
	equal(t, "another", s.VTEPs[dataplane.VTEPKey{Device: "tunl0", Node: "node2"}].Underlay, netip.MustParseAddr("192.168.0.2"))

	tunl0.MTU = 1400
	s, _ = cluster(t, "ipipMode: Always").configure(t, "ipipMTU: 1400").compute(t)
	equal(t, "with its MTU set", s.Tunnels["tunl0"], tunl0)
	s, _ = cluster(t, "ipipMode: Always").configure(t, "ipipEnabled: false").compute(t)
	equal(t, "switched off: devices", len(s.Tunnels), 1) // VXLAN's of IPv6
	s = Compute("node1", []config.Layer{layer("IPINIPENABLED", "true"), layer("IPINIPMTU", "1300")}, cluster(t, "vxlanMode: Never").objects, nil)
	tunl0.MTU = 1300
	equal(t, "switched on though no pool asks for it", s.Tunnels["tunl0"], tunl0)
}

// Pools of both encapsulations, and of none, live side by side: each block goes by its
// pool's, whichever node it is on.
func TestMixedPools(t *testing.T) {
	c := cluster(t, "ipipMode: Always").configure(t, "programClusterRoutes: Enabled")
	c.yaml(t, `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4-vxlan}
spec: {cidr: 10.11.0.0/16, vxlanMode: CrossSubnet}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4-none}
spec: {cidr: 10.12.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4-ipip-in-vxlan}
spec: {cidr: 10.11.7.0/24, ipipMode: CrossSubnet}
`)
	for _, third := range []int{0, 7} {
		c.block(fmt.Sprintf("10.11.%d.0/26", third), "host:node2")
		c.block(fmt.Sprintf("10.11.%d.64/26", third), "host:node3", "1:node2")
	}
	c.block("10.12.0.0/26", "host:node3")
	s, _ := c.compute(t)
	var got []string
	for _, r := range routesText(s) {
		if !strings.Contains(r, "fd10") && !strings.Contains(r, "10.10.1.") {
			got = append(got, r)
		}
	}
	equal(t, "routes", got, []string{
		"10.10.2.0/26 via 192.168.0.2 dev tunl0",
		"10.10.3.0/26 via 192.168.1.3 dev tunl0",
		"10.11.0.0/26 via 192.168.0.2",
		"10.11.0.64/26 via 10.10.3.0 dev vxlan.calico",
		"10.11.0.65/32 via 192.168.0.2",
		"10.11.7.0/26 via 192.168.0.2",
		"10.11.7.64/26 via 192.168.1.3 dev tunl0",
		"10.11.7.65/32 via 192.168.0.2",
		"10.12.0.0/26 via 192.168.1.3",
	})
	equal(t, "devices", slices.Sorted(maps.Keys(s.Tunnels)), []string{"tunl0", "vxlan-v6.calico", "vxlan.calico"})
}

// IPIP needs the node's own addresses, and no tunnel address at either end: a node that
// lacks one has pods that speak, and a Problem.
func TestIPIPWithoutTunnelAddress(t *testing.T) {
	c := cluster(t, "ipipMode: Always")
	for _, n := range objectsByName[*api.Node](c) {
		n.Spec.BGP.IPv4IPIPTunnelAddr = ""
	}
	s, ps := c.compute(t)
	equal(t, "routes", routesText(s)[0], "10.10.1.5/32 dev calip")
	equal(t, "routes", routesText(s)[1], "10.10.2.0/26 via 192.168.0.2 dev tunl0")
	equal(t, "tunnel", s.Tunnels["tunl0"], dataplane.Tunnel{Encap: dataplane.IPIP, Family: 4, Underlay: netip.MustParseAddr("192.168.0.1")})
	if !slices.ContainsFunc(ps, func(p string) bool { return strings.HasPrefix(p, "Node(node1): NoTunnel: tunl0 has no address") }) {
		t.Errorf("problems %q do not say it", ps)
	}
	// Switched on without a pool there is none to have, and that is no problem.
	_, ps = cluster(t, "vxlanMode: Never").configure(t, "ipipEnabled: true").compute(t)
	if slices.ContainsFunc(ps, func(p string) bool { return strings.Contains(p, "NoTunnel") }) {
		t.Errorf("problems %q", ps)
	}
}

// A Node resource that somebody wrote without its tunnel addresses takes nothing away: IPAM
// says what they are. What the Node resource says comes first; of several the least counts.
func TestTunnelAddressesByIPAM(t *testing.T) {
	for _, mode := range []string{"vxlanMode: Always", "ipipMode: Always"} {
		whole, _ := cluster(t, mode).compute(t)
		c := cluster(t, mode)
		held := func(cidr string, kinds map[int]string, node string) {
			b := c.block(cidr, "")
			for ord, kind := range kinds {
				i := len(b.Spec.Attributes)
				b.Spec.Allocations[ord] = &i
				b.Spec.Attributes = append(b.Spec.Attributes, api.AllocAttributes{Secondary: map[string]string{api.AttrNode: node, api.AttrType: kind}})
			}
		}
		c.objects = slices.DeleteFunc(c.objects, func(o api.Object) bool { _, ok := o.(*api.IPAMBlock); return ok })
		for i := 1; i <= 3; i++ {
			node := fmt.Sprintf("node%d", i)
			held(fmt.Sprintf("10.10.%d.0/26", i), map[int]string{0: "vxlanTunnelAddress", 1: "ipipTunnelAddress", 2: "ipipTunnelAddress", 3: "vxlanTunnelAddress", 4: ""}, node)
			held(fmt.Sprintf("fd10::%d:0/122", i), map[int]string{0: "vxlanV6TunnelAddress", 1: "vxlanTunnelAddress"}, node)
		}
		for name, n := range objectsByName[*api.Node](c) {
			n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr = "", ""
			if n.Spec.BGP.IPv4IPIPTunnelAddr = ""; name == "node3" {
				n.Spec.IPv4VXLANTunnelAddr = "10.10.3.9"
				whole.VTEPs[dataplane.VTEPKey{Device: "vxlan.calico", Node: "node3"}] = dataplane.VTEP{
					Underlay: netip.MustParseAddr("192.168.1.3"), Addr: netip.MustParseAddr("10.10.3.9"), MAC: tunnelMAC("", "node3")}
			}
		}
		s, ps := c.compute(t)
		equal(t, mode+": tunnels", s.Tunnels, whole.Tunnels)
		for k, v := range s.VTEPs {
			equal(t, fmt.Sprintf("%s: far end %v", mode, k), v, whole.VTEPs[k])
		}
		if len(s.VTEPs) != 4 || slices.ContainsFunc(ps, func(p string) bool { return strings.Contains(p, "NoTunnel") }) {
			t.Errorf("%s: %d far ends, problems %q", mode, len(s.VTEPs), ps)
		}
	}
}

// What IPAM holds for a node may change, and be in two blocks that overlap.
func TestTunnelAddressesByIPAMChange(t *testing.T) {
	c := cluster(t, "vxlanMode: Always")
	for _, n := range objectsByName[*api.Node](c) {
		n.Spec.IPv4VXLANTunnelAddr = ""
	}
	g, state := New("node1"), dataplane.NewState()
	for _, o := range c.objects {
		g.Put(o)
	}
	put := func(cidr string, ords ...int) {
		b := c.block(cidr, "host:node1")
		for _, ord := range ords {
			b.Spec.Allocations[ord] = new(0)
		}
		b.Spec.Attributes = []api.AllocAttributes{{Secondary: map[string]string{api.AttrNode: "node1", api.AttrType: "vxlanTunnelAddress"}}}
		g.Put(b)
	}
	for i, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, ""},
		{func() { put("10.10.1.0/26", 5) }, "10.10.1.5"},
		{func() { put("10.10.1.0/26", 5, 3) }, "10.10.1.3"},
		{func() { put("10.10.1.0/27", 3, 5) }, "10.10.1.3"},
		{func() { put("10.10.1.0/26") }, "10.10.1.3"},
		{func() { put("10.10.1.0/27", 5) }, "10.10.1.5"},
		{func() { put("10.10.1.0/27") }, ""},
	} {
		step.do()
		state.Apply(g.Flush())
		got := ""
		if tunnel, ok := state.Tunnels["vxlan.calico"]; ok {
			got = tunnel.Addr.String()
		}
		equal(t, fmt.Sprintf("step %d", i), got, step.want)
	}
}

func objectsByName[T api.Object](c *contents) map[string]T {
	m := map[string]T{}
	for _, o := range c.objects {
		if t, ok := o.(T); ok {
			m[o.GetName()] = t
		}
	}
	return m
}

// An address in use away from its block's node has a route of its own.
func TestBorrowedAddresses(t *testing.T) {
	c := cluster(t, "vxlanMode: Always")
	c.objects = slices.DeleteFunc(c.objects, func(o api.Object) bool { _, ok := o.(*api.IPAMBlock); return ok })
	c.block("10.10.1.0/26", "host:node1", "7:node2", "8:node1")
	c.block("10.10.2.0/26", "host:node2", "7:node3", "8:node1", "9:node2")
	c.block("10.10.4.0/26", "", "1:node2", "2:node1") // nobody's
	c.block("10.10.5.0/26", "virtual:load-balancer", "1:node3")
	rests := c.block("10.10.3.0/26", "host:node3", "7:node2")
	rests.Spec.Attributes[0].ReleasedAt = new(rests.CreationTimestamp)
	s, _ := c.compute(t)
	equal(t, "routes", routesText(s), []string{
		"10.10.1.5/32 dev calip",
		"10.10.1.7/32 via 10.10.2.0 dev vxlan.calico",
		"10.10.2.0/26 via 10.10.2.0 dev vxlan.calico",
		"10.10.2.7/32 via 10.10.3.0 dev vxlan.calico",
		"10.10.3.0/26 via 10.10.3.0 dev vxlan.calico",
		"10.10.4.1/32 via 10.10.2.0 dev vxlan.calico",
		"10.10.5.1/32 via 10.10.3.0 dev vxlan.calico",
		"blackhole 10.10.1.0/26",
		"fd10::1:5/128 dev calip",
	})
}

// A node without the address that its routes need gets none, and a Problem.
func TestNodesWithoutAddresses(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(map[string]*api.Node)
		lost    string
		problem string
	}{
		{"no node", func(m map[string]*api.Node) { m["node2"].Name = "other" }, "10.10.2.", "Node(node2): NoNodeAddress: there is no such node"},
		{"no tunnel address", func(m map[string]*api.Node) { m["node2"].Spec.IPv4VXLANTunnelAddr = "" }, "10.10.2.", "Node(node2): NoNodeAddress: no IPv4 tunnel address"},
		{"no address", func(m map[string]*api.Node) { m["node2"].Spec.BGP.IPv4Address = "" }, "10.10.2.", "Node(node2): NoNodeAddress: spec.bgp has no IPv4 address"},
		{"this node has no tunnel address", func(m map[string]*api.Node) { m["node1"].Spec.IPv6VXLANTunnelAddr = "" }, "fd10::2:", "Node(node1): NoTunnel: no vxlan-v6.calico device"},
		{"this node has no address", func(m map[string]*api.Node) { m["node1"].Spec.BGP = nil }, "10.10.2.", "Node(node1): NoTunnel: no vxlan.calico device: this node's spec.bgp has no IPv4 address"},
	} {
		c := cluster(t, "vxlanMode: Always")
		test.change(objectsByName[*api.Node](c))
		s, ps := c.compute(t)
		if i := slices.IndexFunc(routesText(s), func(r string) bool { return strings.HasPrefix(r, test.lost) }); i >= 0 {
			t.Errorf("%s: there is a route %s", test.name, routesText(s)[i])
		}
		if !slices.ContainsFunc(ps, func(p string) bool { return strings.HasPrefix(p, test.problem) }) {
			t.Errorf("%s: problems %q do not say %q", test.name, ps, test.problem)
		}
		if !slices.Contains(routesText(s), own[0]) {
			t.Errorf("%s: the pod lost its route", test.name)
		}
	}
}

func TestOverlapsAreProblems(t *testing.T) {
	c := cluster(t, "vxlanMode: Always")
	c.block("10.10.2.0/28", "host:node3")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: small}\nspec: {cidr: 10.10.2.0/24}\n")
	_, ps := c.compute(t)
	for _, want := range []string{"IPAMBlock(10-10-2-0-28): OverlappingBlock: 10.10.2.0/28 shares addresses with IPAMBlock(10-10-2-0-26)", "IPPool(small): OverlappingPool"} {
		if !slices.ContainsFunc(ps, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Errorf("problems %q do not say %q", ps, want)
		}
	}
}

// Every pod that comes or goes in the cluster changes a block; that is no reason to
// compare all blocks with one another.
func TestOverlapsAreLookedForOnce(t *testing.T) {
	c := cluster(t, "vxlanMode: Always")
	g := New("node1")
	for _, o := range c.objects {
		g.Put(o)
	}
	g.Flush()
	g.Problems()
	b := c.block("10.10.2.0/26", "host:node2", "5:node3")
	g.Put(b)
	g.Flush()
	if g.fabric.overlaps == nil {
		t.Error("an address given out has all overlaps looked for again")
	}
	overlapping := func() bool {
		return slices.ContainsFunc(g.Problems(), func(p Problem) bool { return p.Reason == OverlappingBlock })
	}
	other := c.block("10.10.2.0/28", "host:node3")
	g.Put(other)
	g.Flush()
	if !overlapping() {
		t.Error("a block that overlaps another is no problem")
	}
	g.Remove(store.KeyOf(other))
	g.Flush()
	if overlapping() {
		t.Error("a block that is gone is still a problem")
	}
}

// The file and the environment win over the node's own settings, and those over the
// cluster's. A value that is refused is a Problem, and the built-in one holds.
func TestConfiguration(t *testing.T) {
	c := (&contents{}).configure(t, "logPrefix: cluster, vxlanPort: 1, defaultEndpointToHostAction: Nonsense")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: node.node1}\nspec: {logPrefix: node}\n")
	s, ps := c.compute(t)
	equal(t, "the node's own", s.Settings.LogPrefix, "node")
	equal(t, "the cluster's", s.Settings.VXLANPort, 1)
	equal(t, "refused", s.Settings.EndpointToHost, dataplane.Deny)
	if len(ps) != 1 || !strings.Contains(ps[0], "BadConfig") || !strings.Contains(ps[0], "Nonsense") {
		t.Errorf("problems %q do not name the refused value", ps)
	}
	s = Compute("node1", []config.Layer{layer("logPrefix", "local")}, c.objects, nil)
	equal(t, "local", s.Settings.LogPrefix, "local")
}

func layer(name, value string) config.Layer {
	return config.FromEnviron([]string{"FELIX_" + name + "=" + value})
}
