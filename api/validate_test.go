package api

import (
	"fmt"
	"strings"
	"testing"
)

// doc makes a document of a kind; a name and, if it needs one, a namespace are given.
func doc(kind, body string) string {
	k, _ := KindNamed(kind)
	meta := "name: " + map[string]string{"IPAMConfiguration": "default", "ClusterInformation": "default", "BGPConfiguration": "default",
		"WorkloadEndpoint": "node01-k8s-busybox01-eth0"}[kind]
	if meta == "name: " {
		meta += "a"
	}
	if k.Namespaced {
		meta += ", namespace: prod"
	}
	if strings.HasPrefix(body, "metadata:") {
		meta = ""
	} else {
		meta = "metadata: {" + meta + "}\n"
	}
	return "apiVersion: projectcalico.org/v3\nkind: " + kind + "\n" + meta + body + "\n"
}

func check(t *testing.T, kind, body string) error {
	t.Helper()
	o, err := Decode([]byte(doc(kind, body)))
	if err != nil {
		return err
	}
	o.Default()
	return o.Validate()
}

const wepSpec = "spec: {node: node01, orchestrator: k8s, pod: busybox01, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32], "

func rule(s string) string { return "spec: {ingress: [{action: Allow, " + s + "}]}" }

var valid = []struct{ kind, body string }{
	{"IPPool", "spec: {cidr: 10.0.0.0/16}"},
	{"IPPool", "spec: {cidr: 'fd00::/64', vxlanMode: CrossSubnet}"},
	{"IPPool", "spec: {cidr: 10.0.0.0/26, blockSize: 26, ipipMode: Always, natOutgoing: true}"},
	{"IPPool", "spec: {cidr: 10.0.0.4/31, disabled: true}"}, // excludes addresses from NAT
	{"IPPool", "spec: {cidr: '2001:0DB8:0::/48'}"},
	{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], assignmentMode: Manual}"},
	{"IPPool", "spec: {cidr: 10.0.0.0/16, namespaceSelector: env == 'p', nodeSelector: has(rack)}\nstatus: {conditions: [{type: Allocatable, status: 'True', reason: OK, message: '', lastTransitionTime: '2026-01-01T00:00:00Z'}]}"},
	{"Node", "spec: {}"},
	{"Node", "spec: {bgp: {asNumber: 64512.1, ipv4Address: 10.0.0.1/24, ipv6Address: 'fd00::1/64', ipv4IPIPTunnelAddr: 10.1.0.1, routeReflectorClusterID: 1.0.0.1}, ipv4VXLANTunnelAddr: 10.1.0.2, ipv6VXLANTunnelAddr: 'fd01::1', vxlanTunnelMACAddr: '66:00:00:00:00:01', orchRefs: [{nodeName: n, orchestrator: k8s}], wireguard: {interfaceIPv4Address: 10.1.0.3}, addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}, {address: 10.0.0.1, type: InternalIP}], interfaces: [{name: eth0, addresses: [10.0.0.1]}]}\nstatus: {wireguardPublicKey: x=, podCIDRs: [10.244.0.0/24]}"},
	{"WorkloadEndpoint", wepSpec + "containerID: x, workload: '', serviceAccountName: default, mac: 'ee:ee:ee:ee:ee:ee', profiles: [kns.prod, ksa.prod.default], ipNATs: [{internalIP: 10.0.0.1, externalIP: 1.2.3.4}], ipv4Gateway: 10.0.0.2, ports: [{name: http, protocol: tcp, port: 80, hostPort: 8080, hostIP: 10.0.0.1}], allowSpoofedSourcePrefixes: [10.9.0.0/16], qosControls: {ingressBandwidth: 1000000, egressMaxConnections: 10, dscp: 46}}"},
	{"NetworkPolicy", "spec: {}"},
	{"NetworkPolicy", "metadata: {name: tier.name, namespace: a}"},
	{"NetworkPolicy", "metadata: {name: knp.default.a.b.c, namespace: a}"},
	{"NetworkPolicy", "metadata: {name: default.name, namespace: a}"}, // as older releases had it
	{"NetworkPolicy", "metadata: {name: a, namespace: a}\nspec: {order: null, types: [Egress, Ingress]}"},
	{"NetworkPolicy", "spec: {types: []}"},
	{"NetworkPolicy", "spec: {order: -1e3, ingress: [" + strings.Repeat("{action: Allow},", 1024) + "]}"},
	{"NetworkPolicy", rule("source: {nets: [" + strings.Repeat("10.0.0.1,", 256) + "]}")},
	{"NetworkPolicy", rule("protocol: TCP, source: {ports: [" + strings.Repeat("1,", 50) + "]}")},
	{"NetworkPolicy", rule("notProtocol: udplite, destination: {notSelector: '!has(a)', namespaceSelector: \"projectcalico.org/name == 'b'\"}")},
	{"NetworkPolicy", rule("protocol: 58, ipVersion: 6, icmp: {type: 128}, source: {nets: ['::/0']}")},
	{"NetworkPolicy", rule("protocol: SCTP, source: {ports: [1]}, destination: {ports: ['1:65535', http, '80'], notPorts: [9]}")},
	{"NetworkPolicy", rule("source: {serviceAccounts: {selector: \"a == '" + strings.Repeat("b", 1025) + "'\"}}")},
	{"GlobalNetworkPolicy", rule("source: {services: {name: a, namespace: b}, ports: [80]}, protocol: TCP")},
	{"GlobalNetworkPolicy", "metadata: {name: default.name}"},
	{"NetworkPolicy", "spec: {tier: security, order: 10.5, selector: 'a == \"b\"', serviceAccountSelector: has(x), types: [Ingress, Egress], performanceHints: [AssumeNeededOnEveryNode]}"},
	{"NetworkPolicy", rule("protocol: 132, destination: {ports: [1]}")},
	{"NetworkPolicy", rule("protocol: udplite, source: {notPorts: ['1:2', name]}")},
	{"NetworkPolicy", rule("ipVersion: 4, protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 254}")},
	{"NetworkPolicy", rule("source: {namespaceSelector: global()}, destination: {nets: [10.0.0.1, 10.1.2.3/8], notNets: [10.1.0.0/16]}")},
	{"NetworkPolicy", rule("source: {services: {name: db}}, metadata: {annotations: {why: because}}")},
	{"NetworkPolicy", rule("source: {serviceAccounts: {names: [default], selector: has(a)}}, http: {methods: [GET], paths: [{exact: /a}, {prefix: /b}]}, protocol: TCP")},
	{"NetworkPolicy", "spec: {egress: [{action: Log}, {action: Pass}, {action: Deny, destination: {services: {name: db, namespace: x}}}]}"},
	{"GlobalNetworkPolicy", "spec: {namespaceSelector: has(a), preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}"},
	{"GlobalNetworkPolicy", "spec: {doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]}"},
	{"Profile", "metadata: {name: kns.prod}\nspec: {labelsToApply: {pcns.projectcalico.org/name: prod}, ingress: [{action: Allow}]}"},
	{"NetworkSet", "spec: {}"},
	{"NetworkSet", "metadata: {name: a.b, namespace: prod, labels: {role: db}}\nspec: {nets: [10.0.0.0/8, 10.1.2.3, 10.1.2.3/8, 'fd00::/8', 'fd00::1']}"},
	{"GlobalNetworkSet", "metadata: {name: a, labels: {role: db}}\nspec: {nets: [0.0.0.0/0, '::/0', 192.0.2.1]}"},
	{"GlobalNetworkSet", ""},
	{"GlobalNetworkSet", "spec: {nets: [" + strings.Repeat("10.0.0.1,", 2000) + "]}"}, // no limit
	{"Tier", "spec: {order: 5, defaultAction: Pass}"},
	{"Tier", "metadata: {name: default}"},
	{"Tier", "metadata: {name: kube-admin}\nspec: {order: 1000, defaultAction: Pass}"},
	{"BlockAffinity", "metadata: {name: node01-10-0-0-0-26}\nspec: {cidr: 10.0.0.0/26, node: node01, state: confirmed, type: host, deleted: false}"},
	{"IPAMBlock", "spec: {cidr: 10.0.0.0/31, affinity: 'host:node01', strictAffinity: false, allocations: [0, null], unallocated: [1], attributes: [{handle_id: h, secondary: {node: n}}]}"},
	{"IPAMHandle", "spec: {handleID: h, block: {10.0.0.0/26: 1}}"},
	{"IPAMConfiguration", "spec: {strictAffinity: true, autoAllocateBlocks: false, maxBlocksPerHost: 3, ipCooldownSeconds: 60, kubeVirtVMAddressPersistence: Enabled}"},
	{"FelixConfiguration", "spec: {logSeverityScreen: Info, healthPort: 1, failsafeInboundHostPorts: [{port: 1}]}"},
	{"FelixConfiguration", "metadata: {name: node.node01}"},
	{"BGPConfiguration", "spec: {logSeverityScreen: debug, nodeToNodeMeshEnabled: true, asNumber: 64512, listenPort: 179, bindMode: NodeIP, communities: [{name: c, value: '1:2'}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [c, '1:2:3']}], serviceClusterIPs: [{cidr: 10.96.0.0/12}], nodeMeshPassword: {secretKeyRef: {name: s, key: k}}, nodeMeshMaxRestartTime: 120s, ignoredInterfaces: [eth9]}"},
	{"BGPPeer", "spec: {node: node01, peerIP: 10.0.0.1, asNumber: 64512}"},
	{"BGPPeer", "spec: {peerIP: '[fd00::1]:1179', asNumber: 1, reachableBy: 'fd00::2', ttlSecurity: 1, sourceAddress: None, reversePeering: Manual}"},
	{"BGPPeer", "spec: {nodeSelector: all(), localWorkloadSelector: has(bgp), asNumber: 64512.1}"},
	{"BGPPeer", "spec: {nodeSelector: has(rack), peerSelector: has(rr), filters: [a.b], nextHopMode: Self, password: {secretKeyRef: {name: s, key: k}}, maxRestartTime: 90s, keepaliveTime: 1s, numAllowedLocalASNumbers: 2, localASNumber: 7}"},
	{"BGPFilter", "spec: {}"},
	{"BGPFilter", "spec: {exportV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 9, max: 26}, source: RemotePeers, interface: 'eth*', peerType: eBGP, communities: {values: ['1:2']}, asPathPrefix: [64512, 1], priority: 100, operations: [{addCommunity: {value: '1:2:3'}}, {prependASPath: {prefix: [1, 1]}}, {setPriority: {value: 200}}]}, {action: Reject}], importV6: [{action: Reject, cidr: 'fd00::/8', matchOperator: NotEqual}]}"},
	{"ClusterInformation", "spec: {clusterGUID: g, clusterType: 'k8s,kdd', calicoVersion: v3, datastoreReady: true, variant: Calico}"},
}

