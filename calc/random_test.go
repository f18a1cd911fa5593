package calc

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// TestGraphIsCompute holds the Graph to its definition: after every flush of random
// events the sum of its Deltas is what Compute gives, each Delta changes all that it
// names, and the problems are those of a Graph that saw only the present contents.
//
// CALICO_CALC_SEED replays a run; CALICO_CALC_RUNS says how many there are.
func TestGraphIsCompute(t *testing.T) {
	t.Parallel()
	if s := os.Getenv("CALICO_CALC_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CALICO_CALC_SEED=%q: %v", s, err)
		}
		randomRun(t, seed)
		return
	}
	runs := 600
	if s := os.Getenv("CALICO_CALC_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
	}
	first := uint64(time.Now().UnixNano())
	for i := range runs {
		randomRun(t, first+uint64(i))
	}
}

func randomRun(t *testing.T, seed uint64) {
	t.Helper()
	w := newWorld(seed)
	g := New("node1")
	state := dataplane.NewState()
	for step := range 1 + w.IntN(12) {
		events := 1 + w.IntN(8)
		if step == 0 { // as a snapshot comes in
			events = 1 + w.IntN(60)
		}
		for range events {
			w.event(g)
			if w.IntN(3) == 0 {
				g.Prepare()
			}
		}
		d := g.Flush()
		if err := redundant(state, d); err != nil {
			t.Fatalf("CALICO_CALC_SEED=%d: flush %d: %v", seed, step, err)
		}
		state.Apply(d)
		want := Compute("node1", nil, slices.Collect(maps.Values(w.objects)), slices.Collect(maps.Values(w.attachments)))
		if diff := diffStates(want, state); diff != "" {
			t.Fatalf("CALICO_CALC_SEED=%d: flush %d: Compute (-) and the sum of Deltas (+) differ:\n%s", seed, step, diff)
		}
	}
	if diff := cmp.Diff(w.fresh().Problems(), g.Problems()); diff != "" {
		t.Fatalf("CALICO_CALC_SEED=%d: problems of a fresh Graph (-) and of this one (+) differ:\n%s", seed, diff)
	}
}

func diffStates(want, got *dataplane.State) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty())
	if d == "" {
		return "nil and empty differ"
	}
	return d
}

// redundant finds what a Delta names without changing it.
func redundant(s *dataplane.State, d *dataplane.Delta) error {
	if err := redundantRefs(s.Endpoints, d.Endpoints); err != nil {
		return err
	}
	if err := redundantRefs(s.Policies, d.Policies); err != nil {
		return err
	}
	if err := redundantValues(s.Routes, d.Routes); err != nil {
		return err
	}
	if err := redundantValues(s.Tunnels, d.Tunnels); err != nil {
		return err
	}
	if err := redundantValues(s.VTEPs, d.VTEPs); err != nil {
		return err
	}
	for id, sd := range d.Sets {
		if err := redundantSet(s.Sets, id, sd); err != nil {
			return err
		}
	}
	return nil
}

func redundantSet(sets map[dataplane.SetID]dataplane.Members, id dataplane.SetID, d *dataplane.SetDelta) error {
	members, ok := sets[id]
	if d == nil && !ok || d != nil && ok && len(d.Add)+len(d.Remove) == 0 {
		return fmt.Errorf("set %s: the delta changes nothing", id)
	}
	if d == nil {
		return nil
	}
	for _, m := range d.Add {
		if _, ok := members[m]; ok {
			return fmt.Errorf("set %s: %v is added twice", id, m)
		}
	}
	for _, m := range d.Remove {
		if _, ok := members[m]; !ok {
			return fmt.Errorf("set %s: %v is removed but not there", id, m)
		}
	}
	return nil
}

func redundantRefs[K comparable, V any](now, d map[K]*V) error {
	for k, v := range d {
		if old, ok := now[k]; v == nil && !ok || v != nil && ok && reflect.DeepEqual(old, v) {
			return fmt.Errorf("%v: the delta changes nothing", k)
		}
	}
	return nil
}

