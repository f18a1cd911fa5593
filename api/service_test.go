package api

import (
	"strings"
	"testing"
)

func slice(typ AddressType, addresses ...string) *EndpointSlice {
	o := &EndpointSlice{Meta: Named(KindEndpointSlice, "prod", "db-1"), AddressType: typ}
	o.Labels = map[string]string{LabelServiceName: "db"}
	o.Endpoints = []SliceEndpoint{{Addresses: addresses}}
	o.Ports = []SlicePort{{Name: "sql", Port: new(uint16(5432))}, {}}
	return o
}

func service(ips ...string) *Service {
	return &Service{Meta: Named(KindService, "prod", "db"), Spec: ServiceSpec{ClusterIPs: ips, Ports: []ServicePort{{Port: 80}}}}
}

func TestServices(t *testing.T) {
	noType := slice("", "10.0.0.1")
	zero := slice(AddressIPv4, "10.0.0.1")
	zero.Ports[0].Port = new(uint16(0))
	icmp := service()
	icmp.Spec.Ports[0].Protocol = "ICMP"
	for _, c := range []struct {
		o    Object
		want string // empty: valid
	}{
		{service("10.96.0.1", "fd00::1"), ""},
		{service("None"), ""},
		{service("x"), "spec.clusterIPs[0]"},
		{icmp, "spec.ports[0].protocol"},
		{&Service{Meta: Named(KindService, "", "db")}, "metadata.namespace: Required value"},
		{&Service{Meta: Named(KindService, "prod", "a.b")}, "metadata.name"},
		{slice(AddressIPv4, "10.0.0.1", "10.0.0.2"), ""},
		{slice(AddressIPv6, "fd00::1"), ""},
		{slice(AddressFQDN, "example.org"), ""},
		{slice(AddressIPv4, "fd00::1"), "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address"},
		{slice(AddressIPv6, "10.0.0.1"), "must be an IPv6 address"},
		{slice(AddressIPv6, "::ffff:10.0.0.1"), "must be an IPv6 address"},
		{slice(AddressIPv6, "fe80::1%eth0"), "must be an IPv6 address"},
		{slice(AddressFQDN, "a b"), "endpoints[0].addresses[0]"},
		{slice(AddressIPv4), "endpoints[0].addresses: Required value"},
		{slice("IPv5", "10.0.0.1"), "addressType: Unsupported value"},
		{noType, "addressType: Required value"},
		{zero, "ports[0].port: Invalid value: 0"},
	} {
		c.o.Default()
		err := c.o.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v:\ngot  %v\nwant %s", c.o, err, c.want)
		}
	}
}

// Kubernetes' kinds are neither Calico's of that name, nor read in the reduced form.
func TestServicesAreKubernetes(t *testing.T) {
	if o := KindService.New(); o.GetObjectKind().GroupVersionKind().GroupVersion().String() != "v1" || KindService.APIVersion() != "v1" {
		t.Error(o)
	}
	s := slice(AddressIPv4, "10.0.0.1")
	s.Default()
	if s.ServiceName() != "db" || s.Ports[0].Protocol != "TCP" || s.Ports[1].Port != nil || s.APIVersion != "discovery.k8s.io/v1" {
		t.Errorf("%+v", s)
	}
	if s.Labels = nil; s.ServiceName() != "" {
		t.Error(s.ServiceName())
	}
	for _, apiVersion := range []string{GroupVersion, "v1"} {
		_, err := Decode([]byte("apiVersion: " + apiVersion + "\nkind: Service\nmetadata: {name: db}\n"))
		if err == nil || strings.Contains(strings.TrimPrefix(err.Error(), `line 2: unknown kind "Service"`), "Service") && apiVersion == GroupVersion {
			t.Error(err)
		}
	}
}