func TestValid(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range valid {
		seen[c.kind] = true
		if err := check(t, c.kind, c.body); err != nil {
			t.Errorf("%s %s: %v", c.kind, c.body, err)
		}
	}
	for _, k := range Kinds() {
		if !seen[k.Name] && k.Group == "" { // users do not write those of Kubernetes in this form
			t.Errorf("no case of kind %s", k.Name)
		}
	}
}

func TestInvalid(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"IPPool", "metadata: {}\nspec: {cidr: 10.0.0.0/16}", "metadata.name: Required value"},
		{"IPPool", "metadata: {name: A_b}\nspec: {cidr: 10.0.0.0/16}", `metadata.name: Invalid value: "A_b"`},
		{"IPPool", "metadata: {name: a, namespace: b}\nspec: {cidr: 10.0.0.0/16}", "metadata.namespace: Forbidden"},
		{"IPPool", "metadata: {name: a, labels: {'a b': c}}\nspec: {cidr: 10.0.0.0/16}", `metadata.labels: Invalid value: "a b"`},
		{"NetworkPolicy", "metadata: {name: a}", "metadata.namespace: Required value"},
		{"IPPool", "spec: {}", "spec.cidr: Required value"},
		{"IPPool", "spec: {cidr: 10.0.0.1/16}", `spec.cidr: Invalid value: "10.0.0.1/16": must be written 10.0.0.0/16`},
		{"IPPool", "spec: {cidr: 10.0.0.0}", `spec.cidr: Invalid value: "10.0.0.0": must be a CIDR`},
		{"IPPool", "spec: {cidr: 10.0.0.0/33}", "must be a CIDR"},
		{"IPPool", "spec: {cidr: 169.254.0.0/20}", "overlaps the link-local range 169.254.0.0/16"},
		{"IPPool", "spec: {cidr: 'fe80::/64'}", "overlaps the link-local range fe80::/10"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, blockSize: 19}", "spec.blockSize: Invalid value: 19: is the prefix length of a block and must be from 20 to 32 for IPv4"},
		{"IPPool", "spec: {cidr: 'fd00::/64', blockSize: 26}", "must be from 116 to 128 for IPv6"},
		{"IPPool", "spec: {cidr: 10.0.0.0/27}", "is smaller than one block: blockSize is /26"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: Always}", "ipipMode and vxlanMode cannot both be enabled"},
		{"IPPool", "spec: {cidr: 'fd00::/64', ipipMode: Always}", "IPIP is not supported on IPv6 pools"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, vxlanMode: Sometimes}", `spec.vxlanMode: Unsupported value: "Sometimes": supported values: "Never", "Always", "CrossSubnet"`},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Tunnel]}", "cannot be combined with Workload or Tunnel"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Always}", "cannot have ipipMode or vxlanMode"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], disableBGPExport: true}", "cannot disable BGP export"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], nodeSelector: has(a)}", "must have all()"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [Tunnel], namespaceSelector: has(a)}", "allowedUses Tunnel cannot have one"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, allowedUses: [Dance]}", `spec.allowedUses[0]: Unsupported value: "Dance"`},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, nodeSelector: global()}", "global() can only be used in the namespaceSelector"},
		{"IPPool", "spec: {cidr: 10.0.0.0/16, nodeSelector: 'a ='}", `spec.nodeSelector: Invalid value: "a ="`},
		{"Node", "spec: {bgp: {}}", "spec.bgp: Required value"},
		{"Node", "spec: {bgp: {ipv4Address: 'fd00::1/64'}}", "spec.bgp.ipv4Address: Invalid value: \"fd00::1/64\": must be IPv4"},
		{"Node", "spec: {bgp: {asNumber: 4294967296}}", "AS number"},
		{"Node", "spec: {ipv4VXLANTunnelAddr: x}", "must be an IP address"},
		{"Node", "spec: {vxlanTunnelMACAddr: x}", "must be a MAC address"},
		{"Node", "spec: {addresses: [{address: x, type: y}]}", "spec.addresses[0].address"},
		{"WorkloadEndpoint", "metadata: {name: x, namespace: a}\n" + wepSpec + "}", "must be node01-k8s-busybox01-eth0"},
		{"WorkloadEndpoint", "spec: {}", "spec.interfaceName: Required value"},
		{"WorkloadEndpoint", "spec: {interfaceName: caliabcdefghijkl}", "1 to 15 letters"},
		{"WorkloadEndpoint", "spec: {interfaceName: a, ipNetworks: [10.0.0.0/24]}", "must be one address: /32 or /128"},
		{"WorkloadEndpoint", wepSpec + "ipNATs: [{internalIP: 10.0.0.9, externalIP: 1.2.3.4}]}", "must be one of ipNetworks"},
		{"WorkloadEndpoint", wepSpec + "ipNATs: [{internalIP: 10.0.0.1, externalIP: 'fd00::1'}]}", "of the version of internalIP"},
		{"WorkloadEndpoint", wepSpec + "ports: [{name: a, protocol: ICMP, port: 1}]}", "must be TCP, UDP, SCTP or UDPLite"},
		{"WorkloadEndpoint", wepSpec + "ports: [{name: a, protocol: TCP, port: 0}]}", "must be from 1 to 65535"},
		{"NetworkPolicy", "metadata: {name: a.b.c, namespace: a}", "must be NAME or TIER.NAME"},
		{"GlobalNetworkPolicy", "metadata: {name: knp.default.a}", "must be NAME or TIER.NAME"},
		{"NetworkPolicy", "spec: {tier: A}", "spec.tier: Invalid value"},
		{"NetworkPolicy", "spec: {types: [Ingress, Ingress]}", "spec.types[1]: Duplicate value"},
		{"NetworkPolicy", "spec: {types: [Up]}", `spec.types[0]: Unsupported value: "Up"`},
		{"NetworkPolicy", "spec: {performanceHints: [Hurry]}", "spec.performanceHints[0]: Unsupported value"},
		{"NetworkPolicy", "spec: {selector: 'a == b'}", "spec.selector: Invalid value"},
		{"NetworkPolicy", "spec: {selector: \"a == 'b' || global( )\"}", "global() can only be used"},
		{"NetworkPolicy", "spec: {selector: \"" + strings.Repeat("a", 1025) + "\"}", "spec.selector: Too long"},
		{"NetworkPolicy", "spec: {ingress: [{}]}", "spec.ingress[0].action: Required value"},
		{"NetworkPolicy", "spec: {egress: [{action: allow}]}", `spec.egress[0].action: Unsupported value: "allow"`},
		{"NetworkPolicy", "spec: {ingress: [" + strings.Repeat("{action: Allow},", 1025) + "]}", "spec.ingress: Too many: 1025: must have at most 1024 items"},
		{"NetworkPolicy", rule("ipVersion: 5"), "must be 4 or 6"},
		{"NetworkPolicy", rule("protocol: TCPP"), "spec.ingress[0].protocol: Invalid value"},
		{"NetworkPolicy", rule("protocol: 0"), "spec.ingress[0].protocol: Invalid value"},
		{"NetworkPolicy", rule("protocol: 256"), "a number from 1 to 255"},
		{"NetworkPolicy", rule("protocol: ICMP, icmp: {code: 1}"), "an ICMP code needs an ICMP type"},
		{"NetworkPolicy", rule("protocol: ICMP, icmp: {type: 255}"), "must be from 0 to 254"},
		{"NetworkPolicy", rule("protocol: ICMP, ipVersion: 6"), "protocol ICMP is of IPv4"},
		{"NetworkPolicy", rule("protocol: ICMPv6, ipVersion: 4"), "protocol ICMPv6 is of IPv6"},
		{"NetworkPolicy", rule("ipVersion: 6, source: {nets: [10.0.0.0/8]}"), "spec.ingress[0].source.nets[0]: Invalid value: \"10.0.0.0/8\": the rule is already about IPv6"},
		{"NetworkPolicy", rule("source: {nets: [10.0.0.0/8]}, destination: {notNets: ['fd00::/8']}"), "cannot speak of both IP versions"},
		{"NetworkPolicy", rule("source: {nets: [10.0.0.0/40]}"), "must be an IP address or a CIDR"},
		{"NetworkPolicy", rule("source: {nets: ['::ffff:10.0.0.1', 'fe80::1%eth0']}"), "spec.ingress[0].source.nets[1]: Invalid value: \"fe80::1%eth0\""},
		{"IPPool", "spec: {cidr: '::ffff:10.0.0.0/112'}", "must be a CIDR"},
		{"NetworkPolicy", rule("icmp: {type: 8}"), "spec.ingress[0].icmp: Forbidden: a rule about ICMP types must set protocol to ICMP or ICMPv6"},
		{"NetworkPolicy", rule("protocol: TCP, notICMP: {type: 8}"), "spec.ingress[0].notICMP: Forbidden"},
		{"NetworkPolicy", rule("ipVersion: 6, notProtocol: ICMP"), "protocol ICMP is of IPv4"},
		{"NetworkPolicy", rule("protocol: TCP, destination: {ports: [0]}"), "must be from 1 to 65535"},
		{"NetworkPolicy", rule("protocol: TCP, destination: {ports: ['0:80']}"), "must be from 1 to 65535"},
		{"NetworkPolicy", rule("destination: {ports: [80]}"), "spec.ingress[0].destination.ports: Forbidden: a rule with ports must set protocol"},
		{"NetworkPolicy", rule("protocol: ICMP, source: {notPorts: [80]}"), "spec.ingress[0].source.notPorts: Forbidden"},
		{"NetworkPolicy", rule("protocol: TCP, source: {ports: ['a b']}"), "the name of a port"},
		{"NetworkPolicy", rule("protocol: TCP, source: {ports: [" + strings.Repeat("1,", 51) + "]}"), "Too many: 51"},
		{"NetworkPolicy", rule("source: {nets: [" + strings.Repeat("10.0.0.1,", 257) + "]}"), "Too many: 257"},
		{"NetworkPolicy", rule("source: {services: {}}"), "services must name a service"},
		{"NetworkPolicy", rule("source: {services: {namespace: a}}"), "spec.ingress[0].source.services.name: Required value"},
		{"NetworkPolicy", rule("source: {services: {name: " + strings.Repeat("a", 254) + "}}"), "spec.ingress[0].source.services.name: Too long"},
		{"NetworkPolicy", rule("source: {services: {name: a}, notNets: [10.0.0.1]}"), "cannot be combined with nets or notNets"},
		{"NetworkPolicy", rule("source: {services: {name: a}, notSelector: has(b)}"), "cannot be combined with selector or notSelector"},
		{"NetworkPolicy", rule("source: {selector: global()}"), "global() can only be used"},
		{"NetworkPolicy", rule("destination: {notSelector: '!global()'}"), "spec.ingress[0].destination.notSelector"},
		{"NetworkPolicy", rule("source: {selector: '" + strings.Repeat("a", 1025) + "'}"), "spec.ingress[0].source.selector: Too long"},
		{"NetworkPolicy", rule("source: {notNets: [" + strings.Repeat("10.0.0.1,", 257) + "]}"), "spec.ingress[0].source.notNets: Too many"},
		{"NetworkPolicy", rule("notProtocol: 300"), "spec.ingress[0].notProtocol"},
		{"NetworkPolicy", rule("protocol: UDP, destination: {ports: ['2:1']}"), "ends before it begins"},
		{"NetworkPolicy", rule("protocol: UDP, destination: {ports: [65536]}"), "spec.ingress[0].destination.ports[0]"},
		{"NetworkPolicy", rule("protocol: UDP, destination: {ports: [1.5]}"), "spec.ingress[0].destination.ports[0]"},
		{"NetworkPolicy", rule("notProtocol: TCP, destination: {ports: [80]}"), "must set protocol"},
		{"NetworkPolicy", rule("protocol: ICMP, icmp: {type: 8, code: 256}"), "spec.ingress[0].icmp.code: Invalid value: 256: must be from 0 to 255"},
		{"NetworkPolicy", rule("protocol: ICMP, notICMP: {code: 0}"), "spec.ingress[0].notICMP.type: Required value"},
		{"NetworkPolicy", rule("protocol: UDP, destination: {ports: [true]}"), "spec.ingress[0].destination.ports[0]"},
		{"NetworkPolicy", rule("metadata: {annotation: {a: b}}"), `unknown field "spec.ingress[0].metadata.annotation"; did you mean "annotations"?`},
		{"NetworkPolicy", "spec: {order: .inf}", "spec.order"},
		{"NetworkPolicy", "spec: {order: first}", `spec.order: is "first", but must be a number`},
		{"NetworkPolicy", "spec: {namespaceSelector: all()}", `unknown field "spec.namespaceSelector"`},
		{"NetworkPolicy", "spec: {stagedAction: Set}", `unknown field "spec.stagedAction"`},
		{"NetworkPolicy", "metadata: {name: knp.default., namespace: a}", "metadata.name"},
		{"NetworkPolicy", "metadata: {name: '', namespace: a}", "metadata.name: Required value"},
		{"Tier", "spec: {order: x}", "spec.order"},
		{"Tier", "spec: {defaultAction: deny}", `supported values: "Deny", "Pass"`},
		{"Tier", "metadata: {name: kube-admin}\nspec: {order: null, defaultAction: Deny}", "the default action of tier kube-admin is fixed: Pass"},
		{"NetworkPolicy", rule("source: {services: {name: a}, selector: has(b)}"), "cannot be combined with selector"},
		{"NetworkPolicy", rule("source: {services: {name: a}, nets: [10.0.0.1]}"), "cannot be combined with nets"},
		{"NetworkPolicy", rule("source: {services: {name: a}, namespaceSelector: all()}"), "cannot be combined with namespaceSelector"},
		{"NetworkPolicy", rule("source: {services: {name: a}, serviceAccounts: {names: [b]}}"), "cannot be combined with serviceAccounts"},
		{"NetworkPolicy", rule("destination: {services: {name: a}}"), "in an ingress rule services can only be the source"},
		{"NetworkPolicy", "spec: {egress: [{action: Allow, source: {services: {name: a}}}]}", "in an egress rule services can only be the destination"},
		{"NetworkPolicy", "spec: {egress: [{action: Allow, protocol: TCP, destination: {services: {name: a}, ports: [80]}}]}", "the service has its own"},
		{"GlobalNetworkPolicy", rule("source: {services: {name: a}}"), "must say the service's"},
		{"NetworkPolicy", "spec: {ingress: [{action: Deny, http: {methods: [GET]}}]}", "HTTP rules must have action Allow"},
		{"NetworkPolicy", "spec: {egress: [{action: Allow, http: {methods: [GET]}}]}", "HTTP rules can only be ingress rules"},
		{"NetworkPolicy", rule("protocol: UDP, http: {}"), "HTTP rules must have protocol TCP"},
		{"NetworkPolicy", rule("http: {paths: [{exact: a, prefix: b}]}"), "exactly one of exact and prefix"},
		{"NetworkPolicy", rule("http: {paths: [{exact: '/a?b'}]}"), "must have no '?'"},
		{"NetworkPolicy", rule("http: {methods: [GET, GET]}"), "Duplicate value"},
		{"NetworkPolicy", rule("source: {serviceAccounts: {selector: global()}}"), "spec.ingress[0].source.serviceAccounts.selector"},
		{"NetworkPolicy", rule("source: {serviceAccounts: {names: [A]}}"), "spec.ingress[0].source.serviceAccounts.names[0]"},
		{"GlobalNetworkPolicy", "spec: {preDNAT: true, doNotTrack: true, applyOnForward: true}", "spec.preDNAT: Forbidden"},
		{"GlobalNetworkPolicy", "spec: {preDNAT: true}", "spec.applyOnForward: Invalid value"},
		{"GlobalNetworkPolicy", "spec: {doNotTrack: true}", "spec.applyOnForward: Invalid value"},
		{"GlobalNetworkPolicy", "spec: {preDNAT: true, applyOnForward: true, egress: [{action: Allow}]}", "spec.egress: Forbidden"},
		{"GlobalNetworkPolicy", "spec: {preDNAT: true, applyOnForward: true, types: [Egress]}", "spec.types: Forbidden"},
		{"GlobalNetworkPolicy", "spec: {namespaceSelector: global()}", "spec.namespaceSelector"},
		{"Profile", "spec: {labelsToApply: {'a b': c}}", "spec.labelsToApply"},
		{"Profile", "spec: {egress: [{action: Maybe}]}", "spec.egress[0].action"},
		{"NetworkSet", "metadata: {name: a}", "metadata.namespace: Required value"},
		{"NetworkSet", "metadata: {name: A, namespace: b}", `metadata.name: Invalid value: "A"`},
		{"NetworkSet", "spec: {nets: [10.0.0.1, 10.0.0.0/33]}", `spec.nets[1]: Invalid value: "10.0.0.0/33": must be an IP address or a CIDR`},
		{"NetworkSet", "spec: {allowedEgressDomains: [example.org]}", `unknown field "spec.allowedEgressDomains"`},
		{"NetworkSet", "spec: {nets: 10.0.0.1}", `spec.nets: is "10.0.0.1", but must be a list`},
		{"GlobalNetworkSet", "metadata: {name: a, namespace: b}", "metadata.namespace: Forbidden"},
		{"GlobalNetworkSet", "spec: {nets: ['']}", `spec.nets[0]: Invalid value: ""`},
		{"GlobalNetworkSet", "spec: {nets: ['fe80::1%eth0']}", "spec.nets[0]"},
		{"GlobalNetworkSet", "metadata: {name: a, labels: {a: b c}}", "metadata.labels[a]: Invalid value"},
		{"Tier", "metadata: {name: a.b}", "metadata.name"},
		{"Tier", "spec: {defaultAction: Allow}", "spec.defaultAction: Unsupported value"},
		{"Tier", "metadata: {name: default}\nspec: {order: 5}", "the order of tier default is fixed: 1000000"},
		{"Tier", "metadata: {name: kube-baseline}\nspec: {defaultAction: Deny}", "the default action of tier kube-baseline is fixed: Pass"},
		{"BlockAffinity", "spec: {cidr: 10.0.0.0/26, state: lost, deleted: false}", "spec.node: Required value"},
		{"IPAMBlock", "spec: {cidr: 10.0.0.0/31, affinity: node01, strictAffinity: false, allocations: [1, null], unallocated: [2], attributes: [{}]}", "must be host:NAME or virtual:NAME"},
		{"IPAMBlock", "spec: {cidr: 10.0.0.0/31, strictAffinity: false, allocations: [1, null], unallocated: [], attributes: [{}]}", "spec.allocations[0]"},
		{"IPAMBlock", "spec: {cidr: 10.0.0.0/31, strictAffinity: false, allocations: [], unallocated: [], attributes: []}", "an entry for each address"},
		{"IPAMBlock", "spec: {cidr: 'fd00::/64', strictAffinity: false, allocations: [], unallocated: [], attributes: []}", "an entry for each address"},
		{"IPAMHandle", "spec: {handleID: h, block: {10.0.0.1/26: -1}}", "spec.block[10.0.0.1/26]"},
		{"IPAMConfiguration", "metadata: {name: other}\nspec: {}", `must be "default"`},
		{"IPAMConfiguration", "spec: {autoAllocateBlocks: false}", "cannot both be false"},
		{"IPAMConfiguration", "spec: {maxBlocksPerHost: 3}", "needs strictAffinity"},
		{"IPAMConfiguration", "spec: {ipCooldownSeconds: 1201}", "must be from 0 to 1200"},
		{"BGPPeer", "spec: {node: a, nodeSelector: all()}", "spec.nodeSelector: Forbidden: cannot be set together with node"},
		{"BGPPeer", "spec: {peerIP: 10.0.0.1, peerSelector: all()}", "spec.peerSelector: Forbidden: cannot be set together with peerIP"},
		{"BGPPeer", "spec: {peerSelector: all(), asNumber: 1}", "spec.asNumber: Forbidden: must be empty when peerSelector is set"},
		{"BGPPeer", "spec: {localWorkloadSelector: all(), peerIP: 10.0.0.1, asNumber: 1}", "spec.peerIP: Forbidden"},
		{"BGPPeer", "spec: {localWorkloadSelector: all(), peerSelector: all()}", "spec.peerSelector: Forbidden"},
		{"BGPPeer", "spec: {localWorkloadSelector: all()}", "spec.asNumber: Required value: when localWorkloadSelector is set"},
		{"BGPPeer", "spec: {reachableBy: 10.0.0.1}", "spec.reachableBy: Forbidden: must be empty when peerIP is"},
		{"BGPPeer", "spec: {peerIP: 'fd00::1', reachableBy: 10.0.0.1}", "must be of the same IP version as peerIP fd00::1"},
		{"BGPPeer", "spec: {peerIP: 10.0.0.1, reachableBy: gw}", "spec.reachableBy: Invalid value"},
		{"BGPPeer", "spec: {peerIP: 10.0.0.300}", "spec.peerIP: Invalid value: \"10.0.0.300\": must be an IP address, or one with a port"},
		{"BGPPeer", "spec: {peerIP: '10.0.0.1:0'}", "spec.peerIP: Invalid value"},
		{"BGPPeer", "spec: {peerIP: '::ffff:10.0.0.1'}", "spec.peerIP: Invalid value"},
		{"BGPPeer", "spec: {keepOriginalNextHop: true, nextHopMode: Self}", "spec.keepOriginalNextHop: Forbidden"},
		{"BGPPeer", "spec: {nextHopMode: Maybe}", "spec.nextHopMode: Unsupported value"},
		{"BGPPeer", "spec: {sourceAddress: Any}", "spec.sourceAddress: Unsupported value"},
		{"BGPPeer", "spec: {reversePeering: No}", "spec.reversePeering: Unsupported value"},
		{"BGPPeer", "spec: {node: A_b}", "spec.node: Invalid value"},
		{"BGPPeer", "spec: {nodeSelector: 'a =='}", "spec.nodeSelector: Invalid value"},
		{"BGPPeer", "spec: {peerSelector: 'a =='}", "spec.peerSelector: Invalid value"},
		{"BGPPeer", "spec: {localWorkloadSelector: 'a ==', asNumber: 1}", "spec.localWorkloadSelector: Invalid value"},
		{"BGPPeer", "spec: {filters: [a, B]}", "spec.filters[1]: Invalid value"},
		{"BGPPeer", "spec: {password: {secretKeyRef: {name: s}}}", "spec.password.secretKeyRef.key: Required value"},
		{"BGPPeer", "spec: {maxRestartTime: 0s}", "spec.maxRestartTime: Invalid value"},
		{"BGPPeer", "spec: {keepaliveTime: -1s}", "spec.keepaliveTime: Invalid value"},
		{"BGPPeer", "spec: {numAllowedLocalASNumbers: -1}", "spec.numAllowedLocalASNumbers: Invalid value"},
		{"BGPPeer", "spec: {ttlSecurity: 256}", "ttlSecurity"},
		{"BGPFilter", "spec: {exportV4: [{cidr: 10.0.0.0/8, matchOperator: In}]}", "spec.exportV4[0].action: Required value"},
		{"BGPFilter", "spec: {importV4: [{action: Maybe}]}", "spec.importV4[0].action: Unsupported value"},
		{"BGPFilter", "spec: {importV4: [{action: Reject, cidr: 10.0.0.0/8}]}", "spec.importV4[0].matchOperator: Required value"},
		{"BGPFilter", "spec: {importV4: [{action: Reject, matchOperator: In}]}", "spec.importV4[0].cidr: Required value: cidr and matchOperator stand together"},
		{"BGPFilter", "spec: {importV4: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: Within}]}", "matchOperator: Unsupported value"},
		{"BGPFilter", "spec: {importV6: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: In}]}", "spec.importV6[0].cidr: Invalid value: \"10.0.0.0/8\": must be IPv6"},
		{"BGPFilter", "spec: {exportV6: [{action: Reject, cidr: x, matchOperator: In}]}", "spec.exportV6[0].cidr: Invalid value"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, prefixLength: {min: 1}}]}", "spec.exportV4[0].cidr: Required value: when prefixLength is set"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {max: 33}}]}", "prefixLength.max: Invalid value: 33: must be from 0 to 32"},
		{"BGPFilter", "spec: {exportV6: [{action: Accept, cidr: 'fd00::/8', matchOperator: In, prefixLength: {min: -1}}]}", "must be from 0 to 128"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 20, max: 10}}]}", "the range ends before it begins"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, source: Here}]}", "source: Unsupported value"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, peerType: ibgp}]}", "peerType: Unsupported value"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, interface: 'a b'}]}", "interface: Invalid value"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, communities: {values: ['1:2', '1:3']}}]}", "must hold one community"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, communities: {values: ['1:70000']}}]}", "must be aa:nn"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, priority: 0}]}", "priority: Invalid value"},
		{"BGPFilter", "spec: {exportV4: [{action: Reject, operations: [{setPriority: {value: 1}}]}]}", "a route that is rejected cannot be changed"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, operations: [{}]}]}", "must be one of addCommunity, prependASPath and setPriority"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, operations: [{setPriority: {value: 0}}]}]}", "setPriority.value: Invalid value"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, operations: [{addCommunity: {value: x}}]}]}", "must be aa:nn"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, operations: [{prependASPath: {prefix: []}}]}]}", "at least one AS number"},
		{"BGPFilter", "spec: {exportV4: [{action: Accept, operations: [" + strings.Repeat("{setPriority: {value: 1}},", 11) + "]}]}", "operations: Too many"},
		{"BGPConfiguration", "spec: {logSeverityScreen: loud}", "spec.logSeverityScreen"},
		{"BGPConfiguration", "spec: {bindMode: All}", "spec.bindMode"},
		{"BGPConfiguration", "spec: {communities: [{name: a, value: '1:2'}]}", "communities are defined but not used"},
		{"BGPConfiguration", "spec: {communities: [{name: a, value: '1:70000'}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a]}]}", "must be aa:nn"},
		{"BGPConfiguration", "spec: {prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [b]}]}", "must be the name of one of spec.communities"},
		{"BGPConfiguration", "spec: {nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 1s}", "cannot be set when nodeToNodeMeshEnabled is false"},
		{"BGPConfiguration", "spec: {nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {key: k}}}", "cannot be set when nodeToNodeMeshEnabled is false"},
		{"BGPConfiguration", "metadata: {name: node.a}\nspec: {asNumber: 1}", "can only be set in the BGPConfiguration named default"},
		{"BGPConfiguration", "spec: {ipv4NormalRoutePriority: 0}", "must be from 1 to"},
		{"BGPConfiguration", "spec: {serviceClusterIPs: [{cidr: x}]}", "spec.serviceClusterIPs[0].cidr"},
		{"ClusterInformation", "metadata: {name: x}\nspec: {}", `must be "default"`},
	} {
		err := check(t, c.kind, c.body)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %.200s:\ngot  %.400v\nwant %s", c.kind, c.body, err, c.want)
		}
	}
}

