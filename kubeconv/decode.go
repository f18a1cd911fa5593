package kubeconv

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/calicogo/calico/api"
)

// DecodeAll decodes every object of a file of YAML or JSON, be it Calico's or, converted,
// a Kubernetes Namespace or NetworkPolicy. Errors begin with file, document and line. A
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

// convert decodes and converts a Namespace or NetworkPolicy of Kubernetes, strictly. It
// is false if the document is of another kind.
func convert(d api.Document, namespace string) (api.Object, bool, error) {
	switch d.APIVersion + " " + d.Kind {
	case "v1 Namespace":
		o, err := namespaceFrom(d)
		return o, true, err
	case "networking.k8s.io/v1 NetworkPolicy":
		o, err := policyFrom(d, namespace)
		return o, true, err
	}
	if _, ours := api.KindNamed(d.Kind); !ours && d.APIVersion != api.GroupVersion {
		return nil, true, fmt.Errorf("%s: %s %s: of Kubernetes' objects, v1 Namespace and networking.k8s.io/v1 NetworkPolicy are taken", d.Where(), d.APIVersion, d.Kind)
	}
	return nil, false, nil
}

func namespaceFrom(d api.Document) (api.Object, error) {
	ns := &corev1.Namespace{}
	if err := d.Into(ns); err != nil {
		return nil, err
	}
	if msgs := validation.IsDNS1123Label(ns.Name); len(msgs) > 0 {
		return nil, fmt.Errorf("%s: metadata.name: %q: %s", d.Where(), ns.Name, msgs[0])
	}
	p := Namespace(ns)
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("%s: Namespace %s: %w", d.Where(), ns.Name, err)
	}
	return p, nil
}

func policyFrom(d api.Document, namespace string) (api.Object, error) {
	var written struct {
		networkingv1.NetworkPolicy `json:",inline"`
		Status                     any `json:"status"` // printed by API servers up to 1.27
	}
	if err := d.Into(&written); err != nil {
		return nil, err
	}
	np := &written.NetworkPolicy
	if np.Namespace == "" {
		np.Namespace = namespace
	}
	if msgs := validation.IsDNS1123Subdomain(np.Name); len(msgs) > 0 {
		return nil, fmt.Errorf("%s: metadata.name: %q: %s", d.Where(), np.Name, msgs[0])
	}
	p, err := NetworkPolicy(np)
	if err == nil {
		err = p.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Where(), err)
	}
	return p, nil
}
