package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// The tests in this file say what calc means, one sentence at a time. They are written
// against Compute; the same contents go through a Graph, which must agree.

type contents struct {
	objects     []api.Object
	attachments []*dataplane.Attachment
}

// yaml adds objects, defaulted as they are when they are stored.
func (c *contents) yaml(t *testing.T, text string) *contents {
	t.Helper()
	objects, err := api.DecodeAll(t.Name(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		o.Default()
		c.objects = append(c.objects, o)
	}
	return c
}

// pod adds a pod of this node, node1, with its record. labels reads "x=a y=b".
func (c *contents) pod(namespace, name, labels string, addrs ...string) *api.WorkloadEndpoint {
	w := wepOf("node1", namespace, name, labels, addrs...)
	c.objects = append(c.objects, w)
	c.attachments = append(c.attachments, record(w))
	return w
}

// remote adds a pod of another node.
func (c *contents) remote(node, namespace, name, labels string, addrs ...string) *api.WorkloadEndpoint {
	w := wepOf(node, namespace, name, labels, addrs...)
	c.objects = append(c.objects, w)
	return w
}

func wepOf(node, namespace, name, labels string, addrs ...string) *api.WorkloadEndpoint {
	w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, namespace, api.WorkloadEndpointName(node, "k8s", name, "eth0"))}
	w.ResourceVersion = "10"
	w.Labels = map[string]string{}
	for _, l := range strings.Fields(labels) {
		k, v, _ := strings.Cut(l, "=")
		w.Labels[k] = v
	}
	w.Spec = api.WorkloadEndpointSpec{Orchestrator: "k8s", Node: node, Pod: name, InterfaceName: "cali" + name, Profiles: []string{"kns." + namespace}}
	for _, a := range addrs {
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, hostNet(netip.MustParseAddr(a)).String())
	}
	return w
}

func record(w *api.WorkloadEndpoint) *dataplane.Attachment {
	a := &dataplane.Attachment{
		ID:        dataplane.AttachmentID{ContainerID: "c-" + w.Spec.Pod, IfName: "eth0"},
		Interface: dataplane.Interface(w.Spec.InterfaceName), MAC: "ee:ee:ee:00:00:01", Endpoint: w,
	}
	for _, n := range w.Spec.IPNetworks {
		a.Addrs = append(a.Addrs, netip.MustParsePrefix(n).Addr())
	}
	return a
}

// compute returns the state of node1, and its problems as text.
func (c *contents) compute(t *testing.T) (*dataplane.State, []string) {
	t.Helper()
	s := Compute("node1", nil, c.objects, c.attachments)
	g := New("node1")
	for _, o := range c.objects {
		g.Put(o)
	}
	for _, a := range c.attachments {
		g.PutAttachment(a)
	}
	sum := dataplane.NewState()
	sum.Apply(g.Flush())
	if diff := diffStates(s, sum); diff != "" {
		t.Fatalf("Compute (-) and the Graph (+) differ:\n%s", diff)
	}
	var ps []string
	for _, p := range g.Problems() {
		ps = append(ps, p.String())
	}
	return s, ps
}

// ingress shows an endpoint's tiers: "default: one two; Deny".
func tiersText(ts []dataplane.TierPolicies) string {
	var all []string
	for _, t := range ts {
		var names []string
		for _, p := range t.Policies {
			names = append(names, strings.TrimPrefix(p.Namespace+"/"+p.Name, "/"))
		}
		all = append(all, fmt.Sprintf("%s: %s (%v)", t.Tier, strings.Join(names, " "), t.Default))
	}
	return strings.Join(all, "; ")
}

