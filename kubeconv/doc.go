// Package kubeconv turns Kubernetes resources into Calico's: a Namespace or ServiceAccount
// into the Profile that hands its labels to pods, a networking.k8s.io/v1 NetworkPolicy into
// a NetworkPolicy of the tier default, a Service or EndpointSlice into what rules need of it.
// All as upstream has them, and without an API server: what it would have defaulted and
// refused is defaulted and refused here.
package kubeconv
