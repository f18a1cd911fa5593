package kubeconv

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/selector"
)

func TestNamespace(t *testing.T) {
	long := strings.Repeat("x", 63)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "prod", Labels: map[string]string{"env": "p", "example.com/" + long: ""}}}
	got := Namespace(ns)
	want := map[string]string{"pcns.env": "p", "pcns.example.com/" + long: "", "pcns.projectcalico.org/name": "prod", "pcns.kubernetes.io/metadata.name": "prod"}
	if diff := cmp.Diff(want, got.Spec.LabelsToApply); diff != "" || got.Name != "kns.prod" {
		t.Error(got.Name, diff)
	}
	allow := []api.Rule{{Action: api.Allow}}
	if diff := cmp.Diff([][]api.Rule{allow, allow}, [][]api.Rule{got.Spec.Ingress, got.Spec.Egress}); diff != "" {
		t.Error(diff)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
}

// Each case is the spec of a Kubernetes policy and of Calico's.
var policies = []struct{ name, kube, calico string }{
	{"default deny, as users write it", `
podSelector: {}
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress]
`},
	{"allow by label", `
podSelector: {matchLabels: {run: busybox02, app: b}}
ingress:
- from:
  - podSelector: {matchLabels: {run: busybox01}}
`, `
selector: projectcalico.org/orchestrator == 'k8s' && app == 'b' && run == 'busybox02'
types: [Ingress]
ingress:
- action: Allow
  source: {selector: projectcalico.org/orchestrator == 'k8s' && run == 'busybox01'}
`},
	{"an empty rule allows everything, no rule nothing", `
podSelector: {}
policyTypes: [Ingress, Egress]
ingress: [{}]
egress: []
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress, Egress]
ingress: [{action: Allow}]
`},
	{"empty lists of peers and ports mean all of them", `
podSelector: {}
policyTypes: [Ingress, Egress]
ingress: [{from: [], ports: []}]
egress: [{to: [], ports: [{port: 53}]}]
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress, Egress]
ingress: [{action: Allow}]
egress: [{action: Allow, protocol: TCP, destination: {ports: [53]}}]
`},
	{"egress rules imply both types", `
podSelector: {}
egress: [{}]
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress, Egress]
egress: [{action: Allow}]
`},
	{"egress only", `
podSelector: {}
policyTypes: [Egress]
egress: [{}]
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Egress]
egress: [{action: Allow}]
`},
	{"expressions", `
podSelector:
  matchExpressions:
  - {key: a, operator: In, values: [x, y]}
  - {key: b, operator: NotIn, values: [z]}
  - {key: c, operator: Exists}
  - {key: example.com/d, operator: DoesNotExist}
`, `
selector: projectcalico.org/orchestrator == 'k8s' && a in { 'x', 'y' } && b not in { 'z' } && has(c) && !has(example.com/d)
types: [Ingress]
`},
	{"peers: all pods here, all pods anywhere, pods of some namespaces, both", `
podSelector: {}
ingress:
- from:
  - podSelector: {}
  - namespaceSelector: {}
  - namespaceSelector: {matchLabels: {env: p}}
  - namespaceSelector: {matchExpressions: [{key: env, operator: Exists}]}
    podSelector: {matchLabels: {a: b}}
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress]
ingress:
- action: Allow
  source: {selector: projectcalico.org/orchestrator == 'k8s'}
- action: Allow
  source: {selector: projectcalico.org/orchestrator == 'k8s', namespaceSelector: all()}
- action: Allow
  source: {selector: projectcalico.org/orchestrator == 'k8s', namespaceSelector: env == 'p'}
- action: Allow
  source: {selector: projectcalico.org/orchestrator == 'k8s' && a == 'b', namespaceSelector: has(env)}
`},
	{"ipBlock, host bits cleared", `
podSelector: {}
policyTypes: [Egress]
egress:
- to:
  - ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16, 10.2.0.0/16]}
  - ipBlock: {cidr: "fd00::/8"}
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Egress]
egress:
- action: Allow
  destination: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16, 10.2.0.0/16]}
- action: Allow
  destination: {nets: ["fd00::/8"]}
`},
	{"ports are gathered by protocol, TCP is the default, ranges that touch are joined", `
podSelector: {}
ingress:
- ports:
  - {protocol: UDP, port: 53}
  - {port: 80}
  - {port: 81, endPort: 90}
  - {port: http}
  - {port: 443, protocol: TCP}
  - {port: 443}
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress]
ingress:
- action: Allow
  protocol: TCP
  destination: {ports: ["80:90", 443, http]}
- action: Allow
  protocol: UDP
  destination: {ports: [53]}
`},
	{"SCTP, named ports and ranges that overlap", `
podSelector: {}
policyTypes: [Egress, Ingress, Egress]
egress:
- ports:
  - {protocol: SCTP, port: 5, endPort: 9}
  - {protocol: SCTP, port: 7, endPort: 20}
  - {protocol: SCTP, port: sig}
  - {protocol: TCP, port: 1, endPort: 65535}
  - {protocol: UDP, port: 5, endPort: 5}
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Egress, Ingress]
egress:
- {action: Allow, protocol: SCTP, destination: {ports: ["5:20", sig]}}
- {action: Allow, protocol: TCP, destination: {ports: ["1:65535"]}}
- {action: Allow, protocol: UDP, destination: {ports: [5]}}
`},
	{"both selectors of a peer empty: all pods of all namespaces", `
podSelector: {matchLabels: {a: ""}}
ingress:
- from: [{podSelector: {}, namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.1/32]}}, {ipBlock: {cidr: "::/0"}}]
`, `
selector: projectcalico.org/orchestrator == 'k8s' && a == ''
types: [Ingress]
ingress:
- {action: Allow, source: {selector: projectcalico.org/orchestrator == 'k8s', namespaceSelector: all()}}
- {action: Allow, source: {nets: [0.0.0.0/0], notNets: [10.0.0.1/32]}}
- {action: Allow, source: {nets: ["::/0"]}}
`},
	{"no ingress at all, by policyTypes", `
podSelector: {}
policyTypes: [Ingress]
egress: [{}]
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress]
egress: [{action: Allow}]
`},
	{"a protocol without a port is all of it", `
podSelector: {}
ingress:
- ports:
  - {protocol: SCTP}
  - {protocol: SCTP, port: 5}
  - {}
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress]
ingress:
- {action: Allow, protocol: SCTP}
- {action: Allow, protocol: TCP}
`},
	{"protocols by peers; the ports are the destination's", `
podSelector: {}
egress:
- to:
  - podSelector: {matchLabels: {a: b}}
  - ipBlock: {cidr: 10.0.0.0/8}
  ports: [{port: 80}, {port: 53, protocol: UDP}]
`, `
selector: projectcalico.org/orchestrator == 'k8s'
types: [Ingress, Egress]
egress:
- {action: Allow, protocol: TCP, destination: {selector: projectcalico.org/orchestrator == 'k8s' && a == 'b', ports: [80]}}
- {action: Allow, protocol: TCP, destination: {nets: [10.0.0.0/8], ports: [80]}}
- {action: Allow, protocol: UDP, destination: {selector: projectcalico.org/orchestrator == 'k8s' && a == 'b', ports: [53]}}
- {action: Allow, protocol: UDP, destination: {nets: [10.0.0.0/8], ports: [53]}}
`},
}