func membersText(m dataplane.Members) string {
	var all []string
	for x := range m {
		s := x.Prefix.String()
		if x.Protocol != 0 {
			s = fmt.Sprintf("%v,%d:%d", x.Prefix.Addr(), x.Protocol, x.Port)
		}
		all = append(all, s)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const allowPolicy = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: default, name: allow}
spec:
  selector: run == 'busybox02'
  ingress:
  - action: Allow
    source: {selector: run == 'busybox01'}
`

func TestPolicySelectsAndItsSetHoldsEveryMatchingEndpoint(t *testing.T) {
	var c contents
	c.pod("default", "busybox02", "run=busybox02", "10.0.0.2")
	c.pod("default", "busybox03", "run=busybox03", "10.0.0.3")
	c.remote("node2", "default", "busybox01", "run=busybox01", "10.0.1.1", "fd00::1:1")
	c.remote("node2", "other", "busybox01", "run=busybox01", "10.0.1.9") // another namespace
	c.yaml(t, allowPolicy)
	s, ps := c.compute(t)

	equal(t, "governed", tiersText(s.Endpoints["calibusybox02"].Ingress), "default: default/allow (deny)")
	equal(t, "egress, which the policy does not govern", tiersText(s.Endpoints["calibusybox02"].Egress), "")
	equal(t, "not selected", tiersText(s.Endpoints["calibusybox03"].Ingress), "")
	p := s.Policies[dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "allow"}]
	equal(t, "members", membersText(s.Sets[p.Ingress[0].Src.Sets[0]]), "10.0.1.1/32 fd00::1:1/128")
	equal(t, "problems", ps, []string{"Profile(kns.default): NoProfile: an endpoint of this node names the profile, but there is none: it allows nothing"})
}

// A stale or empty view of the datastore takes no local endpoint away, and the record's
// addresses stand whatever is stored.
func TestRecordDecidesExistenceAndAddresses(t *testing.T) {
	w := wepOf("node1", "default", "p", "x=new", "10.0.0.1")
	w.ResourceVersion = "20"
	stale := wepOf("node1", "default", "p", "x=old", "10.0.0.99")
	same := wepOf("node1", "default", "p", "x=same", "10.0.0.97")
	same.ResourceVersion = "20"
	newer := wepOf("node1", "default", "p", "x=newer", "10.0.0.98")
	newer.ResourceVersion = "21"
	for _, test := range []struct {
		name   string
		stored []api.Object
		label  string
	}{
		{"nothing stored: the record's copy", nil, "new"},
		{"an older one stored: the record's copy", []api.Object{stale}, "new"},
		{"the record's own, or what the store says of that revision", []api.Object{same}, "same"},
		{"a newer one stored: its labels", []api.Object{newer}, "newer"},
	} {
		c := contents{objects: test.stored, attachments: []*dataplane.Attachment{record(w)}}
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec:\n  selector: x == '"+test.label+"'\n  ingress: [{action: Allow, source: {selector: has(x)}}]\n")
		s, _ := c.compute(t)
		e := s.Endpoints["calip"]
		if e == nil {
			t.Fatalf("%s: no endpoint", test.name)
		}
		equal(t, test.name+": addresses", e.Addrs, []netip.Addr{netip.MustParseAddr("10.0.0.1")})
		equal(t, test.name+": policies", tiersText(e.Ingress), "default: g (deny)")
		for _, p := range s.Policies {
			if p.ID.Name == "g" {
				equal(t, test.name+": members", membersText(s.Sets[p.Ingress[0].Src.Sets[0]]), "10.0.0.1/32")
			}
		}
	}
}

func TestStoredEndpointWithoutRecordIsOnlyAMember(t *testing.T) {
	var c contents
	c.pod("default", "busybox02", "run=busybox02", "10.0.0.2")
	c.remote("node1", "default", "busybox01", "run=busybox01", "10.0.0.7") // of this node, no record
	c.yaml(t, allowPolicy)
	s, _ := c.compute(t)
	equal(t, "endpoints", slices.Sorted(maps.Keys(s.Endpoints)), []dataplane.Interface{"calibusybox02"})
	p := s.Policies[dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "allow"}]
	equal(t, "members", membersText(s.Sets[p.Ingress[0].Src.Sets[0]]), "10.0.0.7/32")
}

// An endpoint's own label wins over a profile's, the earlier profile over the later, and
// Calico's own labels over all. Labels of the namespace and the service account come from
// profiles alone: else a pod could claim those of another namespace.
func TestLabels(t *testing.T) {
	var c contents
	w := c.pod("ns", "p", "own=pod projectcalico.org/namespace=forged pcns.team=forged pcns.env=forged pcsa.role=forged", "10.0.0.1")
	w.Spec.Profiles = []string{"first", "second", "gone"}
	w.Spec.ServiceAccountName = "sa"
	c.yaml(t, `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: first}
