package etcd

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

func ptr[T any](v T) *T { return &v }

// upstream is what upstream Calico has in etcd, and the object that it stands for.
var upstream = map[string]struct {
	path, body string
	want       api.Object
	asWritten  string // if we write it otherwise
}{
	"block": {
		path: "/calico/ipam/v2/assignment/ipv4/block/10.10.72.0-30",
		body: `{"cidr":"10.10.72.0/30","affinity":"host:node1","allocations":[0,null,0,1],"unallocated":[1],
			"attributes":[{"handle_id":"k8s-pod-network.0a1b","secondary":{"namespace":"default","node":"node1","pod":"busybox01","timestamp":"2024-05-01 12:00:00 +0000 UTC"}},
			              {"handle_id":null,"secondary":null,"releasedAt":"2024-05-01T12:00:00Z"}],
			"sequenceNumber":7,"sequenceNumberForAllocation":{"0":3,"2":6},"deleted":false}`,
		want: &api.IPAMBlock{Meta: named(api.KindIPAMBlock, "10-10-72-0-30"), Spec: api.IPAMBlockSpec{
			CIDR: "10.10.72.0/30", Affinity: ptr("host:node1"),
			Allocations: []*int{ptr(0), nil, ptr(0), ptr(1)}, Unallocated: []int{1},
			Attributes: []api.AllocAttributes{
				{HandleID: ptr("k8s-pod-network.0a1b"), Secondary: map[string]string{"namespace": "default", "node": "node1", "pod": "busybox01", "timestamp": "2024-05-01 12:00:00 +0000 UTC"}},
				{ReleasedAt: ptr(metav1.NewTime(time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)))},
			},
			SequenceNumber: 7, SequenceNumberForAllocation: map[string]uint64{"0": 3, "2": 6},
		}},
	},
	"block of no node": {
		path: "/calico/ipam/v2/assignment/ipv6/block/fd00:10::40-126",
		body: `{"cidr":"fd00:10::40/126","affinity":null,"affinity_claim_time":"2024-05-01T12:00:00Z","allocations":[null,null,null,null],"unallocated":[0,1,2,3],
			"attributes":[],"sequenceNumber":0,"sequenceNumberForAllocation":{},"deleted":true}`,
		want: &api.IPAMBlock{Meta: named(api.KindIPAMBlock, "fd00-10--40-126"), Spec: api.IPAMBlockSpec{
			CIDR: "fd00:10::40/126", AffinityClaimTime: ptr(metav1.NewTime(time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC))),
			Allocations: make([]*int, 4), Unallocated: []int{0, 1, 2, 3}, Attributes: []api.AllocAttributes{},
			SequenceNumberForAllocation: map[string]uint64{}, Deleted: true,
		}},
	},
	"block of old": {
		path: "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-32",
		body: `{"cidr":"10.0.0.0/32","hostAffinity":"node1","allocations":[null],"unallocated":[0],"attributes":[],"strictAffinity":true}`,
		want: &api.IPAMBlock{Meta: named(api.KindIPAMBlock, "10-0-0-0-32"), Spec: api.IPAMBlockSpec{
			CIDR: "10.0.0.0/32", Affinity: ptr("host:node1"), StrictAffinity: true,
			Allocations: []*int{nil}, Unallocated: []int{0}, Attributes: []api.AllocAttributes{},
		}},
		asWritten: `{"cidr":"10.0.0.0/32","affinity":"host:node1","strictAffinity":true,"allocations":[null],"unallocated":[0],"attributes":[],
			"sequenceNumber":0,"sequenceNumberForAllocation":null,"deleted":false}`,
	},
	"block of a newer version": {
		path: "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-32",
		body: `{"cidr":"10.0.0.0/32","affinity":null,"allocations":[null],"unallocated":[0],"attributes":[],"sequenceNumber":1,
			"sequenceNumberForAllocation":null,"deleted":false,"colour":{"of":["sky",1.50]}}`,
		want: &api.IPAMBlock{Meta: annotated(named(api.KindIPAMBlock, "10-0-0-0-32"), `{"colour":{"of":["sky",1.50]}}`), Spec: api.IPAMBlockSpec{
			CIDR: "10.0.0.0/32", SequenceNumber: 1,
			Allocations: []*int{nil}, Unallocated: []int{0}, Attributes: []api.AllocAttributes{},
		}},
	},
	"affinity": {
		path: "/calico/ipam/v2/host/node-1.example/ipv4/block/10.10.72.0-26",
		body: `{"state":"confirmed","deleted":false}`,
		want: &api.BlockAffinity{Meta: named(api.KindBlockAffinity, "node-1.example-10-10-72-0-26"), Spec: api.BlockAffinitySpec{
			State: api.AffinityConfirmed, Node: "node-1.example", Type: "host", CIDR: "10.10.72.0/26"}},
	},
	"affinity of IPv6, virtual": {
		path: "/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00:10::-122",
		body: `{"state":"pendingDeletion","deleted":true}`,
		want: &api.BlockAffinity{Meta: named(api.KindBlockAffinity, "load-balancer-fd00-10---122"), Spec: api.BlockAffinitySpec{
			State: api.AffinityPendingDeletion, Node: "load-balancer", Type: "virtual", CIDR: "fd00:10::/122", Deleted: true}},
	},
	"handle": {
		path: "/calico/ipam/v2/handle/a%2fb%25",
		body: `{"block":{"10.10.72.0/26":2},"deleted":false,"more":1}`,
		want: &api.IPAMHandle{Meta: annotated(named(api.KindIPAMHandle, "a/b%"), `{"more":1}`), Spec: api.IPAMHandleSpec{
			HandleID: "a/b%", Block: map[string]int{"10.10.72.0/26": 2}}},
	},
	"configuration": {
		path: "/calico/ipam/v2/config",
		body: `{"strict_affinity":true,"auto_allocate_blocks":false,"maxBlocksPerHost":5,"kubeVirtVMAddressPersistence":"Enabled","ipCooldownSeconds":0}`,
		want: &api.IPAMConfiguration{Meta: named(api.KindIPAMConfiguration, "default"), Spec: api.IPAMConfigurationSpec{
			StrictAffinity: true, AutoAllocateBlocks: ptr(false), MaxBlocksPerHost: 5, KubeVirtVMAddressPersistence: "Enabled", IPCooldownSeconds: ptr(0)}},
	},
	"pool": {
		path: "/calico/resources/v3/projectcalico.org/ippools/default-ipv4-ippool",
		body: `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"default-ipv4-ippool","uid":"6b2d","creationTimestamp":null},"spec":{"cidr":"192.168.0.0/16"}}`,
		want: &api.IPPool{Meta: withUID(named(api.KindIPPool, "default-ipv4-ippool"), "6b2d"), Spec: api.IPPoolSpec{CIDR: "192.168.0.0/16"}},
	},
	"endpoint": {
		path: "/calico/resources/v3/projectcalico.org/workloadendpoints/default/node1-k8s-a-eth0",
		body: `{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"node1-k8s-a-eth0","namespace":"default"},"spec":{"node":"node1"}}`,
		want: &api.WorkloadEndpoint{Meta: inNamespace(named(api.KindWorkloadEndpoint, "node1-k8s-a-eth0"), "default"), Spec: api.WorkloadEndpointSpec{Node: "node1"}},
	},
	"network set": {
		path: "/calico/resources/v3/projectcalico.org/networksets/default/peers",
		body: `{"kind":"NetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"peers","namespace":"default"},"spec":{"nets":["10.0.0.0/8"]}}`,
		want: &api.NetworkSet{Meta: inNamespace(named(api.KindNetworkSet, "peers"), "default"), Spec: api.NetworkSetSpec{Nets: []string{"10.0.0.0/8"}}},
	},
	"global network set": {
		path: "/calico/resources/v3/projectcalico.org/globalnetworksets/peers",
		body: `{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"peers"},"spec":{"nets":["10.0.0.0/8"]}}`,
		want: &api.GlobalNetworkSet{Meta: named(api.KindGlobalNetworkSet, "peers"), Spec: api.NetworkSetSpec{Nets: []string{"10.0.0.0/8"}}},
	},
	"slice": { // a path of ours
		path: "/calico/resources/v3/kubernetes/endpointslices/default/db-1",
		body: `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"db-1","namespace":"default"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}]}`,
		want: &api.EndpointSlice{Meta: inNamespace(named(api.KindEndpointSlice, "db-1"), "default"), AddressType: api.AddressIPv4,
			Endpoints: []api.SliceEndpoint{{Addresses: []string{"10.0.0.1"}}}},
	},
}