func TestDefaultPolicyTypes(t *testing.T) {
	for body, want := range map[string]string{
		"spec: {}":                           "[Ingress]",
		"spec: {ingress: [{action: Allow}]}": "[Ingress]",
		"spec: {egress: [{action: Allow}]}":  "[Egress]",
		"spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}": "[Ingress Egress]",
		"spec: {types: [Egress], ingress: [{action: Allow}]}":           "[Egress]",
	} {
		o, err := Decode([]byte(doc("NetworkPolicy", body)))
		if err != nil {
			t.Fatal(err)
		}
		o.Default()
		p := o.(*NetworkPolicy)
		if got := fmt.Sprint(p.Spec.Types); got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
		if p.Spec.Tier != "default" || p.Labels["projectcalico.org/tier"] != "default" || p.Spec.Order != nil {
			t.Errorf("tier %q, labels %v, order %v", p.Spec.Tier, p.Labels, p.Spec.Order)
		}
	}
}

func TestDefaultIPPool(t *testing.T) {
	for cidr, size := range map[string]int{"10.0.0.0/16": 26, "fd00::/64": 122} {
		p := &IPPool{Meta: Named(KindIPPool, "", "a"), Spec: IPPoolSpec{CIDR: cidr}}
		p.Default()
		s := p.Spec
		if s.BlockSize != size || s.IPIPMode != EncapNever || s.VXLANMode != EncapNever || s.NodeSelector != "all()" ||
			s.AssignmentMode != AssignAutomatic || fmt.Sprint(s.AllowedUses) != "[Workload Tunnel]" {
			t.Errorf("%+v", s)
		}
	}
}