func redundantValues[K, V comparable](now map[K]V, d map[K]*V) error {
	for k, v := range d {
		if old, ok := now[k]; v == nil && !ok || v != nil && ok && old == *v {
			return fmt.Errorf("%v: the delta changes nothing", k)
		}
	}
	return nil
}

// world is what a datastore and a node's records hold, small enough for things to meet.
type world struct {
	*rand.Rand
	objects     map[store.Key]api.Object
	attachments map[dataplane.AttachmentID]*dataplane.Attachment
	old         []api.Object // earlier values, to go back to
}

// newWorld draws from seed alone.
func newWorld(seed uint64) *world {
	return &world{Rand: rand.New(rand.NewPCG(seed, 1)), objects: map[store.Key]api.Object{}, attachments: map[dataplane.AttachmentID]*dataplane.Attachment{}}
}

func (w *world) fresh() *Graph {
	g := New("node1")
	for _, o := range w.objects {
		g.Put(o)
	}
	for _, a := range w.attachments {
		g.PutAttachment(a)
	}
	g.Flush()
	return g
}

// event changes the world and tells g, perhaps twice.
func (w *world) event(g *Graph) {
	switch n := w.IntN(100); {
	case n < 15:
		w.attach(g)
	case n < 20:
		id := dataplane.AttachmentID{ContainerID: pick(w, containers...), IfName: "eth0"}
		delete(w.attachments, id)
		g.RemoveAttachment(id)
	case n < 35 && len(w.objects) > 0:
		k := pick(w, w.keys()...)
		delete(w.objects, k)
		g.Remove(k)
		g.Remove(k)
	case n < 45 && len(w.old) > 0: // back to an earlier value
		w.put(g, pick(w, w.old...))
	case n < 60 && len(w.objects) > 0:
		w.tweak(g, pick(w, w.keys()...))
	case n < 63 && len(w.objects) > 0: // the same again
		g.Put(w.objects[pick(w, w.keys()...)])
	default:
		w.put(g, w.object())
	}
}

// tweak changes one field of an object, if it is of a kind that changes by fields.
func (w *world) tweak(g *Graph, k store.Key) {
	switch old := w.objects[k].(type) {
	case *api.WorkloadEndpoint:
		w.tweakEndpoint(g, *old)
	case *api.IPAMBlock: // an address comes or goes
		o := *old
		o.Spec.Allocations = slices.Clone(o.Spec.Allocations)
		if n := len(o.Spec.Allocations); n > 0 {
			o.Spec.Allocations[w.IntN(n)] = pick(w, nil, new(0), new(1), new(2))
		}
		w.put(g, &o)
	case *api.NetworkSet:
		o := *old
		w.tweakSet(&o.Meta, &o.Spec)
		w.put(g, &o)
	case *api.GlobalNetworkSet:
		o := *old
		w.tweakSet(&o.Meta, &o.Spec)
		w.put(g, &o)
	case *api.EndpointSlice:
		o, from := *old, w.slice().(*api.EndpointSlice)
		pick(w,
			func() { o.Labels = from.Labels },
			func() { o.Endpoints = from.Endpoints },
			func() { o.Ports = from.Ports },
		)()
		w.put(g, &o)
	case *api.NetworkPolicy:
		o, from := *old, w.policy().(*api.NetworkPolicy).Spec
		pick(w,
			func() { o.Spec.Order = from.Order },
			func() { o.Spec.Tier = from.Tier },
			func() { o.Spec.Types = from.Types },
			func() { o.Spec.Selector = from.Selector },
			func() { o.Spec.Ingress = from.Ingress },
		)()
		w.put(g, &o)
	}
}

// tweakSet changes the labels, or one of the nets.
func (w *world) tweakSet(m *api.Meta, spec *api.NetworkSetSpec) {
	n := len(spec.Nets)
	if n == 0 || w.chance(40) {
		m.Labels = w.labels()
		return
	}
	at, nets := w.IntN(n), slices.Clone(spec.Nets)
	spec.Nets = pick(w,
		func() []string { return slices.Delete(nets, at, at+1) },
		func() []string { return slices.Insert(nets, at, w.nets()...) },
		func() []string { return append(nets[at:], nets[:at]...) },
	)()
}

