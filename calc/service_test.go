package calc

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

func endpointSlice(namespace, name, service string, ports []api.SlicePort, addrs ...string) *api.EndpointSlice {
	o := &api.EndpointSlice{Meta: api.Named(api.KindEndpointSlice, namespace, name)}
	o.AddressType = api.AddressIPv4
	if strings.Contains(addrs[0], ":") {
		o.AddressType = api.AddressIPv6
	}
	o.Labels = map[string]string{api.LabelServiceName: service}
	for i, a := range addrs {
		o.Endpoints = append(o.Endpoints, api.SliceEndpoint{Addresses: []string{a}, Conditions: api.EndpointConditions{Ready: new(i%2 == 0)}})
	}
	o.Ports = ports
	return o
}

func dnsPorts() []api.SlicePort {
	return []api.SlicePort{{Name: "dns", Protocol: "UDP", Port: new(uint16(53))}, {Name: "dns-tcp", Port: new(uint16(53))}, {Name: "any"}}
}

const servicePolicy = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: ns, name: g}
spec:
  types: [Ingress, Egress]
  ingress: [{action: Allow, source: {services: {name: dns}}}]
  egress: [{action: Allow, destination: {services: {name: dns}}}]
`

// As a source a service is the addresses of its slices; as a destination these, with the
// protocols and ports of their slice. Endpoints that are not ready count, as upstream has it.
func TestServices(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1", "fd00::1")
	c.yaml(t, servicePolicy)
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: "g"}
	members := func() (source, destination string) {
		s, _ := c.compute(t)
		p := s.Policies[id]
		return membersText(s.Sets[p.Ingress[0].Src.Sets[0]]), membersText(s.Sets[p.Egress[0].Dst.PortSets[0]])
	}
	src, dst := members()
	equal(t, "a service that is not there", src+"|"+dst, "|")
	c.objects = append(c.objects,
		endpointSlice("ns", "dns-1", "dns", dnsPorts(), "10.0.1.1", "10.0.1.2"),
		endpointSlice("ns", "dns-2", "dns", dnsPorts()[:1], "10.0.1.1", "10.0.1.3"),
		endpointSlice("ns", "dns-6", "dns", dnsPorts()[:1], "fd00::53"),
		endpointSlice("other", "dns-1", "dns", dnsPorts(), "10.0.9.1"),
		endpointSlice("ns", "web-1", "web", dnsPorts(), "10.0.9.2"),
		endpointSlice("ns", "none", "", dnsPorts(), "10.0.9.3"))
	mapped := endpointSlice("ns", "dns-m", "dns", dnsPorts()[:1], "::ffff:10.0.1.4")
	c.objects = append(c.objects, mapped)
	names := endpointSlice("ns", "dns-n", "dns", dnsPorts(), "10.0.9.4")
	names.AddressType = api.AddressFQDN
	c.objects = append(c.objects, names)
	src, dst = members()
	equal(t, "addresses", src, "10.0.1.1/32 10.0.1.2/32 10.0.1.3/32 10.0.1.4/32 fd00::53/128")
	equal(t, "triples", dst, "10.0.1.1,17:53 10.0.1.1,6:53 10.0.1.2,17:53 10.0.1.2,6:53 10.0.1.3,17:53 10.0.1.4,17:53 fd00::53,17:53")

	s, _ := c.compute(t)
	packet := dataplane.Packet{In: "calip", Out: "eth0", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.1.2"), Protocol: dataplane.TCP, DstPort: 53}
	for _, test := range []struct {
		protocol dataplane.Protocol
		port     uint16
		want     dataplane.Verdict
	}{{dataplane.TCP, 53, dataplane.Accept}, {dataplane.UDP, 53, dataplane.Accept}, {dataplane.SCTP, 53, dataplane.Drop}, {dataplane.TCP, 54, dataplane.Drop}} {
		packet.Protocol, packet.DstPort = test.protocol, test.port
		equal(t, "verdict", dataplane.Eval(s, packet).Verdict, test.want)
	}
}

// An address in two slices stays until both are without it; a slice that goes over to another
// service takes its addresses along.
func TestServiceChanges(t *testing.T) {
	g := New("node1")
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	g.PutAttachment(c.attachments[0])
	c.yaml(t, servicePolicy)
	g.Put(c.objects[1])
	one := endpointSlice("ns", "dns-1", "dns", dnsPorts()[:1], "10.0.1.1", "10.0.1.2")
	g.Put(one)
	g.Put(endpointSlice("ns", "dns-2", "dns", dnsPorts()[:1], "10.0.1.1"))
	s := dataplane.NewState()
	flush := func() string {
		s.Apply(g.Flush())
		return membersText(s.Sets[serviceSet(service{"ns", "dns"}, false).id]) + "|" + membersText(s.Sets[serviceSet(service{"ns", "dns"}, true).id])
	}
	equal(t, "both", flush(), "10.0.1.1/32 10.0.1.2/32|10.0.1.1,17:53 10.0.1.2,17:53")
	moved := api.Clone(one)
	moved.Labels[api.LabelServiceName] = "web"
	g.Put(moved)
	equal(t, "one goes over", flush(), "10.0.1.1/32|10.0.1.1,17:53")
	g.Put(one)
	g.Remove(store.Key{Kind: kindSlice, Namespace: "ns", Name: "dns-2"})
	equal(t, "and back, the other is gone", flush(), "10.0.1.1/32 10.0.1.2/32|10.0.1.1,17:53 10.0.1.2,17:53")
	g.Remove(store.KeyOf(one))
	equal(t, "none is left", flush(), "|")
	g.Remove(store.KeyOf(c.objects[1]))
	g.Flush()
	if n := len(g.services.sets) + len(g.services.slices); n != 0 {
		t.Errorf("%d services are remembered, want none", n)
	}
}

// A slice that cannot be read in part is told of.
func TestSliceProblems(t *testing.T) {
	o := endpointSlice("ns", "x", "s", []api.SlicePort{{Protocol: "ICMP", Port: new(uint16(1))}}, "10.0.0.1", "nonsense")
	l, ps := readSlice(o)
	equal(t, "problems", len(ps), 2)
	equal(t, "ports", len(l.ports), 0)
}

// IPv6 that is turned on or off brings or takes the addresses of slices and network sets.
func TestIPv6ComesAndGoes(t *testing.T) {
	g := New("node1")
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	g.PutAttachment(c.attachments[0])
	c.yaml(t, servicePolicy)
	c.yaml(t, setsOfEachKind)
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow, source: {selector: role == 'db'}}]}\n")
	c.objects = append(c.objects, endpointSlice("ns", "dns-6", "dns", dnsPorts()[:1], "fd00::53"), endpointSlice("ns", "dns-4", "dns", dnsPorts()[:1], "10.0.1.1"))
	for _, o := range c.objects {
		g.Put(o)
	}
	s := dataplane.NewState()
	for _, on := range []string{"true", "false", "true"} {
		var felix contents
		felix.yaml(t, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {ipv6Support: "+on+"}\n")
		g.Put(felix.objects[0])
		s.Apply(g.Flush())
		want := Compute("node1", nil, append(felix.objects, c.objects...), c.attachments)
		if diff := diffStates(want, s); diff != "" {
			t.Fatalf("ipv6Support %s: Compute (-) and the sum of Deltas (+) differ:\n%s", on, diff)
		}
	}
}
