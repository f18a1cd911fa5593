package node

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni"
	"github.com/calicogo/calico/store"
)

// etcdPods answers what a pod is where no Kubernetes API is involved: its labels and
// annotations come with the request, its namespace is a stored Profile.
type etcdPods struct {
	store store.Store
	known func(store.Key) (api.Object, bool) // the cache
}

// Get returns the pod. A namespace that has no Profile yet is an error: the pod would
// have no rules that let it speak.
func (p etcdPods) Get(ctx context.Context, namespace, name string, args cni.PodArgs) (cni.Pod, error) {
	key := store.Key{Kind: api.KindProfile.Name, Name: api.NamespaceProfile + namespace}
	o, ok := p.known(key)
	if !ok { // what is not in the cache yet is read, never taken as absent
		var err error
		if o, err = p.store.Get(ctx, key); err != nil {
			return cni.Pod{}, unknownNamespace(namespace, key, err)
		}
	}
	return cni.Pod{
		Labels:          maps.Clone(args.Labels),
		Annotations:     maps.Clone(args.Annotations),
		NamespaceLabels: namespaceLabels(o.(*api.Profile)),
		ServiceAccount:  args.ServiceAccount,
		Profiles:        profiles(namespace, args.ServiceAccount),
		Ports:           args.Ports,
	}, nil
}

// profiles are those of a pod's namespace and of its service account, if it has one.
func profiles(namespace, serviceAccount string) []string {
	all := []string{api.NamespaceProfile + namespace}
	if serviceAccount != "" {
		all = append(all, api.ServiceAccountProfile+namespace+"."+serviceAccount)
	}
	return all
}

func unknownNamespace(namespace string, key store.Key, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("namespace %s is not in the datastore, where it is %v: apply a Namespace of that name first", namespace, key)
	}
	return fmt.Errorf("namespace %s (%v): %w", namespace, key, err)
}

// namespaceLabels are the namespace's own labels, which its Profile hands down prefixed.
func namespaceLabels(p *api.Profile) map[string]string {
	m := map[string]string{}
	for k, v := range p.Spec.LabelsToApply {
		if n := len(api.NamespaceLabelPrefix); len(k) > n && k[:n] == api.NamespaceLabelPrefix {
			m[k[n:]] = v
		}
	}
	return m
}