func (w *world) tweakEndpoint(g *Graph, o api.WorkloadEndpoint) {
	from := w.wep("node1")
	switch w.IntN(6) {
	case 0:
		o.Labels = from.Labels
	case 1:
		o.Spec.Ports = from.Spec.Ports
	case 2:
		o.Spec.IPNetworks = from.Spec.IPNetworks
	case 3:
		o.Spec.Profiles = from.Spec.Profiles
	case 4:
		o.Spec.ServiceAccountName = from.Spec.ServiceAccountName
	case 5:
		o.Spec.AllowSpoofedSourcePrefixes = from.Spec.AllowSpoofedSourcePrefixes
	}
	w.put(g, &o)
}

// keys are in order, so that a seed replays.
func (w *world) keys() []store.Key {
	return slices.SortedFunc(maps.Keys(w.objects), func(a, b store.Key) int {
		return compareProblems(Problem{Object: a}, Problem{Object: b})
	})
}

func (w *world) put(g *Graph, o api.Object) {
	k, ok := keyOf(o)
	if !ok {
		panic("unexpected kind")
	}
	if before := w.objects[k]; before != nil {
		w.old = append(w.old, before)
	}
	w.objects[k] = o
	g.Put(o)
}

func pick[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

// some picks up to n of the values, perhaps none.
func some[T any](w *world, n int, of ...T) []T {
	var s []T
	for range w.IntN(n + 1) {
		s = append(s, pick(w, of...))
	}
	return s
}

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

func (w *world) object() api.Object {
	kinds := []func() api.Object{w.endpoint, w.endpoint, w.profile, w.policy, w.policy, w.global, w.global, w.tier, w.netset, w.netset, w.slice, w.slice, w.node, w.node, w.pool, w.block, w.block, w.config}
	return pick(w, kinds...)()
}

var (
	namespaces = []string{"a", "b"}
	pods       = []string{"p", "q", "r", "s"}
	containers = []string{"c1", "c2", "c3", "c4"}
	nodeNames  = []string{"node1", "node2", "node3"}
	addresses  = []string{"10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.1.1", "10.0.1.2", "fd00::1", "fd00::5", "fd00::1:2"}
	selectors  = []string{"", "all()", "x == 'a'", "x != 'a'", "has(y)", "!has(y)", "x in {'a','b'}", "y == 'b' && x == 'a'",
		"x == 'a' || y == 'b'", "pcns.x == 'a'", "projectcalico.org/namespace == 'a'", "global()", "x starts with 'a'"}
	values = []string{"a", "b", "ab"}
	labels = []string{"x", "y", "pcns.x", "pcsa.y", "projectcalico.org/namespace"}
)

func (w *world) labels() map[string]string {
	l := map[string]string{}
	for _, k := range some(w, 3, labels...) {
		l[k] = pick(w, values...)
	}
	return l
}

func (w *world) selector(bad int) string {
	if w.IntN(1000) < bad {
		return "x =="
	}
	return pick(w, selectors...)
}

func (w *world) wep(n string) *api.WorkloadEndpoint {
	ns, pod := pick(w, namespaces...), pick(w, pods...)
	o := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, ns, api.WorkloadEndpointName(n, "k8s", pod, "eth0"))}
	o.Labels = w.labels()
	o.ResourceVersion = strconv.Itoa(1 + w.IntN(4))
	o.Spec = api.WorkloadEndpointSpec{
		Orchestrator: pick(w, "k8s", ""), Node: n, Pod: pod, InterfaceName: "cali" + ns + pod,
		ServiceAccountName: pick(w, "", "sa", "sb"),
		Profiles:           some(w, 3, "kns.a", "kns.b", "gone"),
		IPNetworks:         some(w, 3, append([]string{"10.0.0.2/32", "10.0.0.0/24", "bad", "fd00::5/128"}, addresses...)...),
	}
	for range w.IntN(3) {
		o.Spec.Ports = append(o.Spec.Ports, api.EndpointPort{
			Name: pick(w, "http", "dns"), Protocol: pick(w, api.Protocol("TCP"), "UDP", "17", "bad"), Port: uint16(1 + w.IntN(3))})
	}
	o.Spec.AllowSpoofedSourcePrefixes = some(w, 2, "10.9.0.0/16", "10.9.1.0/24", "fd00:9::/64", "bad")
	return o
}

