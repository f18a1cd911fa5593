package calc

import (
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/selector"
)

func nets(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, n := range s {
		ps = append(ps, netip.MustParsePrefix(n))
	}
	return ps
}

// odd are the odd ports from one to another.
func odd(from, to uint16) (rs []dataplane.PortRange) {
	for p := from; p <= to; p += 2 {
		rs = append(rs, dataplane.PortRange{Min: p, Max: p})
	}
	return rs
}

func sets(selectors ...string) []dataplane.SetID {
	var ids []dataplane.SetID
	for _, s := range selectors {
		ids = append(ids, dataplane.SetID(selector.MustParse(s).ID()))
	}
	return ids
}

func TestRules(t *testing.T) {
	const tcp = dataplane.TCP
	http := portSet(selector.All(), "http", tcp).id
	for _, test := range []struct {
		name, namespace, rule string
		want                  dataplane.Rule
	}{
		{"nothing matches everything", "", "action: Allow",
			dataplane.Rule{Action: dataplane.Allow}},
		{"protocol by name", "", "{action: Deny, protocol: UDP, notProtocol: SCTP}",
			dataplane.Rule{Action: dataplane.Deny, Protocol: dataplane.UDP, NotProtocol: dataplane.SCTP}},
		{"protocol by number", "", "{action: Pass, protocol: 47}",
			dataplane.Rule{Action: dataplane.Pass, Protocol: 47}},
		{"ICMP means IPv4", "", "{action: Log, protocol: ICMP, icmp: {type: 8}}",
			dataplane.Rule{Action: dataplane.Log, Family: 4, Protocol: 1, ICMP: &dataplane.ICMP{Type: 8}}},
		{"ICMPv6 means IPv6", "", "{action: Allow, protocol: ICMPv6, notICMP: {type: 1, code: 0}}",
			dataplane.Rule{Action: dataplane.Allow, Family: 6, Protocol: 58, NotICMP: &dataplane.ICMP{Type: 1, HasCode: true}}},
		{"ipVersion", "", "{action: Allow, ipVersion: 6}",
			dataplane.Rule{Action: dataplane.Allow, Family: 6}},
		{"nets are normalised; those of one family restrict to it", "", "{action: Allow, source: {nets: [10.1.2.3, 10.0.0.7/8, 10.9.0.0/16, 192.168.0.0/24, 192.168.0.0/24]}}",
			dataplane.Rule{Action: dataplane.Allow, Family: 4, Src: dataplane.Peer{Nets: nets("10.0.0.0/8", "192.168.0.0/24")}}},
		{"so do negated ones", "", "{action: Deny, destination: {notNets: ['fd00::/8']}}",
			dataplane.Rule{Action: dataplane.Deny, Family: 6, Dst: dataplane.Peer{NotNets: nets("fd00::/8")}}},
		{"nets of both families", "", "{action: Allow, source: {nets: ['fd00::/8', 10.0.0.0/8]}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Nets: nets("10.0.0.0/8", "fd00::/8")}}},
		{"ports are joined", "", "{action: Allow, protocol: TCP, destination: {ports: [443, 80, '81:90', '85:100'], notPorts: [82]}}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: tcp, Dst: dataplane.Peer{
				Ports: []dataplane.PortRange{{Min: 80, Max: 100}, {Min: 443, Max: 443}}, NotPorts: []dataplane.PortRange{{Min: 82, Max: 82}}}}},
		{"named ports are those of all endpoints", "ns", "{action: Allow, protocol: TCP, destination: {ports: [80, http]}}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: tcp, Dst: dataplane.Peer{
				Ports: []dataplane.PortRange{{Min: 80, Max: 80}}, PortSets: []dataplane.SetID{http}}}},
		{"or of those that the rule selects", "", "{action: Allow, protocol: TCP, destination: {selector: x == 'a', ports: [http]}}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: tcp, Dst: dataplane.Peer{Sets: sets("x == 'a'"),
				PortSets: []dataplane.SetID{portSet(selector.MustParse("x == 'a'"), "http", tcp).id}}}},
		{"a selector in a global policy", "", "{action: Allow, source: {selector: x == 'a', notSelector: y == 'b'}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("x == 'a' && !y == 'b'")}}},
		{"a notSelector alone", "", "{action: Allow, source: {notSelector: y == 'b'}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{NotSets: sets("y == 'b'")}}},
		{"a selector in a namespace is confined to it", "ns", "{action: Allow, source: {selector: x == 'a'}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("projectcalico.org/namespace == 'ns' && x == 'a'")}}},
		{"so is a negated one", "ns", "{action: Allow, source: {notSelector: x == 'a'}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("projectcalico.org/namespace == 'ns' && !x == 'a'")}}},
		{"service accounts that are there but empty match all", "ns", "{action: Deny, source: {serviceAccounts: {}}}",
			dataplane.Rule{Action: dataplane.Deny}},
		{"and service accounts", "ns", "{action: Allow, source: {serviceAccounts: {names: [b, a], selector: role == 'r'}}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets(
				"projectcalico.org/namespace == 'ns' && pcsa.role == 'r' && projectcalico.org/serviceaccount in {'a','b'}")}}},
		{"nets are not", "ns", "{action: Allow, source: {nets: [10.0.0.0/8]}}",
			dataplane.Rule{Action: dataplane.Allow, Family: 4, Src: dataplane.Peer{Nets: nets("10.0.0.0/8")}}},
		{"a namespaceSelector lifts the confinement", "ns", "{action: Allow, source: {selector: x == 'a', namespaceSelector: env == 'prod'}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("pcns.env == 'prod' && x == 'a'")}}},
		{"namespaceSelector all()", "ns", "{action: Allow, source: {namespaceSelector: all()}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("has(projectcalico.org/namespace)")}}},
		{"namespaceSelector global()", "ns", "{action: Allow, source: {namespaceSelector: global()}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("!has(projectcalico.org/namespace)")}}},
		{"notNets of both families restrict to none", "", "{action: Deny, source: {notNets: ['fd00::/8', 10.0.0.0/8]}}",
			dataplane.Rule{Action: dataplane.Deny, Src: dataplane.Peer{NotNets: nets("10.0.0.0/8", "fd00::/8")}}},
		{"a selector and nets are and-ed", "", "{action: Allow, source: {selector: x == 'a', nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}",
			dataplane.Rule{Action: dataplane.Allow, Family: 4, Src: dataplane.Peer{Sets: sets("x == 'a'"), Nets: nets("10.0.0.0/8"), NotNets: nets("10.1.0.0/16")}}},
		{"ICMP without a type says nothing of the family", "", "{action: Allow, protocol: ICMP}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: 1}},
		{"nor does ICMPv6", "", "{action: Allow, protocol: ICMPv6, icmp: {}}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: 58}},
		{"names and numbers of protocols", "", "{action: Deny, protocol: '6', notProtocol: udplite}",
			dataplane.Rule{Action: dataplane.Deny, Protocol: tcp, NotProtocol: dataplane.UDPLite}},
		{"more ports than a kernel's match takes", "", "{action: Allow, protocol: TCP, source: {ports: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33]}}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: tcp, Src: dataplane.Peer{Ports: odd(1, 33)}}},
		{"negated named ports, of the endpoints that the rule selects", "ns", "{action: Deny, protocol: TCP, destination: {namespaceSelector: all(), notPorts: [http, 81]}}",
			dataplane.Rule{Action: dataplane.Deny, Protocol: tcp, Dst: dataplane.Peer{Sets: sets("has(projectcalico.org/namespace)"),
				NotPorts: []dataplane.PortRange{{Min: 81, Max: 81}}, NotPortSets: []dataplane.SetID{portSet(selector.MustParse("has(projectcalico.org/namespace)"), "http", tcp).id}}}},
		{"a namespaceSelector with service accounts", "ns", "{action: Allow, source: {namespaceSelector: env == 'prod', serviceAccounts: {names: [a]}}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("pcns.env == 'prod' && projectcalico.org/serviceaccount in {'a'}")}}},
		{"a service, of the policy's namespace, as a source", "ns", "{action: Allow, source: {services: {name: dns}}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{serviceSet(service{"ns", "dns"}, false).id}}}},
		{"a service of another namespace", "ns", "{action: Allow, source: {services: {namespace: other, name: dns}}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{serviceSet(service{"other", "dns"}, false).id}}}},
		{"as a source with ports of its own", "ns", "{action: Allow, protocol: UDP, source: {services: {name: dns}, ports: [53]}}",
			dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.UDP, Src: dataplane.Peer{Sets: []dataplane.SetID{serviceSet(service{"ns", "dns"}, false).id}, Ports: []dataplane.PortRange{{Min: 53, Max: 53}}}}},
		{"a service as a destination says protocol and port itself", "", "{action: Deny, destination: {services: {namespace: ns, name: dns}}}",
			dataplane.Rule{Action: dataplane.Deny, Dst: dataplane.Peer{PortSets: []dataplane.SetID{serviceSet(service{"ns", "dns"}, true).id}}}},
		{"a service account selector all()", "", "{action: Allow, source: {serviceAccounts: {selector: all()}}}",
			dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: sets("has(projectcalico.org/serviceaccount)")}}},
	} {
		c := compileRules([]api.Rule{parseRule(t, test.rule)}, test.namespace, "ingress")
		equal(t, test.name, c.rules, []dataplane.Rule{test.want})
		equal(t, test.name+": errors", len(c.errs), 0)
	}
}

// Ports of one name are told apart by their protocol, and by whose they are.
func TestNamedPortSetsDiffer(t *testing.T) {
	all, some := selector.All(), selector.MustParse("has(x)")
	ids := map[dataplane.SetID]bool{}
	for _, s := range []set{
		portSet(all, "dns", dataplane.TCP), portSet(all, "dns", dataplane.UDP),
		portSet(all, "dns2", dataplane.UDP), portSet(some, "dns", dataplane.UDP), selectorSet(all),
	} {
		ids[s.id] = true
	}
	equal(t, "ids", len(ids), 5)
}

func parseRule(t *testing.T, text string) api.Rule {
	t.Helper()
	var r api.Rule
	if err := yaml.UnmarshalStrict([]byte(text), &r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return r
}

// What cannot be read or enforced makes an Allow or Log vanish, and a Deny or Pass a Deny
// without that condition.
func TestRulesFailClosed(t *testing.T) {
	for _, test := range []struct {
		condition, err string
		deny           dataplane.Rule
	}{
		{"protocol: FOO", `protocol "FOO"`, dataplane.Rule{}},
		{"ipVersion: 5", "ipVersion 5", dataplane.Rule{}},
		{"icmp: {type: 8}", "icmp needs protocol", dataplane.Rule{}},
		{"protocol: ICMP, icmp: {type: 300}", "want a type", dataplane.Rule{Family: 4, Protocol: 1}},
		{"protocol: ICMP, icmp: {code: 3}", "want a type", dataplane.Rule{Family: 4, Protocol: 1}},
		{"source: {nets: [10.0.0.0/8, nonsense]}", `source.nets: "nonsense"`, dataplane.Rule{}},
		{"source: {notNets: [10.0.0.0/33]}", "source.notNets", dataplane.Rule{}},
		{"source: {nets: ['::ffff:10.0.0.0/64']}", "IPv4-mapped", dataplane.Rule{}},
		{"destination: {ports: [80]}", "ports need a protocol", dataplane.Rule{}},
		{"protocol: TCP, destination: {selector: 'x ==', ports: [80]}", "destination.selector", dataplane.Rule{Protocol: 6, Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 80, Max: 80}}}}},
		{"protocol: TCP, destination: {selector: 'x ==', notPorts: [http]}", "destination.selector", dataplane.Rule{Protocol: 6}},
		{"source: {notSelector: 'x =='}", "source.notSelector", dataplane.Rule{}},
		{"protocol: TCP, destination: {selector: has(x), notSelector: 'x ==', notPorts: [http]}", "destination.notSelector", dataplane.Rule{Protocol: 6, Dst: dataplane.Peer{Sets: sets("has(x)")}}},
		{"source: {namespaceSelector: 'x =='}", "source.namespaceSelector", dataplane.Rule{}},
		{"source: {serviceAccounts: {selector: 'x =='}}", "source.serviceAccounts.selector", dataplane.Rule{}},
		{"protocol: ICMP, icmp: {type: 255}", "want a type", dataplane.Rule{Family: 4, Protocol: 1}},
		{"protocol: UDP, destination: {services: {name: dns}}", "destination.services: want the name", dataplane.Rule{Protocol: 17}},
		{"source: {services: {namespace: ns}}", "source.services: want the name", dataplane.Rule{}},
		{"source: {services: {namespace: ns, name: dns}, notSelector: has(x)}", "source.services cannot be combined", dataplane.Rule{Src: dataplane.Peer{NotSets: sets("has(x)")}}},
		{"source: {services: {namespace: ns, name: dns}, notNets: [10.0.0.0/8]}", "source.services cannot be combined", dataplane.Rule{Family: 4, Src: dataplane.Peer{NotNets: nets("10.0.0.0/8")}}},
		{"destination: {services: {namespace: ns, name: dns}, nets: [10.0.0.0/8]}", "destination.services cannot be combined", dataplane.Rule{Family: 4, Dst: dataplane.Peer{Nets: nets("10.0.0.0/8")}}},
		{"destination: {services: {namespace: ns, name: dns}, namespaceSelector: all()}", "destination.services cannot be combined", dataplane.Rule{Dst: dataplane.Peer{Sets: sets("has(projectcalico.org/namespace)")}}},
		{"source: {services: {namespace: ns, name: dns}, serviceAccounts: {}}", "source.services cannot be combined", dataplane.Rule{}},
		{"protocol: UDP, destination: {services: {namespace: ns, name: dns}, notPorts: [53]}", "cannot be combined with ports", dataplane.Rule{Protocol: 17, Dst: dataplane.Peer{NotPorts: []dataplane.PortRange{{Min: 53, Max: 53}}}}},
		{"protocol: UDP, destination: {services: {namespace: ns, name: dns}, ports: [53]}", "cannot be combined with ports", dataplane.Rule{Protocol: 17, Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: 53, Max: 53}}}}},
		{"protocol: TCP, http: {methods: [GET]}", "http is not enforced", dataplane.Rule{Protocol: 6}},
	} {
		test.deny.Action = dataplane.Deny
		for action, want := range map[string][]dataplane.Rule{"Allow": nil, "Log": nil, "Deny": {test.deny}, "Pass": {test.deny}} {
			c := compileRules([]api.Rule{parseRule(t, "{action: "+action+", "+test.condition+"}")}, "", "ingress")
			equal(t, action+" "+test.condition, c.rules, want)
			if len(c.errs) == 0 || !strings.HasPrefix(c.errs[0].text, "ingress[0]: ") || !strings.Contains(c.errs[0].text, test.err) {
				t.Errorf("%s: errors %+v do not say %q", test.condition, c.errs, test.err)
			}
		}
	}
	c := compileRules([]api.Rule{{Action: "Accept"}}, "", "egress")
	equal(t, "an unknown action denies", c.rules, []dataplane.Rule{{Action: dataplane.Deny}})
}

// A rule whose conditions exclude each other matches nothing; it must not match all.
func TestRulesThatNeverMatch(t *testing.T) {
	for _, rule := range []string{
		"{action: Deny, source: {nets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}}",
		"{action: Allow, ipVersion: 6, source: {nets: [10.0.0.0/8]}}",
		"{action: Allow, ipVersion: 6, protocol: ICMP, icmp: {type: 8}}",
	} {
		c := compileRules([]api.Rule{parseRule(t, rule)}, "", "ingress")
		equal(t, rule, c.rules, []dataplane.Rule(nil))
		equal(t, rule+": errors", len(c.errs), 0)
	}
}

// A rule says where it stands in the policy as it was written, also behind those left out.
func TestRuleIndex(t *testing.T) {
	c := compileRules([]api.Rule{parseRule(t, "{action: Allow, protocol: nonsense}"), parseRule(t, "{action: Deny}"),
		parseRule(t, "{action: Allow, ipVersion: 4, source: {nets: ['fd00::/8']}}"), parseRule(t, "{action: Allow}")}, "", "ingress")
	equal(t, "rules", c.rules, []dataplane.Rule{{Action: dataplane.Deny, Index: 1}, {Action: dataplane.Allow, Index: 3}})
}