func named(k *api.Kind, name string) api.Meta {
	m := api.Named(k, "", name)
	m.ResourceVersion = "9"
	return m
}

func annotated(m api.Meta, unknown string) api.Meta {
	m.Annotations = map[string]string{unknownFields: unknown}
	return m
}

func withUID(m api.Meta, uid string) api.Meta {
	m.SetUID(types.UID(uid))
	return m
}

func inNamespace(m api.Meta, ns string) api.Meta {
	m.Namespace = ns
	return m
}

func TestUpstreamBodies(t *testing.T) {
	for name, c := range upstream {
		t.Run(name, func(t *testing.T) {
			codec := codecOf(store.KeyOf(c.want))
			if !codec.at(c.path) {
				t.Errorf("the prefixes %q do not cover %s", codec.prefixes, c.path)
			}
			got, err := codec.readKV(&keyValue{Key: []byte(c.path), Value: []byte(c.body), ModRevision: 9})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("read; -want +got\n%s", diff)
			}
			k := store.KeyOf(got)
			if p, err := codec.path(got); err != nil || p != c.path {
				t.Errorf("it would be written to %s (%v)", p, err)
			}
			if paths, err := codec.paths(k); err != nil || paths[0] != c.path && paths[len(paths)/2] != c.path {
				t.Errorf("%v would be looked for in %q (%v)", k, paths, err)
			}
			body, err := codec.encode(got)
			if err != nil {
				t.Fatal(err)
			}
			want := c.body
			if c.asWritten != "" {
				want = c.asWritten
			}
			if diff := cmp.Diff(parse(t, want), parse(t, string(body))); diff != "" && strings.HasPrefix(c.path, ipam) {
				t.Errorf("written; -want +got\n%s", diff)
			}
			again, err := codec.readKV(&keyValue{Key: []byte(c.path), Value: body, ModRevision: 9})
			if err != nil || !cmp.Equal(got, again) {
				t.Errorf("read again: %v, %v", again, err)
			}
			if got.GetResourceVersion() != "9" {
				t.Errorf("encode took the resourceVersion away")
			}
		})
	}
}