func (w *world) endpoint() api.Object { return w.wep(pick(w, nodeNames...)) }

func (w *world) attach(g *Graph) {
	a := &dataplane.Attachment{
		ID:  dataplane.AttachmentID{ContainerID: pick(w, containers...), IfName: "eth0"},
		MAC: pick(w, "ee:00:00:00:00:01", "ee:00:00:00:00:02"),
	}
	if !w.chance(5) {
		a.Endpoint = w.wep("node1")
		a.Interface = dataplane.Interface(a.Endpoint.Spec.InterfaceName)
	} else {
		a.Interface = pick(w, "caliap", dataplane.Interface(""))
	}
	for _, s := range some(w, 3, addresses...) {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(s))
	}
	w.attachments[a.ID] = a
	g.PutAttachment(a)
}

func (w *world) profile() api.Object {
	o := &api.Profile{Meta: api.Named(api.KindProfile, "", pick(w, "kns.a", "kns.b", "unused"))}
	o.Spec = api.ProfileSpec{Ingress: w.rules(2), Egress: w.rules(2), LabelsToApply: w.labels()}
	return o
}

func (w *world) order() *float64 {
	return pick(w, nil, new(1.0), new(2.0), new(1000.0))
}

func (w *world) types() []api.PolicyType { return some(w, 2, api.Ingress, api.Egress) }

func (w *world) policy() api.Object {
	o := &api.NetworkPolicy{Meta: api.Named(api.KindNetworkPolicy, pick(w, namespaces...), pick(w, "one", "two", "one-b"))}
	o.Spec = api.NetworkPolicySpec{Tier: pick(w, "", "default", "t1", "t2"), Order: w.order(), Selector: w.selector(30),
		ServiceAccountSelector: pick(w, "", "", w.selector(30)), Types: w.types(), Ingress: w.rules(3), Egress: w.rules(3)}
	return o
}

func (w *world) global() api.Object {
	o := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", pick(w, "one", "two", "three"))}
	o.Spec = api.GlobalNetworkPolicySpec{Tier: pick(w, "", "default", "t1", "kube-admin"), Order: w.order(), Selector: w.selector(30),
		NamespaceSelector: pick(w, "", w.selector(30)), ServiceAccountSelector: pick(w, "", "", w.selector(30)),
		Types: w.types(), Ingress: w.rules(3), Egress: w.rules(3),
		DoNotTrack: w.chance(5), PreDNAT: w.chance(5), ApplyOnForward: w.chance(10)}
	return o
}

func (w *world) rules(n int) []api.Rule {
	var rs []api.Rule
	for range w.IntN(n + 1) {
		rs = append(rs, w.rule())
	}
	return rs
}

func (w *world) rule() api.Rule {
	r := api.Rule{Action: pick(w, api.Allow, api.Allow, api.Deny, api.Pass, api.Log)}
	if w.chance(2) {
		r.Action = "Accept"
	}
	if w.chance(10) {
		r.IPVersion = new(pick(w, 4, 6, 5))
	}
	if w.chance(50) {
		r.Protocol = new(pick(w, api.Protocol("TCP"), "UDP", "6", "ICMP", "ICMPv6", "bad"))
	}
	if w.chance(10) {
		r.NotProtocol = new(pick(w, api.Protocol("TCP"), "UDP", "300"))
	}
	if w.chance(10) {
		r.ICMP = &api.ICMP{Type: new(pick(w, 8, 300))}
	}
	if w.chance(2) {
		r.HTTP = &api.HTTPMatch{Methods: []string{"GET"}}
	}
	r.Source, r.Destination = w.entity(), w.entity()
	return r
}

