package kubeconv

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
)

func TestServiceAccount(t *testing.T) {
	got := ServiceAccount(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "db.reader", Labels: map[string]string{"a": "b"}}})
	if diff := cmp.Diff(map[string]string{"pcsa.a": "b", "pcsa.projectcalico.org/name": "db.reader"}, got.Spec.LabelsToApply); diff != "" {
		t.Error(diff)
	}
	if got.Name != "ksa.prod.db.reader" || len(got.Spec.Ingress)+len(got.Spec.Egress) != 0 || got.Validate() != nil {
		t.Errorf("%+v, %v", got, got.Validate())
	}
}

// What kubectl prints of services is read, and what Calico does not need of it left out.
func TestServices(t *testing.T) {
	for _, c := range []struct{ name, kube, calico string }{
		{"service", `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: prod, creationTimestamp: "2024-05-01T12:00:00Z", annotations: {a: b}, labels: {c: d}}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00::10"]
  internalTrafficPolicy: Cluster
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  ports: [{name: sql, protocol: TCP, port: 5432, targetPort: sql, nodePort: 30000}, {port: 53, protocol: UDP}]
  selector: {app: db}
  sessionAffinity: None
  type: NodePort
status: {loadBalancer: {}}
`, `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: prod, labels: {c: d}}
spec: {clusterIPs: [10.96.0.10, "fd00::10"], ports: [{name: sql, protocol: TCP, port: 5432}, {port: 53, protocol: UDP}]}
`},
		{"service without a namespace, a selector and clusterIPs", `
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{port: 80}]}
`, `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: here}
spec: {clusterIPs: [None], ports: [{protocol: TCP, port: 80}]}
`},
		{"slice", `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: db-x1
  namespace: prod
  labels: {kubernetes.io/service-name: db}
  ownerReferences: [{apiVersion: v1, kind: Service, name: db, uid: u, controller: true, blockOwnerDeletion: true}]
addressType: IPv6
endpoints:
- addresses: ["fd00::1"]
  conditions: {ready: false, serving: true, terminating: true}
  nodeName: node1
  targetRef: {kind: Pod, name: db-0, namespace: prod}
  zone: a
  hints: {forZones: [{name: a}]}
- addresses: ["fd00::2"]
ports: [{name: sql, port: 5432, protocol: TCP, appProtocol: x}, {name: dns, port: 53, protocol: UDP}, {}]
`, `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-x1, namespace: prod, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
endpoints:
- {addresses: ["fd00::1"], conditions: {ready: false, serving: true, terminating: true}, nodeName: node1}
- {addresses: ["fd00::2"]}
ports: [{name: sql, port: 5432, protocol: TCP}, {name: dns, port: 53, protocol: UDP}, {protocol: TCP}]
`},
	} {
		objects, err := DecodeAll("f.yaml", []byte(c.kube), "here")
		if err != nil || len(objects) != 1 {
			t.Errorf("%s: %v, %v", c.name, objects, err)
			continue
		}
		want := api.KindOf(objects[0]).New()
		if err := yaml.UnmarshalStrict([]byte(c.calico), want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, objects[0]); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
}

func TestServicesRefused(t *testing.T) {
	for _, c := range []struct{ kube, want string }{
		{"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: A}", `f.yaml: document 1, line 3: metadata.name: "A"`},
		{"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: a.b}", `metadata.namespace: "a.b"`},
		{"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, labels: {'a b': c}}", "spec.labelsToApply"},
		{"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nspec: {}", `line 4: unknown field "spec"`},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}", `metadata.namespace: "b": a Namespace belongs to none`},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a.b}", `metadata.name: "a.b"`},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}", "Service here/a: spec.ports[0].port: 0: must be from 1 to 65535"},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: x}]}", "line 4: spec.ports[0].port: is \"x\", but must be a whole number"},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIPs: [x]}", `spec.clusterIPs[0]: Invalid value: "x"`},
		{"apiVersion: projectcalico.org/v3\nkind: Service\nmetadata: {name: a}", `unknown kind "Service"`},
		{"apiVersion: v2\nkind: Service\nmetadata: {name: a}", "v2 Service: of Kubernetes' objects these are taken"},
		{"apiVersion: v1\nkind: EndpointSlice\nmetadata: {name: a}", "v1 EndpointSlice: of Kubernetes' objects these are taken"},
		{"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}", "addressType: Required value"},
		{"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: [{addresses: [a]}]", "endpoints[0].addresses[0]"},
		{"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nports: [{port: 65536}]", "EndpointSlice here/a: ports[0].port: 65536: must be from 1 to 65535"},
		{"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nports: [{protocol: ICMP}]", "ports[0].protocol"},
	} {
		_, err := DecodeAll("f.yaml", []byte(c.kube), "here")
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "f.yaml: document 1, line ") {
			t.Errorf("%s:\ngot  %v\nwant %s", c.kube, err, c.want)
		}
	}
}