spec: {labelsToApply: {own: first, both: first, pcns.team: mine}}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: second}
spec: {labelsToApply: {both: second, last: second, projectcalico.org/namespace: forged}}
`)
	for selector, want := range map[string]bool{
		"own == 'pod'": true, "both == 'first'": true, "last == 'second'": true,
		"projectcalico.org/namespace == 'ns'": true, "projectcalico.org/orchestrator == 'k8s'": true,
		"projectcalico.org/serviceaccount == 'sa'": true,
		"pcns.team == 'mine'":                      true, "has(pcns.env)": false, "has(pcsa.role)": false,
	} {
		d := c
		d.objects = slices.Clone(c.objects)
		d.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {selector: \""+selector+"\"}\n")
		s, _ := d.compute(t)
		equal(t, selector, len(s.Endpoints["calip"].Ingress) == 1, want)
	}
}

// Tiers by order, those without last, then by name; policies likewise, and equal orders
// by name, namespace and kind as one string, as upstream has it. A tier stands in a
// direction's list only if a policy of that type applies.
func TestOrder(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	global := func(name, spec string) {
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: "+name+"}\nspec: {"+spec+"}\n")
	}
	tier := func(name, spec string) {
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: "+name+"}\nspec: {"+spec+"}\n")
	}
	tier("zz", "order: 5, defaultAction: Pass")
	tier("aa", "")
	tier("bb", "")
	global("in-bb", "tier: bb")
	global("in-aa", "tier: aa")
	global("in-zz", "tier: zz, types: [Egress]")
	global("base", "tier: kube-baseline")
	global("admin", "tier: kube-admin")
	global("last", "")
	global("late", "order: 20")
	global("early", "order: 10")
	global("same", "order: 15")
	global("same-b", "order: 15")
	for _, name := range []string{"same", "aaa"} { // with the order, the name decides, then the namespace
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {namespace: ns, name: "+name+"}\nspec: {order: 15}\n")
	}
	s, _ := c.compute(t)
	equal(t, "ingress", tiersText(s.Endpoints["calip"].Ingress),
		"kube-admin: admin (pass); default: early ns/aaa same-b same ns/same late last (deny); kube-baseline: base (pass); aa: in-aa (deny); bb: in-bb (deny)")
	equal(t, "egress", tiersText(s.Endpoints["calip"].Egress), "zz: in-zz (pass)")
}

// A built-in tier that was stored without order or default action has those of every cluster;
// what is written in it counts.
func TestBuiltInTiersOfOlderReleases(t *testing.T) {
	for stored, want := range map[string]string{
		"":                       "kube-admin: admin (pass); middle: middle (deny); default: d (deny); kube-baseline: base (pass)",
		"default":                "kube-admin: admin (pass); middle: middle (deny); default: d (deny); kube-baseline: base (pass)",
		"kube-admin":             "kube-admin: admin (pass); middle: middle (deny); default: d (deny); kube-baseline: base (pass)",
		"default order 5":        "default: d (deny); kube-admin: admin (pass); middle: middle (deny); kube-baseline: base (pass)",
		"kube-baseline deny":     "kube-admin: admin (pass); middle: middle (deny); default: d (deny); kube-baseline: base (deny)",
		"kube-baseline order 50": "kube-baseline: base (pass); kube-admin: admin (pass); middle: middle (deny); default: d (deny)",
	} {
		var c contents
		c.pod("ns", "p", "", "10.0.0.1")
		for name, tier := range map[string]string{"admin": "kube-admin", "d": "default", "base": "kube-baseline", "middle": "middle"} {
			c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: "+name+"}\nspec: {tier: "+tier+"}\n")
		}
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: middle}\nspec: {order: 2000}\n")
		if name, rest, _ := strings.Cut(stored, " "); name != "" {
			o := &api.Tier{Meta: api.Named(api.KindTier, "", name)} // without defaults
			var order float64
			if n, _ := fmt.Sscanf(rest, "order %g", &order); n == 1 {
				o.Spec.Order = &order
			} else if rest == "deny" {
				o.Spec.DefaultAction = api.Deny
			}
			c.objects = append(c.objects, o)
		}
		s, _ := c.compute(t)
		equal(t, stored, tiersText(s.Endpoints["calip"].Ingress), want)
	}
}

// A tier passes on what its policies do not match only if it says so.
func TestTierWhoseActionSaysNothing(t *testing.T) {
	for action, want := range map[api.Action]string{"": "x: g (deny)", "Allow": "x: g (deny)", api.Deny: "x: g (deny)", api.Pass: "x: g (pass)"} {
		var c contents
		c.pod("ns", "p", "", "10.0.0.1")
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {tier: x}\n")
		c.objects = append(c.objects, &api.Tier{Meta: api.Named(api.KindTier, "", "x"), Spec: api.TierSpec{DefaultAction: action}})
		s, _ := c.compute(t)
		equal(t, string(action), tiersText(s.Endpoints["calip"].Ingress), want)
	}
}

// A record that names no WorkloadEndpoint tells nothing of whom policies select: all is denied,
// also what a policy of all pods would allow.
func TestRecordWithoutEndpointIsDeniedAll(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow}], egress: [{action: Allow}]}\n")
	packet := dataplane.Packet{In: "calip", Out: "eth0", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.9.9"), Protocol: dataplane.TCP, DstPort: 80}
	s, _ := c.compute(t)
	equal(t, "with its endpoint", dataplane.Eval(s, packet).Verdict, dataplane.Accept)
	c.attachments[0].Endpoint = nil
	s, ps := c.compute(t)
	equal(t, "without", dataplane.Eval(s, packet).Verdict, dataplane.Drop)
	equal(t, "problems", len(ps), 1)
}

func TestGlobalPolicySelectsByNamespaceAndServiceAccount(t *testing.T) {
	var c contents
	for _, ns := range []string{"prod", "dev"} {
		w := c.pod(ns, ns, "x=a", "10.0.0."+strconvLen(ns))
		w.Spec.ServiceAccountName = "sa"
		w.Spec.Profiles = append(w.Spec.Profiles, "ksa."+ns+".sa")
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: kns."+ns+"}\nspec: {labelsToApply: {pcns.env: "+ns+"}}\n")
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: ksa."+ns+".sa}\nspec: {labelsToApply: {pcsa.role: "+ns+"}}\n")
	}
	for spec, want := range map[string]string{
		"namespaceSelector: env == 'prod'":                                      "caliprod",
		"namespaceSelector: all()":                                              "calidev caliprod",
		"serviceAccountSelector: role == 'dev'":                                 "calidev",
		"serviceAccountSelector: all()":                                         "calidev caliprod",
		"namespaceSelector: env == 'prod', serviceAccountSelector: role=='dev'": "",
		"selector: env == 'prod'":                                               "",
	} {
		d := c
		d.objects = slices.Clone(c.objects)
		d.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {"+spec+"}\n")
		s, _ := d.compute(t)
		var got []string
		for i, e := range s.Endpoints {
			if len(e.Ingress) > 0 {
				got = append(got, string(i))
			}
		}
		slices.Sort(got)
		equal(t, spec, strings.Join(got, " "), want)
	}
}

func strconvLen(s string) string { return fmt.Sprint(len(s)) }

// A change of a policy's order alone moves it.
func TestOrderChanges(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	g := New("node1")
	put := func(name string, order float64) {
		o := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", name)}
		o.Spec.Order = &order
		g.Put(o)
	}
	g.PutAttachment(c.attachments[0])
	put("a", 1)
	put("b", 2)
	state := dataplane.NewState()
	state.Apply(g.Flush())
	equal(t, "before", tiersText(state.Endpoints["calip"].Ingress), "default: a b (deny)")
	put("a", 3)
	state.Apply(g.Flush())
	equal(t, "after", tiersText(state.Endpoints["calip"].Ingress), "default: b a (deny)")
}

// A policy governs the directions of its types; if it was stored without any, those that
// it has rules for, and ingress if it has none. Rules of the other direction are idle.
func TestTypes(t *testing.T) {
	rules := []api.Rule{{Action: api.Allow, Source: api.EntityRule{Selector: "has(x)"}}}
	in, out := []api.PolicyType{api.Ingress}, []api.PolicyType{api.Egress}
	for _, test := range []struct {
		name            string
		types           []api.PolicyType
		ingress, egress []api.Rule
		want            string
	}{
		{"nothing", nil, nil, nil, "ingress 0"},
		{"ingress rules", nil, rules, nil, "ingress 1"},
		{"egress rules", nil, nil, rules, "egress 1"},
		{"both", nil, rules, rules, "ingress 1 egress 1"},
		{"ingress only", in, rules, rules, "ingress 1"},
		{"egress only", out, rules, rules, "egress 1"},
		{"egress only, without rules", out, rules, nil, "egress 0"},
	} {
		var c contents
		c.pod("ns", "p", "", "10.0.0.1")
		o := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", "g")}
		o.Spec.Types, o.Spec.Ingress, o.Spec.Egress = test.types, test.ingress, test.egress
		c.objects = append(c.objects, o)
		s, _ := c.compute(t)
		p := s.Policies[dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: "g"}]
		var got []string
		if len(s.Endpoints["calip"].Ingress) > 0 {
			got = append(got, fmt.Sprint("ingress ", len(p.Ingress)))
		} else {
			equal(t, test.name+": idle ingress rules", len(p.Ingress), 0)
		}
		if len(s.Endpoints["calip"].Egress) > 0 {
			got = append(got, fmt.Sprint("egress ", len(p.Egress)))
		} else {
			equal(t, test.name+": idle egress rules", len(p.Egress), 0)
		}
		equal(t, test.name, strings.Join(got, " "), test.want)
	}
}

// doNotTrack and preDNAT policies are for hosts' interfaces. applyOnForward adds to a
// policy, as upstream has it: it governs pods too.
func TestHostPolicies(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	for _, f := range []string{"doNotTrack", "preDNAT"} {
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: "+strings.ToLower(f)+"}\nspec: {applyOnForward: true, "+f+": true}\n")
	}
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: forward}\nspec: {applyOnForward: true}\n")
	s, ps := c.compute(t)
	equal(t, "ingress", tiersText(s.Endpoints["calip"].Ingress), "default: forward (deny)")
	var reasons []string
	for _, p := range ps {
		reasons = append(reasons, strings.Join(strings.SplitN(p, ": ", 3)[:2], " "))
	}
	equal(t, "problems", reasons, []string{"GlobalNetworkPolicy(donottrack) Unsupported", "GlobalNetworkPolicy(prednat) Unsupported", "Profile(kns.ns) NoProfile"})
}

// What cannot be read fails closed; see the package's description.
func TestFailClosed(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	c.pod("other", "q", "", "10.0.0.2")
	policy := &api.NetworkPolicy{Meta: api.Named(api.KindNetworkPolicy, "ns", "broken")}
	policy.Spec = api.NetworkPolicySpec{Selector: "x ==", Ingress: []api.Rule{{Action: api.Allow}}}
	lost := &api.NetworkPolicy{Meta: api.Named(api.KindNetworkPolicy, "other", "lost")}
	lost.Spec = api.NetworkPolicySpec{Tier: "gone", Ingress: []api.Rule{{Action: api.Pass}}}
	c.objects = append(c.objects, policy, lost)
	s, ps := c.compute(t)

	equal(t, "whom it governs", tiersText(s.Endpoints["calip"].Ingress), "default: ns/broken (deny)")
	equal(t, "its rules", s.Policies[dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: "broken"}].Ingress, []dataplane.Rule{{Action: dataplane.Deny}})
	equal(t, "a tier that is not there", tiersText(s.Endpoints["caliq"].Ingress), "gone: other/lost (deny)")
	var reasons []string
	for _, p := range ps {
		reasons = append(reasons, strings.Join(strings.SplitN(p, ": ", 3)[:2], " "))
	}
	equal(t, "problems", reasons, []string{"NetworkPolicy(ns/broken) BadSelector", "NetworkPolicy(other/lost) NoTier", "Profile(kns.ns) NoProfile", "Profile(kns.other) NoProfile"})
}

// A stored endpoint has single addresses: a network that it claims is not taken for its own.
func TestEndpointOfANetwork(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	c.remote("node2", "ns", "q", "x=a", "10.0.2.1").Spec.IPNetworks = []string{"10.0.2.1/32", "0.0.0.0/0", "fd00::/64", "nonsense", "::ffff:10.0.2.2/128"}
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow, source: {selector: has(x)}}]}\n")
	s, _ := c.compute(t)
	equal(t, "members", ingressMembers(s), "10.0.2.1/32 10.0.2.2/32")
}

func TestProfileThatIsNotThereAllowsNothing(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	s, _ := c.compute(t)
	id := profileID("kns.ns")
	equal(t, "profiles", s.Endpoints["calip"].Profiles, []dataplane.PolicyID{id})
	equal(t, "its rules", s.Policies[id], &dataplane.Policy{ID: id})
}

// A pod that is made again keeps its interface's name: the later record is the live one.
func TestTwoAttachmentsOfOneInterface(t *testing.T) {
	older, newer := wepOf("node1", "ns", "p", "", "10.0.0.1"), wepOf("node1", "ns", "p", "", "10.0.0.2")
	newer.ResourceVersion = "11"
	a, b := record(older), record(newer)
	a.ID.ContainerID, b.ID.ContainerID = "zz", "aa"
	for _, as := range [][]*dataplane.Attachment{{a, b}, {b, a}} {
		c := contents{attachments: as}
		s, ps := c.compute(t)
		equal(t, "addresses", s.Endpoints["calip"].Addrs, b.Addrs)
		equal(t, "routes", len(s.Routes), 1)
		if !slices.ContainsFunc(ps, func(p string) bool { return strings.Contains(p, "DuplicatePod") }) {
			t.Errorf("problems %q do not name the duplicate", ps)
		}
	}
}

func TestProblemsNameDuplicateAddresses(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	c.pod("ns", "q", "", "10.0.0.1")
	s, ps := c.compute(t)
	equal(t, "route", s.Routes[netip.MustParsePrefix("10.0.0.1/32")], dataplane.Route{Kind: dataplane.RouteWorkload, Device: "calip"})
	if !slices.ContainsFunc(ps, func(p string) bool {
		return strings.Contains(p, "DuplicateAddress: address 10.0.0.1 is also that of ns/p")
	}) {
		t.Errorf("problems %q do not name the duplicate", ps)
	}
}

// The problem names the attachment that holds the interface now, though its address and
// so its route are those of the one before.
func TestDuplicateAddressNamesThePresentAttachment(t *testing.T) {
	g := New("node1")
	g.PutAttachment(record(wepOf("node1", "ns", "p", "", "10.0.0.1")))
	old := record(wepOf("node1", "ns", "q", "", "10.0.0.1"))
	old.Endpoint = nil // so that problems go by the container
	g.PutAttachment(old)
	g.Flush()
	now := *old
	now.ID.ContainerID = "another"
	g.RemoveAttachment(old.ID)
	g.PutAttachment(&now)
	g.Flush()
	for _, p := range g.Problems() {
		if p.Reason == DuplicateAddress && p.Object.Name != "another" {
			t.Errorf("%+v names an attachment that is gone", p)
		}
	}
	if len(g.Problems()) == 0 {
		t.Error("no problem")
	}
}

// An address that two endpoints hold stays in a set until both are gone.
func TestSetMemberHeldTwice(t *testing.T) {
	g := New("node1")
	w := wepOf("node1", "default", "busybox02", "run=busybox02", "10.0.0.2")
	g.PutAttachment(record(w))
	var c contents
	c.yaml(t, allowPolicy)
	one := c.remote("node2", "default", "one", "run=busybox01", "10.0.1.1")
	two := c.remote("node3", "default", "two", "run=busybox01", "10.0.1.1")
	for _, o := range c.objects {
		g.Put(o)
	}
	s := dataplane.NewState()
	s.Apply(g.Flush())
	members := func() string {
		for id, m := range s.Sets {
			if strings.HasPrefix(string(id), "s:") {
				return membersText(m)
			}
		}
		return "no set"
	}
	equal(t, "both", members(), "10.0.1.1/32")
	g.Remove(store.KeyOf(one))
	if d := g.Flush(); !d.Empty() {
		t.Errorf("one goes: the delta is %+v, want an empty one", d)
	}
	g.Remove(store.KeyOf(two))
	s.Apply(g.Flush())
	equal(t, "both gone", members(), "")
}

// A named port is the number that each endpoint gives that name, in the rule's protocol.
func TestNamedPorts(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	for i, ports := range [][]api.EndpointPort{
		{{Name: "dns", Protocol: "UDP", Port: 53}, {Name: "dns", Protocol: "TCP", Port: 54}, {Name: "other", Protocol: "UDP", Port: 55}},
		{{Name: "dns", Protocol: "17", Port: 5353}},
		{{Name: "dns", Protocol: "TCP", Port: 53}},
	} {
		w := c.remote("node2", "ns", fmt.Sprint("s", i), "x=a", fmt.Sprint("10.0.1.", i))
		w.Spec.Ports = ports
	}
	c.yaml(t, `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: g}