func (w *world) entity() api.EntityRule {
	var e api.EntityRule
	if w.chance(20) {
		e.Nets = some(w, 3, "10.0.0.0/8", "10.0.0.0/24", "10.0.0.7", "fd00::/64", "0.0.0.0/0")
	}
	if w.chance(10) {
		e.NotNets = some(w, 2, "10.0.1.0/24", "fd00::/96", "bad")
	}
	if w.chance(40) {
		e.Selector = w.selector(20)
	}
	if w.chance(10) {
		e.NotSelector = w.selector(20)
	}
	if w.chance(15) {
		e.NamespaceSelector = w.selector(20)
	}
	if w.chance(10) {
		e.ServiceAccounts = &api.ServiceAccountMatch{Names: some(w, 2, "sa", "sb"), Selector: pick(w, "", w.selector(20))}
	}
	if w.chance(2) {
		e.Services = &api.ServiceMatch{Name: "s"}
	}
	if w.chance(25) { // mostly as it may be written
		if w.chance(90) {
			e = api.EntityRule{}
		}
		e.Services = &api.ServiceMatch{Name: pick(w, "s", "t", "gone"), Namespace: pick(w, "", "a", "b")}
		return e
	}
	ports := []api.Port{{Min: 80, Max: 80}, {Min: 81, Max: 90}, {Name: "http"}, {Name: "dns"}}
	if w.chance(20) {
		e.Ports = some(w, 3, ports...)
	}
	if w.chance(10) {
		e.NotPorts = some(w, 2, ports...)
	}
	return e
}

func (w *world) nets() []string {
	all := []string{"10.0.0.0/8", "10.0.0.0/24", "10.0.0.1", "10.0.0.1/32", "10.0.0.7/24", "0.0.0.0/0", "fd00::/64", "fd00::1", "::/0", "bad", "10.0.1.1"}
	return some(w, 8, all...)
}

func (w *world) netset() api.Object {
	if w.chance(50) {
		o := &api.GlobalNetworkSet{Meta: api.Named(api.KindGlobalNetworkSet, "", pick(w, "one", "two"))}
		o.Labels, o.Spec.Nets = w.labels(), w.nets()
		return o
	}
	o := &api.NetworkSet{Meta: api.Named(api.KindNetworkSet, pick(w, namespaces...), pick(w, "one", "two"))}
	o.Labels, o.Spec.Nets = w.labels(), w.nets()
	return o
}

func (w *world) slice() api.Object {
	o := &api.EndpointSlice{Meta: api.Named(api.KindEndpointSlice, pick(w, namespaces...), pick(w, "s-1", "s-2", "t-1"))}
	o.AddressType = pick(w, api.AddressIPv4, api.AddressIPv4, api.AddressIPv6, api.AddressFQDN)
	o.Labels = map[string]string{api.LabelServiceName: pick(w, "s", "s", "t", "")}
	for range w.IntN(4) {
		o.Endpoints = append(o.Endpoints, api.SliceEndpoint{Addresses: some(w, 2, append([]string{"bad", "fe80::1%eth0"}, addresses...)...),
			Conditions: api.EndpointConditions{Ready: pick(w, nil, new(true), new(false))}})
	}
	for range w.IntN(3) {
		o.Ports = append(o.Ports, api.SlicePort{Name: pick(w, "", "http"), Protocol: pick(w, api.Protocol(""), "TCP", "UDP", "ICMP"), Port: pick(w, nil, new(uint16(80)), new(uint16(53)))})
	}
	return o
}

func (w *world) tier() api.Object {
	o := &api.Tier{Meta: api.Named(api.KindTier, "", pick(w, "default", "t1", "t2", "kube-admin"))}
	o.Spec = api.TierSpec{Order: w.order(), DefaultAction: pick(w, "", api.Deny, api.Pass)}
	return o
}