const header = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: prod, labels: {x: y}}\nspec:\n"

// fromYAML decodes one object.
func fromYAML(doc []byte) (api.Object, error) {
	objects, err := DecodeAll("", doc, "default")
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 {
		return nil, fmt.Errorf("%d objects", len(objects))
	}
	return objects[0], nil
}

func indent(s string) string { return strings.ReplaceAll(strings.Trim(s, "\n"), "\n", "\n  ") }

func TestNetworkPolicy(t *testing.T) {
	for _, c := range policies {
		t.Run(c.name, func(t *testing.T) {
			o, err := fromYAML([]byte(header + "  " + indent(c.kube) + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			var want api.NetworkPolicySpec
			if err := yaml.UnmarshalStrict([]byte(c.calico), &want); err != nil {
				t.Fatal(err)
			}
			want.Tier, want.Order = "default", new(1000.0)
			got := o.(*api.NetworkPolicy)
			if diff := cmp.Diff(want, got.Spec); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
			if got.Name != "knp.default.p" || got.Namespace != "prod" {
				t.Errorf("is called %s/%s", got.Namespace, got.Name)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{"podSelector: {matchLabels: {a: \"b' || all() || a == 'c\"}}", `line 5: NetworkPolicy prod/p: spec.podSelector: matchLabels: value "b' || all() || a == 'c" of label a`},
		{"podSelector: {matchLabels: {\"a == 'b' || c\": d}}", `spec.podSelector: matchLabels: label name "a == 'b' || c"`},
		{"podSelector: {matchExpressions: [{key: a, operator: In}]}", `matchExpressions[0]: operator In needs values`},
		{"podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}", `operator Exists takes no values`},
		{"podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}", `operator "Is": must be In`},
		{"podSelector: {}\n  policyTypes: [Sideways]", `spec.policyTypes[0]: "Sideways": must be Ingress or Egress`},
		{"podSelector: {}\n  ingress: [{from: [{}]}]", `spec.ingress[0].from[0]: must have a podSelector`},
		{"podSelector: {}\n  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]", `spec.ingress[0].from[0]: ipBlock cannot be combined`},
		{"podSelector: {}\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0}}]}]", `spec.egress[0].to[0].ipBlock.cidr: "10.0.0.0": must be a CIDR`},
		{"podSelector: {}\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]", `ipBlock.except[0]: "11.0.0.0/16": must be a CIDR strictly within 10.0.0.0/8`},
		{"podSelector: {}\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]", `except[0]`},
		{"podSelector: {}\n  ingress: [{ports: [{port: 0}]}]", `spec.ingress[0].ports[0].port: 0: must be from 1 to 65535`},
		{"podSelector: {}\n  ingress: [{ports: [{port: 9, endPort: 8}]}]", `ports[0].endPort: 8: must be from 9 to 65535`},
		{"podSelector: {}\n  ingress: [{ports: [{endPort: 8}]}]", `endPort: may only be given together with port`},
		{"podSelector: {}\n  ingress: [{ports: [{port: http, endPort: 8}]}]", `endPort: may not be given with the named port "http"`},
		{"podSelector: {}\n  ingress: [{ports: [{port: Not_a_name}]}]", `ports[0].port: "Not_a_name"`},
		{"podSelector: {}\n  ingress: [{ports: [{protocol: ICMP}]}]", `ports[0].protocol: "ICMP": must be TCP, UDP or SCTP`},
		{"podSelector: {}\n  ingress:\n  - ports:\n    - port: 1\n    - port: 2\n      endPort: 1", `line 10: NetworkPolicy prod/p: spec.ingress[0].ports[1].endPort: 1: must be from 2`},
		{"podSelector: {}\n  ingress:\n  - {}\n  - from:\n    - podSelector: {}\n    - {}", `line 10: NetworkPolicy prod/p: spec.ingress[1].from[1]: must have`},
		{"podSelector: {}\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/33}}]}]", `"10.0.0.0/33": must be a CIDR`},
		{"podSelector: {}\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/8']}}]}]", `except[0]: "fd00::/8": must be a CIDR strictly within`},
		{"podSelector: {}\n  ingress: [{ports: [{port: 65536}]}]", `ports[0].port: 65536: must be from 1 to 65535`},
		{"podSelector: {}\n  ingress: [{ports: [{port: 1, endPort: 65536}]}]", `ports[0].endPort: 65536`},
		{"podSelector: {}\n  ingress: [{ports: [{port: '80'}]}]", `ports[0].port: "80"`},
		{"podSelector: {}\n  ingress: [{ports: [{protocol: tcp}]}]", `ports[0].protocol: "tcp": must be TCP, UDP or SCTP`},
		{"podSelector: {}\n  ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: NotIn}]}}]}]", `namespaceSelector: matchExpressions[0]: operator NotIn needs values`},
		{"podselector: {}", `line 5: unknown field "spec.podselector"; did you mean "podSelector"?`},
	} {
		_, err := fromYAML([]byte(header + "  " + c.spec + "\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\ngot  %v\nwant %s", c.spec, err, c.want)
		}
	}
}

func TestDecodeAll(t *testing.T) {
	file := `apiVersion: v1
kind: Namespace
metadata: {name: prod, labels: {env: p}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.10.0.0/16}
---
apiVersion: v1
kind: List
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: deny}
  spec: {podSelector: {}}
`
	objects, err := DecodeAll("f.yaml", []byte(file), "here")
	var got []string
	for _, o := range objects {
		got = append(got, api.KindOf(o).Name+" "+o.GetNamespace()+"/"+o.GetName())
	}
	want := []string{"Profile /kns.prod", "IPPool /pool", "NetworkPolicy here/knp.default.deny"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, c := range []struct{ in, want string }{
		{"apiVersion: v1\nkind: Pod\n", "f.yaml: document 4, line 18: v1 Pod: of Kubernetes' objects these are taken: discovery.k8s.io/v1 EndpointSlice, networking.k8s.io/v1 NetworkPolicy, v1 Namespace, v1 Service, v1 ServiceAccount"},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {name: A}\n", `f.yaml: document 4, line 20: metadata.name: "A"`},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {nam: a}\n", `f.yaml: document 4, line 20: unknown field "metadata.nam"`},
		{"a: {\n", `f.yaml: document 4, line `},
	} {
		_, err := DecodeAll("f.yaml", []byte(file+"---\n"+c.in), "here")
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// What kubectl get -o yaml printed, of today's and of older API servers, can be applied.
func TestAsExported(t *testing.T) {
	_, err := DecodeAll("f.yaml", []byte(`apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata:
    name: p
    creationTimestamp: "2024-05-01T12:00:00Z"
    generation: 1
    managedFields:
    - {apiVersion: networking.k8s.io/v1, fieldsType: FieldsV1, fieldsV1: {f:spec: {f:podSelector: {}}}, manager: kubectl, operation: Update, time: "2024-05-01T12:00:00Z"}
  spec: {podSelector: {}, policyTypes: [Ingress]}
  status: {}
- apiVersion: v1
  kind: Namespace
  metadata: {name: prod, creationTimestamp: null}
  spec: {finalizers: [kubernetes]}
  status: {phase: Active}
`), "here")
	if err != nil {
		t.Error(err)
	}
}

// A kube label selector and its text select the same labels.
func TestSelectorRandom(t *testing.T) {
	seed := uint64(rand.Int64())
	if s := os.Getenv("KUBECONV_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	keys, values := []string{"a", "b", "example.com/c", "has", "in"}, []string{"", "x", "y", "1.0-z"}
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	for range 5000 {
		s := &metav1.LabelSelector{MatchLabels: map[string]string{}}
		for range r.IntN(3) {
			s.MatchLabels[pick(keys)] = pick(values)
		}
		for range r.IntN(3) {
			e := metav1.LabelSelectorRequirement{Key: pick(keys), Operator: []metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"}[r.IntN(4)]}
			if strings.HasSuffix(string(e.Operator), "In") {
				e.Values = []string{pick(values), pick(values)}
			}
			s.MatchExpressions = append(s.MatchExpressions, e)
		}
		labels := map[string]string{api.LabelOrchestrator: "k8s"}
		for range r.IntN(4) {
			labels[pick(keys)] = pick(values)
		}
		text, err := podSelector(s)
		if err != nil {
			t.Fatalf("KUBECONV_SEED=%d: %v", seed, err)
		}
		want, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatalf("KUBECONV_SEED=%d: %v", seed, err)
		}
		got := selector.MustParse(text).Matches(selector.Map(labels))
		if got != want.Matches(labelSet(labels)) {
			t.Fatalf("KUBECONV_SEED=%d: %s on %v: got %v", seed, text, labels, got)
		}
	}
}

type labelSet map[string]string

func (l labelSet) Has(k string) bool              { _, ok := l[k]; return ok }
func (l labelSet) Get(k string) string            { return l[k] }
func (l labelSet) Lookup(k string) (string, bool) { v, ok := l[k]; return v, ok }

// However many ports there are, every one is allowed and no other.
func TestManyPorts(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}}
	var ports []networkingv1.NetworkPolicyPort
	for i := range 200 {
		p := intstr.FromInt32(int32(1 + 2*i))
		ports = append(ports, networkingv1.NetworkPolicyPort{Port: &p})
	}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: ports}}
	p, err := NetworkPolicy(np)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	got := map[uint16]bool{}
	for _, r := range p.Spec.Ingress {
		for _, port := range r.Destination.Ports {
			for n := int(port.Min); n <= int(port.Max); n++ {
				got[uint16(n)] = true
			}
		}
	}
	if len(got) != 200 || !got[399] || got[2] {
		t.Errorf("%d ports", len(got))
	}
}

// FuzzConvert holds: nothing panics; what is refused is refused in one line; what is
// accepted is valid, defaulted, and reads back from what is stored of it.
func FuzzConvert(f *testing.F) {
	for _, c := range policies {
		f.Add(header + "  " + indent(c.kube) + "\n")
	}
	f.Add("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {b: c}}\n")
	f.Add("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, labels: {b: c}}\n")
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None, ports: [{port: 80}]}\n")
	f.Add("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]\nports: [{port: 80, name: a}]\n")
	f.Fuzz(func(t *testing.T, doc string) {
		docs, _ := api.Documents("", []byte(doc))
		for _, d := range docs {
			o, ok, err := convert(d, "default")
			if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("not one line: %q", err)
			}
			if err != nil || !ok {
				continue
			}
			if err := o.Validate(); err != nil {
				t.Error(fmt.Errorf("accepted, but %w", err))
			}
			again := api.Clone(o)
			again.Default()
			if diff := cmp.Diff(asJSON(t, o), asJSON(t, again)); diff != "" {
				t.Errorf("not defaulted, or not what is stored: %s", diff)
			}
		}
	})
}

func asJSON(t *testing.T, o api.Object) string {
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
