package calc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

// sets has a network set of each kind in two namespaces and in none, a pod beside them, and
// the labels of the namespaces.
const setsOfEachKind = `
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {namespace: prod, name: n, labels: {role: db, pcns.env: forged, projectcalico.org/namespace: forged}}
spec: {nets: [198.51.100.0/24, 10.0.0.1/32, 'fd00::/64']}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {namespace: dev, name: n, labels: {role: db}}
spec: {nets: [198.51.100.128/25, 198.51.100.128/25, 198.51.100.200/25]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: g, labels: {role: db, projectcalico.org/namespace: prod, pcns.env: prod}}
spec: {nets: [203.0.113.7]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.prod}
spec: {labelsToApply: {pcns.env: prod}}
`

// ingressMembers are the members of the one set that the one ingress rule of a policy g names.
func ingressMembers(s *dataplane.State) string {
	for id, p := range s.Policies {
		if id.Kind == "Profile" {
			continue
		}
		src := p.Ingress[0].Src
		ids := slices.Concat(src.Sets, src.NotSets)
		if len(ids) != 1 {
			return fmt.Sprint(len(ids), " sets")
		}
		return membersText(s.Sets[ids[0]])
	}
	return "no policy"
}

// The nets of a network set are in the sets of the selectors that match its labels: of a
// namespace, as its pods' are; of none, only where a rule looks beyond a namespace.
func TestNetworkSetsAreMembers(t *testing.T) {
	const prod, dev, global = "10.0.0.1/32 198.51.100.0/24 fd00::/64", "198.51.100.128/25", "203.0.113.7/32"
	for source, want := range map[string]string{
		"selector: role == 'db'":                                                                      "10.0.0.1/32 198.51.100.0/24 198.51.100.128/25 203.0.113.7/32 fd00::/64",
		"selector: role == 'db', namespaceSelector: all()":                                            "10.0.0.1/32 198.51.100.0/24 198.51.100.128/25 fd00::/64",
		"selector: role == 'db', namespaceSelector: global()":                                         global,
		"namespaceSelector: global()":                                                                 global,
		"selector: role == 'db', namespaceSelector: '!global()'":                                      "10.0.0.1/32 198.51.100.0/24 198.51.100.128/25 fd00::/64",
		"namespaceSelector: env == 'prod'":                                                            prod,
		"namespaceSelector: env == 'forged'":                                                          "",
		"selector: projectcalico.org/namespace == 'prod'":                                             prod,
		"selector: projectcalico.org/namespace == 'forged'":                                           "",
		"selector: role == 'db', namespaceSelector: env != 'prod'":                                    dev + " " + global,
		"selector: role == 'db' && has(projectcalico.org/namespace), notSelector: pcns.env == 'prod'": dev,
		"notSelector: role == 'db'":                                                                   "10.0.0.1/32 198.51.100.0/24 198.51.100.128/25 203.0.113.7/32 fd00::/64",
		"serviceAccounts: {selector: all()}":                                                          "",
	} {
		var c contents
		c.pod("prod", "p", "role=web", "10.0.0.1")
		c.yaml(t, setsOfEachKind)
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow, source: {"+source+"}}]}\n")
		s, _ := c.compute(t)
		equal(t, source, ingressMembers(s), want)
	}
	var c contents
	c.pod("prod", "p", "role=web", "10.0.0.1")
	c.yaml(t, setsOfEachKind)
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {namespace: prod, name: g}\nspec: {ingress: [{action: Allow, source: {selector: role == 'db'}}]}\n")
	s, _ := c.compute(t)
	equal(t, "in a namespace's policy", ingressMembers(s), prod)
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {ipv6Support: false}\n")
	s, _ = c.compute(t)
	equal(t, "without IPv6", ingressMembers(s), "10.0.0.1/32 198.51.100.0/24")
}

// A set may be of everything there is, alone or among others.
func TestNetworkSetOfEverything(t *testing.T) {
	for list, want := range map[string]string{
		"0.0.0.0/0":              "0.0.0.0/0",
		"0.0.0.0/32":             "0.0.0.0/32",
		"'::/0'":                 "::/0",
		"0.0.0.0/0, '::/0'":      "0.0.0.0/0 ::/0",
		"10.0.0.0/8, 0.0.0.0/0":  "0.0.0.0/0 10.0.0.0/8",
		"0.0.0.0/0, 10.0.0.0/8":  "0.0.0.0/0 10.0.0.0/8",
		"10.0.0.1, '::10.0.0.1'": "10.0.0.1/32 ::a00:1/128",
	} {
		var c contents
		c.pod("ns", "p", "", "10.0.0.1")
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow, source: {selector: has(x)}}]}\n")
		c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s, labels: {x: ''}}\nspec: {nets: ["+list+"]}\n")
		s, _ := c.compute(t)
		equal(t, list, ingressMembers(s), want)
	}
}

