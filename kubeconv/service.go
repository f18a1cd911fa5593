package kubeconv

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
)

// Service returns what Calico reads of a Service, defaulted. A port that no API server would
// have let pass is an error that names the field.
func Service(s *corev1.Service) (*api.Service, error) {
	o := &api.Service{Meta: metaOf(api.KindService, &s.ObjectMeta)}
	o.Spec.ClusterIPs = append(o.Spec.ClusterIPs, s.Spec.ClusterIPs...)
	if len(o.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP != "" { // as an API server does
		o.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	for i, p := range s.Spec.Ports {
		number, err := portNumber(p.Port)
		if err != nil {
			return nil, fmt.Errorf("Service %s/%s: spec.ports[%d].%w", s.Namespace, s.Name, i, err)
		}
		o.Spec.Ports = append(o.Spec.Ports, api.ServicePort{Name: p.Name, Protocol: api.Protocol(p.Protocol), Port: number})
	}
	o.Default()
	return o, nil
}

// EndpointSlice returns what Calico reads of an EndpointSlice, defaulted. A port that no API
// server would have let pass is an error that names the field.
func EndpointSlice(s *discoveryv1.EndpointSlice) (*api.EndpointSlice, error) {
	o := &api.EndpointSlice{Meta: metaOf(api.KindEndpointSlice, &s.ObjectMeta), AddressType: api.AddressType(s.AddressType)}
	for _, e := range s.Endpoints {
		o.Endpoints = append(o.Endpoints, api.SliceEndpoint{
			Addresses:  e.Addresses,
			Conditions: api.EndpointConditions{Ready: e.Conditions.Ready, Serving: e.Conditions.Serving, Terminating: e.Conditions.Terminating},
			NodeName:   deref(e.NodeName),
		})
	}
	for i, p := range s.Ports {
		port := api.SlicePort{Name: deref(p.Name), Protocol: api.Protocol(deref(p.Protocol))}
		if p.Port != nil {
			number, err := portNumber(*p.Port)
			if err != nil {
				return nil, fmt.Errorf("EndpointSlice %s/%s: ports[%d].%w", s.Namespace, s.Name, i, err)
			}
			port.Port = &number
		}
		o.Ports = append(o.Ports, port)
	}
	o.Default()
	return o, nil
}

func portNumber(n int32) (uint16, error) {
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port: %d: must be from 1 to 65535", n)
	}
	return uint16(n), nil
}

// metaOf keeps what Calico reads of an object's metadata: who it is, and its labels.
func metaOf(k *api.Kind, m *metav1.ObjectMeta) api.Meta {
	o := api.Named(k, m.Namespace, m.Name)
	o.Labels, o.ResourceVersion, o.UID = m.Labels, m.ResourceVersion, m.UID
	return o
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}
