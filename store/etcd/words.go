package etcd

import "github.com/calicogo/calico/api"

// words are texts that many endpoints have. A cluster's endpoints have the same few
// labels, profiles and nodes, which decoded one by one take a copy each.
type words map[string]string

// share gives an object that nobody else has yet the texts that others have. nil shares
// nothing.
func (w words) share(o api.Object) {
	e, ok := o.(*api.WorkloadEndpoint)
	if !ok || w == nil {
		return
	}
	for name, text := range e.Labels {
		e.Labels[w.one(name)] = w.one(text) // the key's text is replaced, too
	}
	for i, p := range e.Spec.Profiles {
		e.Spec.Profiles[i] = w.one(p)
	}
	for _, s := range []*string{&e.Namespace, &e.Spec.Node, &e.Spec.Orchestrator, &e.Spec.ServiceAccountName, &e.Spec.Endpoint} {
		*s = w.one(*s)
	}
}

// one is the one copy of s.
func (w words) one(s string) string {
	if t, ok := w[s]; ok {
		return t
	}
	w[s] = s
	return s
}