func (w *world) node() api.Object {
	i := w.IntN(len(nodeNames))
	o := &api.Node{Meta: api.Named(api.KindNode, "", nodeNames[i])}
	if w.chance(85) {
		o.Spec.BGP = &api.NodeBGP{
			IPv4Address:        pick(w, "", fmt.Sprintf("192.168.0.%d/24", i+1), fmt.Sprintf("192.168.%d.1/24", i), "192.168.0.9"),
			IPv6Address:        pick(w, "", fmt.Sprintf("fd01::%d/64", i+1), "bad"),
			IPv4IPIPTunnelAddr: pick(w, "", fmt.Sprintf("10.0.9.%d", i)),
		}
	}
	o.Spec.IPv4VXLANTunnelAddr = pick(w, "", fmt.Sprintf("10.0.8.%d", i), "10.0.8.9")
	o.Spec.IPv6VXLANTunnelAddr = pick(w, "", fmt.Sprintf("fd00::8:%d", i))
	o.Spec.VXLANTunnelMACAddr = pick(w, "", "66-AA-00-00-00-01", "bad")
	return o
}

func (w *world) pool() api.Object {
	o := &api.IPPool{Meta: api.Named(api.KindIPPool, "", pick(w, "pool1", "pool2", "pool3"))}
	modes := []api.EncapMode{"", api.EncapNever, api.EncapAlways, api.EncapCrossSubnet}
	o.Spec = api.IPPoolSpec{CIDR: pick(w, "10.0.0.0/16", "10.0.1.0/24", "fd00::/64", "bad"), NATOutgoing: w.chance(50), Disabled: w.chance(20)}
	if w.chance(60) {
		o.Spec.VXLANMode = pick(w, modes...)
	} else {
		o.Spec.IPIPMode = pick(w, modes...)
	}
	return o
}

func (w *world) block() api.Object {
	cidrs := []string{"10.0.0.0/30", "10.0.0.4/30", "10.0.1.0/30", "10.0.1.1/32", "10.0.0.0/29", "fd00::/126", "fd00::1:0/126"}
	i := w.IntN(len(cidrs))
	o := &api.IPAMBlock{Meta: api.Named(api.KindIPAMBlock, "", fmt.Sprintf("block%d", i))}
	o.Spec.CIDR = cidrs[i]
	if w.chance(3) {
		o.Spec.CIDR = "bad"
	}
	o.Spec.Affinity = pick(w, nil, new("host:node1"), new("host:node2"), new("host:node3"), new("host:gone"), new("virtual:lb"))
	for _, n := range []string{"node1", "node2", "node3", "", "gone"} {
		o.Spec.Attributes = append(o.Spec.Attributes, api.AllocAttributes{Secondary: map[string]string{api.AttrNode: n}})
	}
	for i := range o.Spec.Attributes {
		o.Spec.Attributes[i].Secondary[api.AttrType] = pick(w, "", "", "ipipTunnelAddress", "vxlanTunnelAddress", "vxlanV6TunnelAddress")
	}
	for range w.IntN(5) {
		o.Spec.Allocations = append(o.Spec.Allocations, pick(w, nil, new(0), new(1), new(2), new(3), new(4)))
	}
	if w.chance(5) {
		o.Spec.Attributes[w.IntN(len(o.Spec.Attributes))].ReleasedAt = &metav1.Time{Time: time.Unix(1, 0)}
	}
	if w.chance(3) {
		o.Spec.Allocations = append(o.Spec.Allocations, new(9))
	}
	o.Spec.Deleted = w.chance(3)
	return o
}

func (w *world) config() api.Object {
	o := &api.FelixConfiguration{Meta: api.Named(api.KindFelixConfiguration, "", pick(w, "default", "node.node1", "node.node2")), Spec: api.FelixConfigurationSpec{}}
	all := map[string][]string{
		"ipv6Support":          {"true", "false"},
		"programClusterRoutes": {`"Enabled"`, `"Disabled"`, `"EnabledIPIPOnly"`, `"EnabledNoEncapOnly"`, `"bad"`},
		"vxlanVNI":             {"4096", "4097"},
		"vxlanEnabled":         {"true", "false"},
		"ipipEnabled":          {"true", "false"},
		"vxlanMTU":             {"0", "1400"},
		"ipipMTU":              {"0", "1440"},
		"logPrefix":            {`"x"`, `"calico-packet"`},
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if w.chance(30) {
			o.Spec[k] = json.RawMessage(pick(w, all[k]...))
		}
	}
	return o
}