func TestBuiltInTiers(t *testing.T) {
	var got []string
	for _, tier := range BuiltInTiers() {
		if err := tier.Validate(); err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprint(tier.Name, number(tier.Spec.Order), tier.Spec.DefaultAction))
	}
	if s := strings.Join(got, " "); s != "kube-admin1000Pass default1000000Deny kube-baseline10000000Pass" {
		t.Error(s)
	}
}

func TestOverlappingPools(t *testing.T) {
	for _, c := range []struct{ cidrs, want string }{
		{"10.0.0.0/16 10.1.0.0/16 fd00::/64", ""},
		{"10.0.0.0/16 10.2.0.0/16 10.0.128.0/17", "IPPool c (10.0.128.0/17) overlaps IPPool a (10.0.0.0/16)"},
		{"10.0.0.0/24 10.0.0.0/8", "IPPool a (10.0.0.0/24) overlaps IPPool b (10.0.0.0/8)"},
		{"10.0.0.0/16 10.0.0.0/16", "IPPool b (10.0.0.0/16) overlaps IPPool a (10.0.0.0/16)"},
		{"::/0 10.0.0.0/8 0.0.0.0/32", ""},
		{"fd00::/64 x fd00::/120", "IPPool c (fd00::/120) overlaps IPPool a (fd00::/64)"},
		{"", ""},
	} {
		var pools []*IPPool
		for i, cidr := range strings.Fields(c.cidrs) {
			pools = append(pools, &IPPool{Meta: Named(KindIPPool, "", string(rune('a'+i))), Spec: IPPoolSpec{CIDR: cidr}})
		}
		err := OverlappingPools(pools)
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.cidrs, err, c.want)
		}
	}
}