func parse(t *testing.T, body string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBadBodies(t *testing.T) {
	const block = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-32"
	const pool = "/calico/resources/v3/projectcalico.org/ippools/p"
	for _, c := range []struct{ kind, path, body string }{
		{"IPAMBlock", block, ``},
		{"IPAMBlock", block, `null`},
		{"IPAMBlock", block, `[]`},
		{"IPAMBlock", block, `{"cidr":"10.0.0.1/32"}`},
		{"IPAMBlock", block, `{"cidr":"10.0.0.0/32","allocations":[0],"attributes":[]}`},
		{"IPAMBlock", block, `{"cidr":"10.0.0.0/32","allocations":[-1],"attributes":[{}]}`},
		{"IPAMBlock", block, `{"cidr":"10.0.0.0/32","allocations":[null],"unallocated":[1]}`},
		{"IPAMBlock", "/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-32", `{"cidr":"10.0.0.0/32"}`},
		{"IPAMBlock", "/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-31", `{"cidr":"10.0.0.1/31"}`},
		{"IPAMBlock", "/calico/ipam/v2/assignment/x", `{}`},
		{"BlockAffinity", "/calico/ipam/v2/host/ipv4/block/10.0.0.0-32", `{}`},
		{"BlockAffinity", "/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-32", `7`},
		{"BlockAffinity", "/calico/ipam/v2/host/n", `{"state":"confirmed"}`},
		{"IPAMHandle", "/calico/ipam/v2/handle/", `{}`},
		{"IPAMHandle", "/calico/ipam/v2/handle/x", `{"block":[]}`},
		{"IPAMConfiguration", "/calico/ipam/v2/config/x", `{}`},
		{"IPAMConfiguration", "/calico/ipam/v2/config", `{"maxBlocksPerHost":"many"}`},
		{"IPPool", pool, `{"kind":"IPPool","metadata":{"name":"q"}}`},
		{"IPPool", pool, `{"kind":"Tier","metadata":{"name":"p"}}`},
		{"IPPool", pool, `null`},
		{"IPPool", pool + "/q", `{"kind":"IPPool","metadata":{"name":"p/q"}}`},
		{"NetworkPolicy", "/calico/resources/v3/projectcalico.org/networkpolicies/p", `{}`},
	} {
		o, err := codecs[c.kind].readKV(&keyValue{Key: []byte(c.path), Value: []byte(c.body), ModRevision: 9})
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s %s reads as %v, %v, want ErrInvalid", c.path, c.body, o, err)
		}
	}
}