// A net that does not parse is left out and told of; no others are.
func TestNetworkSetThatDoesNotParse(t *testing.T) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow, source: {selector: has(x)}}]}\n")
	o := &api.GlobalNetworkSet{Meta: api.Named(api.KindGlobalNetworkSet, "", "s")}
	o.Labels = map[string]string{"x": ""}
	o.Spec.Nets = []string{"10.0.0.0/33", "10.1.0.0/16", "::ffff:10.2.0.0/112", "fe80::1%eth0"}
	c.objects = append(c.objects, o)
	s, ps := c.compute(t)
	equal(t, "members", ingressMembers(s), "10.1.0.0/16 10.2.0.0/16")
	n := 0
	for _, p := range ps {
		if strings.HasPrefix(p, "GlobalNetworkSet(s): BadAddress: nets[") {
			n++
		}
	}
	equal(t, "problems", n, 2)
}

// A /32 of a network set that is also a pod's address is there until both are gone, and a
// changed net moves nothing else.
func TestNetworkSetShares(t *testing.T) {
	g := New("node1")
	var c contents
	c.pod("ns", "p", "x=a", "10.0.0.1")
	w := c.remote("node2", "ns", "q", "x=a", "10.0.1.1")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {selector: has(x), ingress: [{action: Allow, source: {selector: has(x)}}]}\n")
	g.PutAttachment(c.attachments[0])
	for _, o := range c.objects {
		g.Put(o)
	}
	s := dataplane.NewState()
	set := func(nets ...string) string {
		o := &api.GlobalNetworkSet{Meta: api.Named(api.KindGlobalNetworkSet, "", "s")}
		o.Labels = map[string]string{"x": ""}
		o.Spec.Nets = nets
		g.Put(o)
		d := g.Flush()
		s.Apply(d)
		var add, remove []dataplane.Member
		for _, sd := range d.Sets {
			add, remove = append(add, sd.Add...), append(remove, sd.Remove...)
		}
		return fmt.Sprint("+", len(add), " -", len(remove), " = ", ingressMembers(s))
	}
	s.Apply(g.Flush())
	equal(t, "one net that is new", set("10.0.1.1", "10.0.0.0/8"), "+1 -0 = 10.0.0.0/8 10.0.0.1/32 10.0.1.1/32")
	equal(t, "in another order, and twice", set("10.0.0.0/8", "10.0.1.1", "10.0.1.1"), "+0 -0 = 10.0.0.0/8 10.0.0.1/32 10.0.1.1/32")
	equal(t, "one more in the middle", set("10.0.0.0/8", "10.9.0.0/16", "10.0.1.1", "10.0.1.1"), "+1 -0 = 10.0.0.0/8 10.0.0.1/32 10.0.1.1/32 10.9.0.0/16")
	g.Remove(store.KeyOf(w))
	equal(t, "the pod goes, and one of two", set("10.0.0.0/8", "10.0.1.1"), "+0 -1 = 10.0.0.0/8 10.0.0.1/32 10.0.1.1/32")
	equal(t, "the last goes", set("10.0.0.0/8"), "+0 -1 = 10.0.0.0/8 10.0.0.1/32")
	g.Remove(store.Key{Kind: kindGlobalNetworkSet, Name: "s"})
	s.Apply(g.Flush())
	equal(t, "the set goes", ingressMembers(s), "10.0.0.1/32")
}

// An address that one member excludes and another does not is in the set: what is selected
// and what is not are one selector, as upstream has it.
func TestNotSelectorExcludesMembersNotAddresses(t *testing.T) {
	var c contents
	c.pod("ns", "p", "x=a", "10.0.0.1")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s, labels: {bad: 'yes'}}\nspec: {nets: [10.0.0.0/8]}\n")
	c.yaml(t, "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {ingress: [{action: Allow, source: {selector: has(x), notSelector: has(bad)}}]}\n")
	s, _ := c.compute(t)
	equal(t, "members", ingressMembers(s), "10.0.0.1/32")
	p := dataplane.Packet{In: "calip", Out: "calip", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.1"), Protocol: dataplane.TCP}
	steps := dataplane.Eval(s, p).Steps
	for _, step := range steps {
		if step.Policy.Name == "g" && !step.Matched {
			t.Errorf("the rule does not match: %+v", step)
		}
	}
}
