package etcd

import (
	"encoding/json"
	"reflect"
	"testing"
	"unsafe"

	"github.com/calicogo/calico/api"
)

// TestWords: endpoints that were decoded apart share their texts, and stay what they are.
func TestWords(t *testing.T) {
	decode := func() *api.WorkloadEndpoint {
		w := &api.WorkloadEndpoint{}
		body := `{"metadata":{"namespace":"ns","labels":{"app":"web","tier":"front"}},"spec":{"node":"n1","orchestrator":"k8s","profiles":["kns.ns"]}}`
		if err := json.Unmarshal([]byte(body), w); err != nil {
			t.Fatal(err)
		}
		return w
	}
	a, b, plain := decode(), decode(), decode()
	w := words{}
	w.share(a)
	w.share(b)
	words(nil).share(plain)
	if !reflect.DeepEqual(a, plain) || !reflect.DeepEqual(b, plain) {
		t.Errorf("%+v and %+v, want %+v", a, b, plain)
	}
	same := func(s, t string) bool { return unsafe.StringData(s) == unsafe.StringData(t) }
	if !same(a.Labels["app"], b.Labels["app"]) || !same(a.Namespace, b.Namespace) || !same(a.Spec.Node, b.Spec.Node) ||
		!same(a.Spec.Profiles[0], b.Spec.Profiles[0]) {
		t.Error("values are not shared")
	}
	for k := range a.Labels {
		for l := range b.Labels {
			if k == l && !same(k, l) {
				t.Errorf("the name of label %s is not shared", k)
			}
		}
	}
}
