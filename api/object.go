package api

import (
	"encoding/json"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the apiVersion of every kind that is Calico's own.
const GroupVersion = "projectcalico.org/v3"

// Object is a resource of one of the kinds of this package.
type Object interface {
	metav1.Object
	// GetObjectKind gives access to apiVersion and kind; see [metav1.TypeMeta].
	GetObjectKind() schema.ObjectKind
	// Default fills in what the user left out and upstream defines. It is idempotent.
	Default()
	// Validate says what is wrong with a defaulted object; nil when nothing is.
	// Its errors are field errors: they name the path, the value and the remedy.
	Validate() error
}

// Meta is embedded by every kind: apiVersion, kind and metadata.
type Meta struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
}

// Named returns the metadata of a new object of kind k. The namespace is empty for
// cluster-wide kinds.
func Named(k *Kind, namespace, name string) Meta {
	return Meta{
		TypeMeta:   metav1.TypeMeta{APIVersion: k.APIVersion(), Kind: k.Name},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
	}
}

// Clone returns a deep copy of o.
func Clone[T Object](o T) T {
	b, err := json.Marshal(o)
	if err != nil {
		panic("api: clone: " + err.Error()) // every kind is plain data
	}
	c := KindOf(o).New()
	if err := json.Unmarshal(b, c); err != nil {
		panic("api: clone: " + err.Error())
	}
	return c.(T)
}

// Revision is the datastore revision at which o was last written, from its
// metadata.resourceVersion; 0 when it has none or one that is no number.
func Revision(o Object) int64 {
	n, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// SetRevision records the datastore revision at which o was last written.
func SetRevision(o Object, rev int64) { o.SetResourceVersion(strconv.FormatInt(rev, 10)) }

// typed returns metadata with nothing but the kind's apiVersion and name.
func typed(kind string) Meta { return typedOf(GroupVersion, kind) }

func typedOf(apiVersion, kind string) Meta {
	return Meta{TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}}
}