spec: {egress: [{action: Allow, protocol: UDP, destination: {selector: x == 'a', ports: [dns]}}]}
`)
	s, _ := c.compute(t)
	p := s.Policies[dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: "g"}]
	equal(t, "members", membersText(s.Sets[p.Egress[0].Dst.PortSets[0]]), "10.0.1.0,17:53 10.0.1.1,17:5353")
}

// A pod whose named port changes, with or without its addresses, is in the sets as it is now.
func TestNamedPortChanges(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {egress: [{action: Allow, protocol: UDP, destination: {selector: x == 'a', ports: [dns]}}]}\n")
	g := c.load()
	s := dataplane.NewState()
	for _, step := range []struct {
		addrs []string
		port  api.EndpointPort
		want  string
	}{
		{[]string{"10.0.1.1", "10.0.1.2"}, api.EndpointPort{Name: "dns", Protocol: "UDP", Port: 53}, "10.0.1.1,17:53 10.0.1.2,17:53"},
		{[]string{"10.0.1.1", "10.0.1.2"}, api.EndpointPort{Name: "dns", Protocol: "UDP", Port: 54}, "10.0.1.1,17:54 10.0.1.2,17:54"},
		{[]string{"10.0.1.1", "10.0.1.3"}, api.EndpointPort{Name: "dns", Protocol: "UDP", Port: 55}, "10.0.1.1,17:55 10.0.1.3,17:55"},
		{[]string{"10.0.1.4", "10.0.1.3"}, api.EndpointPort{Name: "dns", Protocol: "UDP", Port: 55}, "10.0.1.3,17:55 10.0.1.4,17:55"},
		{[]string{"10.0.1.4", "10.0.1.3"}, api.EndpointPort{Name: "dns", Protocol: "TCP", Port: 55}, ""},
		{[]string{"10.0.1.4"}, api.EndpointPort{Name: "dns", Protocol: "UDP", Port: 55}, "10.0.1.4,17:55"},
	} {
		w := wepOf("node2", "ns", "s", "x=a", step.addrs...)
		w.Spec.Ports = []api.EndpointPort{step.port}
		g.Put(w)
		s.Apply(g.Flush())
		p := s.Policies[dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: "g"}]
		equal(t, fmt.Sprint(step.addrs, step.port), membersText(s.Sets[p.Egress[0].Dst.PortSets[0]]), step.want)
	}
}

// Objects of no concern, or without the metadata that tells their kind, do no harm.
func TestPutAnything(t *testing.T) {
	g := New("node1")
	for _, k := range api.Kinds() {
		g.Put(k.New())
		o := k.New()
		o.SetName("x")
		o.SetNamespace("x")
		g.Put(o)
		g.Remove(store.KeyOf(o))
		g.Remove(store.Key{Kind: k.Name})
	}
	g.Put(&api.NetworkPolicy{})
	g.Put(&api.IPPool{Meta: api.Meta{}})
	g.Remove(store.Key{Kind: "Nonsense", Name: "x"})
	g.RemoveAttachment(dataplane.AttachmentID{})
	d := g.Flush()
	d.Settings = nil
	for _, id := range ownSets {
		delete(d.Sets, id)
	}
	if !d.Empty() {
		t.Errorf("the delta is %+v, want an empty one", d)
	}
}