// What cannot be put where its name says is refused before etcd sees it.
func TestBadPlaces(t *testing.T) {
	affinity := func(name string, spec api.BlockAffinitySpec) api.Object {
		return &api.BlockAffinity{Meta: api.Named(api.KindBlockAffinity, "", name), Spec: spec}
	}
	block := func(name string, spec api.IPAMBlockSpec) api.Object {
		return &api.IPAMBlock{Meta: api.Named(api.KindIPAMBlock, "", name), Spec: spec}
	}
	for _, o := range []api.Object{
		affinity("n-10-0-0-0-26", api.BlockAffinitySpec{Node: "m", CIDR: "10.0.0.0/26"}),
		affinity("n-10-0-0-1-26", api.BlockAffinitySpec{Node: "n", CIDR: "10.0.0.1/26"}),
		affinity("-10-0-0-0-26", api.BlockAffinitySpec{CIDR: "10.0.0.0/26"}),
		affinity("n/m-10-0-0-0-26", api.BlockAffinitySpec{Node: "n/m", CIDR: "10.0.0.0/26"}),
		affinity("n-10-0-0-0-26", api.BlockAffinitySpec{Node: "n", CIDR: "10.0.0.0/26", Type: "real"}),
		block("10-0-0-0-27", api.IPAMBlockSpec{CIDR: "10.0.0.0/26"}),
		block("x", api.IPAMBlockSpec{CIDR: "x"}),
		block("10-0-0-0-32", api.IPAMBlockSpec{CIDR: "10.0.0.0/32", Allocations: []*int{ptr(0)}}),
		&api.IPAMHandle{Meta: api.Named(api.KindIPAMHandle, "", "a"), Spec: api.IPAMHandleSpec{HandleID: "b"}},
		&api.IPAMConfiguration{Meta: api.Named(api.KindIPAMConfiguration, "", "other")},
		&api.IPPool{Meta: api.Named(api.KindIPPool, "", "a/b")},
	} {
		p, err := codecOf(store.KeyOf(o)).path(o)
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%v goes to %q, %v, want ErrInvalid", store.KeyOf(o), p, err)
		}
	}
}

func TestAffinityNames(t *testing.T) {
	for _, c := range []struct{ node, cidr, name string }{
		{"node1", "10.10.72.0/26", "node1-10-10-72-0-26"},
		{"a-1-2", "1.2.3.4/32", "a-1-2-1-2-3-4-32"},
		{"n", "::/122", "n----122"},
		{"n", "fd00:10::/122", "n-fd00-10---122"},
		{"a-fd00", "10::/122", "a-fd00-10---122"},
		{"x", "1:2:3:4:5:6:7:8/128", "x-1-2-3-4-5-6-7-8-128"},
	} {
		p := netip.MustParsePrefix(c.cidr)
		name := affinityName(c.node, p)
		if name != c.name {
			t.Errorf("%s of %s is called %s, want %s", c.cidr, c.node, name, c.name)
		}
		found := false
		for _, path := range affinityPaths(name) {
			typ, node, q, ok := parseAffinityPath(path)
			if !ok || affinityName(node, q) != name {
				t.Errorf("%s: path %s is not of that name", name, path)
			}
			found = found || typ == affinityHost && node == c.node && q == p
		}
		if !found {
			t.Errorf("%s of %s is not among %q", c.cidr, c.node, affinityPaths(name))
		}
	}
}

// FuzzBodies: what can be read can be written where it was, and reads the same again.
func FuzzBodies(f *testing.F) {
	for _, c := range upstream {
		f.Add(c.path, []byte(c.body))
	}
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		for _, c := range codecs {
			if !c.at(path) {
				continue
			}
			o, err := c.readKV(&keyValue{Key: []byte(path), Value: body, ModRevision: 9})
			if err != nil {
				continue
			}
			again, err := c.encode(o)
			if err != nil {
				t.Fatalf("%s was read but cannot be written: %v", body, err)
			}
			if p, err := c.path(o); err != nil || p != path {
				t.Fatalf("read at %q, written to %q: %v", path, p, err)
			}
			o2, err := c.readKV(&keyValue{Key: []byte(path), Value: again, ModRevision: 9})
			if err != nil {
				t.Fatalf("%s was written as %s, which cannot be read: %v", body, again, err)
			}
			if third, err := c.encode(o2); err != nil || string(third) != string(again) {
				t.Fatalf("%s becomes %s and then %s (%v)", body, again, third, err)
			}
		}
	})
}