// The tables of calicoctl get, in both forms.
func TestColumns(t *testing.T) {
	headers := func(k *Kind, wide bool) string {
		var s []string
		for _, c := range k.Columns {
			if !(c.Wide && !wide) && !(c.Narrow && wide) {
				s = append(s, c.Header)
			}
		}
		return strings.Join(s, " ")
	}
	for kind, want := range map[string][2]string{
		"IPPool":              {"NAME CIDR SELECTOR", "NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE"},
		"Node":                {"NAME", "NAME ASN IPV4 IPV6"},
		"WorkloadEndpoint":    {"WORKLOAD NODE NETWORKS INTERFACE", "NAME WORKLOAD NODE NETWORKS INTERFACE PROFILES NATS"},
		"NetworkPolicy":       {"NAME TIER", "NAME TIER ORDER SELECTOR"},
		"GlobalNetworkPolicy": {"NAME TIER", "NAME TIER ORDER SELECTOR"},
		"Tier":                {"NAME ORDER", "NAME ORDER"},
		"Profile":             {"NAME", "NAME LABELS"},
		"BGPConfiguration":    {"NAME LOGSEVERITY MESHENABLED ASNUMBER", "NAME LOGSEVERITY MESHENABLED ASNUMBER"},
		"BGPPeer":             {"NAME PEERIP NODE ASN", "NAME PEERIP NODE ASN"},
		"BGPFilter":           {"NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6", "NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6"},
		"IPAMConfiguration":   {"NAME STRICTAFFINITY AUTOALLOCATEBLOCKS", "NAME STRICTAFFINITY AUTOALLOCATEBLOCKS MAXBLOCKSPERHOST"},
		"ClusterInformation":  {"NAME CLUSTERGUID CLUSTERTYPE CALICOVERSION DATASTOREREADY", "NAME CLUSTERGUID CLUSTERTYPE CALICOVERSION DATASTOREREADY"},
		"FelixConfiguration":  {"NAME", "NAME"},
		"NetworkSet":          {"NAME", "NAME NETS"},
		"GlobalNetworkSet":    {"NAME", "NAME NETS"},
	} {
		k, _ := KindNamed(kind)
		if got := [2]string{headers(k, false), headers(k, true)}; got != want {
			t.Errorf("%s: got %v, want %v", kind, got, want)
		}
	}
	values := map[string]string{}
	for _, c := range valid {
		o, err := Decode([]byte(doc(c.kind, c.body)))
		if err != nil {
			t.Fatal(err)
		}
		o.Default()
		var s []string
		for _, col := range KindOf(o).Columns {
			s = append(s, col.Value(o))
		}
		values[c.kind] = strings.Join(s, " ") // the last case of each kind
	}
	for kind, want := range map[string]string{
		"IPPool":           "a 10.0.0.0/16 false Never Never false false has(rack) Automatic",
		"WorkloadEndpoint": "node01-k8s-busybox01-eth0 busybox01 node01 10.0.0.1/32 cali1 kns.prod,ksa.prod.default 1.2.3.4",
		"Node":             fmt.Sprintf("a %d 10.0.0.1/24 fd00::1/64", 64512<<16|1),
		"NetworkPolicy":    "a default <none> ",
		"Profile":          "kns.prod pcns.projectcalico.org/name=prod",
		"Tier":             "kube-admin 1000",
		"BGPConfiguration": "default debug true 64512",
		"BGPPeer":          "a has(rr) has(rack) <none>",
		"BGPFilter":        "a 2 0 0 1",
	} {
		if values[kind] != want {
			t.Errorf("%s: got %q, want %q", kind, values[kind], want)
		}
	}
}

func TestWorkloadEndpointName(t *testing.T) {
	if got, want := WorkloadEndpointName("rack1-host1", "k8s", "frontend-5gs43", "eth0"), "rack1--host1-k8s-frontend--5gs43-eth0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
