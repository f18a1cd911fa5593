package kubeconv

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/calicogo/calico/api"
)

// DecodeAll decodes every object of a file of YAML or JSON, be it Calico's or, converted,
// a Namespace, ServiceAccount, Service, EndpointSlice or NetworkPolicy of Kubernetes. Errors begin with file, document and line. A
// Kubernetes object without a namespace is one of namespace, if that is its kind's way.
func DecodeAll(file string, text []byte, namespace string) ([]api.Object, error) {
	docs, err := api.Documents(file, text)
	if err != nil {
		return nil, err
	}
	var all []api.Object
	for _, d := range docs {
		o, ok, err := convert(d, namespace)
		if err == nil && !ok {
			o, err = d.Object()
		}
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// converters read the documents of Kubernetes' kinds, strictly.
var converters = map[string]func(d api.Document, namespace string) (api.Object, error){
	"v1 Namespace":                       namespaceFrom,
	"v1 ServiceAccount":                  serviceAccountFrom,
	"v1 Service":                         serviceFrom,
	"discovery.k8s.io/v1 EndpointSlice":  endpointSliceFrom,
	"networking.k8s.io/v1 NetworkPolicy": policyFrom,
}

// convert decodes and converts an object of Kubernetes. It is false if the document may be
// one of Calico's.
func convert(d api.Document, namespace string) (api.Object, bool, error) {
	if f, ok := converters[d.APIVersion+" "+d.Kind]; ok {
		o, err := f(d, namespace)
		return o, true, err
	}
	if k, ok := api.KindNamed(d.Kind); (!ok || k.Group != "") && d.APIVersion != api.GroupVersion {
		return nil, true, fmt.Errorf("%s: %s %s: of Kubernetes' objects these are taken: %s", d.Where(), d.APIVersion, d.Kind, strings.Join(slices.Sorted(maps.Keys(converters)), ", "))
	}
	return nil, false, nil
}

// A kubeObject is a resource of Kubernetes.
type kubeObject interface {
	GetName() string
	GetNamespace() string
	SetNamespace(string)
}

// read decodes d into o. An object that says no namespace is one of namespace.
func read(d api.Document, o kubeObject, namespace string, name func(string) []string) error {
	if err := d.Into(o); err != nil {
		return err
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(namespace)
	}
	if msgs := name(o.GetName()); len(msgs) > 0 {
		return d.AtField("metadata.name", fmt.Errorf("metadata.name: %q: %s", o.GetName(), msgs[0]))
	}
	if msgs := validation.IsDNS1123Label(o.GetNamespace()); o.GetNamespace() != "" && len(msgs) > 0 {
		return d.AtField("metadata.namespace", fmt.Errorf("metadata.namespace: %q: %s", o.GetNamespace(), msgs[0]))
	}
	return nil
}

// checked is o, or what is wrong with it or with its conversion.
func checked[T api.Object](d api.Document, o T, err error) (api.Object, error) {
	if err != nil { // OBJECT: FIELD: what is wrong with it
		_, what, _ := strings.Cut(err.Error(), ": ")
		path, _, _ := strings.Cut(what, ":")
		return nil, d.AtField(path, err)
	}
	if err := o.Validate(); err != nil {
		return nil, d.At(err)
	}
	return o, nil
}

func namespaceFrom(d api.Document, _ string) (api.Object, error) {
	ns := &corev1.Namespace{}
	if err := read(d, ns, "", validation.IsDNS1123Label); err != nil {
		return nil, err
	}
	if ns.Namespace != "" {
		return nil, d.AtField("metadata.namespace", fmt.Errorf("metadata.namespace: %q: a Namespace belongs to none", ns.Namespace))
	}
	return checked(d, Namespace(ns), nil)
}

func serviceAccountFrom(d api.Document, namespace string) (api.Object, error) {
	sa := &corev1.ServiceAccount{}
	if err := read(d, sa, namespace, validation.IsDNS1123Subdomain); err != nil {
		return nil, err
	}
	return checked(d, ServiceAccount(sa), nil)
}

func serviceFrom(d api.Document, namespace string) (api.Object, error) {
	s := &corev1.Service{}
	if err := read(d, s, namespace, validation.IsDNS1035Label); err != nil {
		return nil, err
	}
	o, err := Service(s)
	return checked(d, o, err)
}

func endpointSliceFrom(d api.Document, namespace string) (api.Object, error) {
	s := &discoveryv1.EndpointSlice{}
	if err := read(d, s, namespace, validation.IsDNS1123Subdomain); err != nil {
		return nil, err
	}
	o, err := EndpointSlice(s)
	return checked(d, o, err)
}

func policyFrom(d api.Document, namespace string) (api.Object, error) {
	var written struct {
		networkingv1.NetworkPolicy `json:",inline"`
		Status                     any `json:"status"` // printed by API servers up to 1.27
	}
	if err := read(d, &written, namespace, validation.IsDNS1123Subdomain); err != nil {
		return nil, err
	}
	p, err := NetworkPolicy(&written.NetworkPolicy)
	return checked(d, p, err)
}
